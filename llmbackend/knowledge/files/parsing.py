"""Bytes of a file into text. Runs in a process of its own (process.py), where it may fail as it likes.

Office files, HTML and notebooks become Markdown; a page of a PDF, or a slide, ends with a form feed.
"""

from __future__ import annotations

import csv
import io
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from ..chunks.syntax import PAGE_END, Syntax
from .decoding import Unreadable, clean, decoded

UNPACKED = 256 * 2**20
"""Bytes that an Office file, which is a zip archive, may have in it."""


class Parsed(NamedTuple):
    text: str
    syntax: Syntax = "plain"


def parse(name: str, data: bytes) -> Parsed:
    """A file's text; its name tells what it is. Raises Unreadable, or ImportError without its parser."""
    suffix = PurePosixPath(name).suffix.lower()
    if suffix not in FORMATS:
        raise Unreadable(f"unsupported type {suffix}")
    if not data:
        raise Unreadable("empty")
    try:
        text, syntax = FORMATS[suffix](data)
    except (Unreadable, ImportError, MemoryError):
        raise
    except RecursionError:
        raise Unreadable("nested too deeply") from None
    except Exception as error:  # whatever the parsers come up with
        said = " ".join(str(error).split())[:200]
        raise Unreadable(f"broken, or no {suffix} file: {said or type(error).__name__}") from error
    text = clean(text)
    if not text.strip():
        raise Unreadable("scanned: its pages have no text, only images" if suffix == ".pdf" else "empty")
    return Parsed(text, syntax)


# Text


def _plain(data: bytes) -> Parsed:
    return Parsed(decoded(data))


def _markdown(data: bytes) -> Parsed:
    return Parsed(decoded(data), "markdown")


def _rst(data: bytes) -> Parsed:
    return Parsed(decoded(data), "rst")


# Tables: each row stands for itself, with its columns' names, because it may be found without the table's head.


def _csv(data: bytes) -> Parsed:
    text = decoded(data)
    csv.field_size_limit(2**30)
    try:
        dialect: Any = csv.Sniffer().sniff(text[: 2**16], ",;\t|")
    except csv.Error:
        dialect = csv.excel_tab if text.count("\t") > text.count(",") else csv.excel
    return Parsed(_records(csv.reader(io.StringIO(text, newline=""), dialect)))


def _xlsx(data: bytes) -> Parsed:
    _check_archive(data, "xlsx")
    import openpyxl

    book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
    sheets: list[str] = []
    for sheet in book.worksheets:
        sheet.reset_dimensions()  # those written down may be anything
        records = _records([_cell(value) for value in row] for row in sheet.iter_rows(values_only=True))
        if records:
            sheets.append(f"# {sheet.title}\n\n{records}")
    return Parsed("\n\n".join(sheets), "markdown")


def _cell(value: Any) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else str(value)


def _records(rows: Iterable[Sequence[str]]) -> str:
    head: list[str] | None = None
    records: list[str] = []
    for row in rows:
        cells = [" ".join(cell.split()) for cell in row]
        if not any(cells):
            continue
        if head is None and len(cells) > 1 and _is_head(cells):
            head = cells
        elif head is None:
            records.append(", ".join(filter(None, cells)))
        else:
            names = head + [""] * (len(cells) - len(head))
            named = zip(names, cells, strict=False)
            records.append("\n".join(f"{name}: {cell}" if name else cell for name, cell in named if cell))
    return "\n\n".join(records or head or ())


def _is_head(cells: Sequence[str]) -> bool:
    return len(set(cells)) == len(cells) and not any(not cell or _is_number(cell) for cell in cells)


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


# JSON


def _json(data: bytes) -> Parsed:
    return Parsed("\n".join(_lines(json.loads(decoded(data)))))


def _jsonl(data: bytes) -> Parsed:
    records: list[str] = []
    for number, line in enumerate(decoded(data).split("\n"), 1):
        if line.strip():
            try:
                records.append("\n".join(_lines(json.loads(line))))
            except ValueError as error:
                raise Unreadable(f"broken: line {number} is not JSON: {error}") from error
    return Parsed("\n\n".join(records))


