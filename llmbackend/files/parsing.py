"""Extracts a file's text. Runs in a process of its own (process.py), so that a crash harms nothing else.

Office files, HTML and notebooks become Markdown. Each page of a PDF, and each slide, ends with a form feed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePosixPath

from llm_client import INSTEAD, NEITHER

from .decoding import clean, decoded, is_text
from .formats import epub, html, mail, odt, pdf, sheets, slides, tables, text, word
from .parsed import Parsed, Unreadable, Warn

ATTACHMENTS = 200
"""Most files inside one file that are read."""
ATTACHMENT_DEPTH = 3
"""Levels of files inside files that are read."""
NAMED = 10
"""Most files inside one file that a warning names."""


def parse(name: str, data: bytes) -> Parsed:
    """Extract a file's text, in the format of its extension, or as plain text.

    Raises Unreadable, and ImportError if the format's parser is not installed.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if not data:
        raise Unreadable("empty")
    if (read := FORMATS.get(suffix)) is None:
        read, data = text.plain, text.without_colors(data)
        if not is_text(data):
            instead = f": {INSTEAD[suffix]}" if suffix in INSTEAD else ""
            raise Unreadable(f"unsupported type {suffix}: {NEITHER}{instead}")
    warnings: dict[str, None] = {}  # each once, in order

    def warn(warning: str) -> None:
        warnings[warning] = None

    try:
        parsed = read(data, warn)
    except (Unreadable, ImportError, MemoryError):
        raise
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except Exception as error:  # parsers raise all kinds of errors
        said = " ".join(str(error).split())[:200]
        if said.startswith("Excessive depth"):  # of XML
            raise Unreadable("nested too deeply") from None
        raise Unreadable(f"broken, or no {suffix} file: {said or type(error).__name__}") from error
    said = clean(parsed.text, warn)
    if not said.strip():
        raise Unreadable("scanned: its pages have no text, only images" if suffix == ".pdf" else "empty")
    return parsed._replace(text=said, warnings=tuple(warnings))


def parse_all(name: str, data: bytes, depth: int = 0) -> Iterator[tuple[str, Parsed | Unreadable]]:
    """Yield the file itself, then each file inside it, under names below its own.

    Raises what `parse` raises for the file itself. For an unreadable file inside it, yields the reason.
    """
    parsed = parse(name, data)
    found: dict[str, bytes] = {}
    others: dict[str, None] = {}
    for attachment in parsed.attachments:
        if attachment.data and PurePosixPath(attachment.name).suffix.lower() in FORMATS.keys() - {""}:
            found[_free(f"{name}/{attachment.name.replace('/', '_')}", found)] = attachment.data
        else:
            others[attachment.name] = None
    if others:
        more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
        told = f"left out of it, {NEITHER}: {', '.join(islice(others, NAMED))}{more}"
        parsed = parsed._replace(warnings=(*parsed.warnings, told))
    left_out = len(found) - ATTACHMENTS
    if left_out > 0 or (found and depth == ATTACHMENT_DEPTH):
        more = f"{len(found) if depth == ATTACHMENT_DEPTH else left_out} files in it are not read"
        parsed = parsed._replace(warnings=(*parsed.warnings, more))
    yield name, parsed
    for inner, content in list(found.items())[: ATTACHMENTS if depth < ATTACHMENT_DEPTH else 0]:
        try:
            yield from parse_all(inner, content, depth + 1)
        except Unreadable as error:
            yield inner, error


def _free(name: str, taken: dict[str, bytes]) -> str:
    """Return the name, or a similar one that is not taken."""
    path = PurePosixPath(name)
    number = 1
    while name in taken:
        number += 1
        name = str(path.with_name(f"{path.stem} ({number}){path.suffix}"))
    return name


def _separated(data: bytes, warn: Warn) -> Parsed:
    return Parsed(tables.records(tables.separated(decoded(data, warn))))


FORMATS: dict[str, Callable[[bytes, Warn], Parsed]] = {
    "": text.plain,
    ".txt": text.plain,
    ".md": text.markdown,
    ".markdown": text.markdown,
    ".rst": text.rst,
    ".html": html.html,
    ".htm": html.html,
    ".pdf": pdf.pdf,
    ".docx": word.docx,
    ".pptx": slides.pptx,
    ".xlsx": sheets.xlsx,
    ".odt": odt.odt,
    ".epub": epub.epub,
    ".csv": _separated,
    ".tsv": _separated,
    ".json": text.json_file,
    ".jsonl": text.jsonl,
    ".ipynb": text.notebook,
    ".eml": mail.mail,
    ".mhtml": mail.web_page,
    ".mht": mail.web_page,
}