def _lines(value: Any, name: str = "") -> Iterator[str]:
    """A line for each value, with the path to it; a blank one behind each object or list in a list."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for item in value:
            yield from _lines(item, name)
            if isinstance(item, dict | list):
                yield ""
    elif value is not None:
        said = value if isinstance(value, str) else json.dumps(value)
        yield f"{name}: {said}" if name else said


def _notebook(data: bytes) -> Parsed:
    """Its texts and its code, without what came of running it."""
    book = json.loads(decoded(data))
    if not isinstance(book, dict) or not isinstance(book.get("cells"), list):
        raise Unreadable("broken: a notebook has cells, and this has none")
    language = book.get("metadata", {}).get("kernelspec", {}).get("language", "python")
    parts: list[str] = []
    for cell in book["cells"]:
        source = "".join(cell.get("source", ""))
        if source.strip():
            parts.append(f"```{language}\n{source}\n```" if cell.get("cell_type") == "code" else source)
    return Parsed("\n\n".join(parts), "markdown")


# Mail


def _mail(data: bytes) -> Parsed:
    from email import message_from_bytes, policy

    message: Any = message_from_bytes(data, policy=policy.default)
    fields = [f"{name}: {message[name]}" for name in ("Subject", "From", "To", "Cc", "Date") if message[name]]
    if not fields:
        raise Unreadable("broken: a mail has a sender and a subject, and this has none")
    texts: dict[str, str] = {}
    attached: list[str] = []
    for part in message.walk():
        kind = part.get_content_type()
        if part.get_filename() or part.get_content_disposition() == "attachment":
            attached.append(part.get_filename() or kind)
        elif kind in ("text/plain", "text/html"):
            texts.setdefault(kind, decoded(part.get_payload(decode=True), part.get_content_charset()))
    body = texts.get("text/plain", "")
    if not body.strip() and "text/html" in texts:
        body = _from_html(texts["text/html"])
    if attached:
        fields.append(f"Attachments: {', '.join(attached)}")
    return Parsed("\n".join(fields) + "\n\n" + body)


# HTML


def _html(data: bytes) -> Parsed:
    from bs4.dammit import EncodingDetector

    return Parsed(_from_html(decoded(data, EncodingDetector.find_declared_encoding(data))), "markdown")


_NO_TEXT = (
    *("script", "style", "noscript", "template", "svg", "iframe", "object", "canvas"),
    *("nav", "button", "select", "input", "dialog"),
)
_AROUND = ("header", "footer", "aside")


def _from_html(markup: str) -> str:
    """What a page says, as Markdown: its main part if it names one, without navigation."""
    import warnings

    from bs4 import BeautifulSoup
    from markitdown import StreamInfo
    from markitdown.converters import HtmlConverter

    warnings.simplefilter("ignore")
    soup = BeautifulSoup(markup, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    main = soup.select_one("main, [role=main]")
    if main is None:
        for tag in soup(_AROUND):
            if tag.find_parent("article") is None:
                tag.extract()
    for tag in [*soup(_NO_TEXT), *soup.select("[role=navigation]")]:
        tag.extract()
    for link in soup("a", href=re.compile("^#")):
        if not any(map(str.isalnum, link.get_text())):  # the mark beside a heading that links to it
            link.extract()
    page = io.BytesIO(str(main or soup).encode())
    text = _without_images(HtmlConverter().convert(page, StreamInfo(charset="utf-8")).markdown).strip()
    return text if not title or re.search("^# ", text, re.MULTILINE) else f"# {title}\n\n{text}".strip()


# Office files


def _docx(data: bytes) -> Parsed:
    _check_archive(data, "docx")
    from markitdown import StreamInfo
    from markitdown.converters import DocxConverter

    converter: Any = DocxConverter
    text = converter().convert(io.BytesIO(data), StreamInfo(extension=".docx")).markdown
    return Parsed(_without_images(text), "markdown")


def _pptx(data: bytes) -> Parsed:
    _check_archive(data, "pptx")
    from markitdown import StreamInfo
    from markitdown.converters import PptxConverter

    converter: Any = PptxConverter
    text = converter().convert(io.BytesIO(data), StreamInfo(extension=".pptx")).markdown
    slides = re.split(r"<!-- Slide number: \d+ -->\n", _without_images(text))[1:]
    return Parsed(PAGE_END.join(slide.replace(PAGE_END, "\n").strip() + "\n" for slide in slides), "markdown")


def _without_images(text: str) -> str:
    """What is said of an image, in its place."""
    return re.sub(r"!\[([^\]]*)\]\([^()\s]*\)", r"\1", text)


def _check_archive(data: bytes, kind: str) -> None:
    from zipfile import BadZipFile, ZipFile

    if data.startswith(b"\xd0\xcf\x11\xe0"):
        raise Unreadable(f"encrypted, or of an older Office: save it as .{kind} without a password")
    try:
        with ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except BadZipFile:
        raise Unreadable(f"broken, or no .{kind} file") from None
    size = sum(entry.file_size for entry in entries)
    if size > UNPACKED or len(entries) > 10_000:
        raise Unreadable(f"too large: it unpacks to {len(entries)} parts of {size >> 20} MB in all")


# PDF


def _pdf(data: bytes) -> Parsed:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError

    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: remove its password first")
        pages = [page.extract_text().replace(PAGE_END, "\n") + "\n" for page in reader.pages]
    except FileNotDecryptedError:
        raise Unreadable("encrypted: remove its password first") from None
    except DependencyError as error:
        raise ImportError(str(error), name="cryptography") from error
    if not "".join(pages).strip():
        return Parsed("")
    return Parsed(_without_ligatures(PAGE_END.join(pages)))


def _without_ligatures(text: str) -> str:
    return re.sub("[\ufb00-\ufb06]", lambda found: unicodedata.normalize("NFKC", found[0]), text)


FORMATS: dict[str, Callable[[bytes], Parsed]] = {
    "": _plain,
    ".txt": _plain,
    ".md": _markdown,
    ".markdown": _markdown,
    ".rst": _rst,
    ".html": _html,
    ".htm": _html,
    ".pdf": _pdf,
    ".docx": _docx,
    ".pptx": _pptx,
    ".xlsx": _xlsx,
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ipynb": _notebook,
    ".eml": _mail,
}
