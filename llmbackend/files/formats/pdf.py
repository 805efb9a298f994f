"""Reads PDF: the pages' text, with form fields and annotations."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Container, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from ..parsed import PAGE_END, Attachment, Parsed, Unreadable, Warn, at_most
from .html import apart

PAGES = 50_000
_PAGE = re.compile(rb"/Type\s*/Page\b")


def pdf(data: bytes, warn: Warn) -> Parsed:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    # Objects are counted without opening the file, which takes a minute with millions of them.
    at_most(PAGES, len(_PAGE.findall(data)), "pages")
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: remove its password first")
        at_most(PAGES, len(reader.pages), "pages")
        pages, broken = _pages(reader, warn)
        if any(map(str.strip, pages)):
            pages[-1] += "".join(
                f"{told}\n" for told in _other_fields(reader) if not any(told in one for one in pages)
            )
        attachments = _attachments(reader)
    except FileNotDecryptedError:
        raise Unreadable("encrypted: remove its password first") from None
    except LimitReachedError as error:
        raise Unreadable(f"too large: {error}") from None
    except DependencyError as error:
        raise ImportError(str(error), name="cryptography") from error
    if not any(map(str.strip, pages)):
        return Parsed("")
    without = [number for number, page in enumerate(pages, 1) if not page.strip() and number not in broken]
    if without:
        warn(f"{len(without)} of {len(pages)} pages have no text: scanned? ({_ranges(without)})")
    if attachments:
        pages[-1] += f"Attachments: {', '.join(one.name for one in attachments)}\n"
    return Parsed(PAGE_END.join(pages), attachments=tuple(attachments))


def _pages(reader: Any, warn: Warn) -> tuple[list[str], Container[int]]:
    """The text of each page; `warn` gets the numbers of unreadable ones.

    If none can be read, raises the last page's error.
    """
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    pages: list[str] = []
    broken: dict[int, str] = {}
    for number, page in enumerate(reader.pages, 1):
        try:
            pages.append(_page(page))
        except (DependencyError, FileNotDecryptedError, LimitReachedError, MemoryError, Unreadable):
            raise
        except Exception as error:  # pypdf raises all kinds of errors
            if len(broken) + 1 == len(reader.pages):
                raise
            broken[number] = str(error) or type(error).__name__
            pages.append("\n")
    if broken:
        warn(
            f"pages that are broken, and left out: {_ranges(list(broken))} ({next(iter(broken.values()))[:100]})"
        )
    return pages, broken


def _ranges(numbers: list[int]) -> str:
    """Write numbers as an index does: 2, 5-7."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    told = ", ".join("-".join(map(str, run)) for run in runs[:20])
    return told + (", …" if len(runs) > 20 else "")


def _page(page: Any) -> str:
    text = _text(page).replace(PAGE_END, "\n") + "\n"
    notes = [note for note in _notes(page) if note not in text]
    return text + "".join(f"{note}\n" for note in notes)


class _Piece(NamedTuple):
    """A piece of text in one size; size and height on the page in points, `rise` as in PDF's operator Ts."""

    text: str
    size: float
    height: float
    rise: float


def _text(page: Any) -> str:
    """Return a page's text, with super- and subscript digits apart from numbers."""
    pieces: list[_Piece] = []
    rise = of_piece = 0.0

    def before(operator: bytes, operands: Any, cm: Any, tm: Any) -> None:
        nonlocal rise, of_piece
        if operator == b"Ts":
            rise = float(operands[0]) if operands and isinstance(operands[0], int | float) else 0.0
        elif operator in (b"Tj", b"TJ"):
            of_piece = rise

    def piece(text: str, cm: Any, tm: Any, font: Any, size: float) -> None:
        if text:
            scale = math.sqrt(abs((tm[0] * tm[3] - tm[1] * tm[2]) * (cm[0] * cm[3] - cm[1] * cm[2])))
            pieces.append(_Piece(text, abs(size) * scale, tm[4] * cm[1] + tm[5] * cm[3] + cm[5], of_piece))

    with _telling_sizes(page):
        text: str = page.extract_text(visitor_text=piece, visitor_operand_before=before)
    told = "".join(one.text for one in pieces)
    return _set_apart(pieces) if told.strip() == text.strip() else text


@contextmanager
def _telling_sizes(page: Any) -> Iterator[None]:
    """Within this block, the page repeats its font wherever scale or height changes, so that pypdf splits the text there."""
    from pypdf.generic import ContentStream, NameObject

    contents = page.get("/Contents")
    if contents is None:
        yield
        return
    stream = ContentStream(contents.get_object(), page.pdf, "bytes")
    font: Any = None
    scale: Any = None
    operations: list[Any] = []
    for operands, operator in stream.operations:
        if operator == b"Tf":
            font = operands
        elif operator == b"Ts" and font is not None:
            operations.append((font, b"Tf"))
        elif operator == b"Tm" and len(operands) == 6:
            if font is not None and scale is not None and list(operands[:4]) != scale:
                operations.append((font, b"Tf"))
            scale = list(operands[:4])
        operations.append((operands, operator))
    stream.operations = operations
    before = page.raw_get("/Contents")
    page[NameObject("/Contents")] = stream
    try:
        yield
    finally:
        page[NameObject("/Contents")] = before  # the parsed page is large


SMALL = 0.85
"""A piece smaller than this share of the neighbouring text's size may be a super- or subscript."""
_MARK = re.compile(r"\s*[\w+−-][\w,;+−-]{0,5}\s*")


def _set_apart(pieces: list[_Piece]) -> str:
    told = ""
    base: _Piece | None = None
    for one in pieces:
        text = one.text
        if base is None or told.endswith("\n") or (one.size >= SMALL * base.size and one.rise == base.rise):
            base = one if text.strip() else base
        elif _MARK.fullmatch(text) and (away := one.rise or one.height - base.height):
            written = apart(text, told, raised=away > 0)
            if written is not None and abs(away) < base.size:
                text = text[: len(text) - len(text.lstrip())] + written + text[len(text.rstrip()) :]
        told += text
    return told


def _other_fields(reader: Any) -> Iterator[str]:
    """Values of form fields that are on no page."""
    form = _resolved(reader.root_object.get("/AcroForm"))
    left = list(_resolved(form.get("/Fields")) or ()) if isinstance(form, dict) else []
    seen = 0
    while left and seen < FIELDS:
        field = _resolved(left.pop(0))
        seen += 1
        if not isinstance(field, dict):
            continue
        kids = [kid for kid in _resolved(field.get("/Kids")) or () if isinstance(_resolved(kid), dict)]
        named = [kid for kid in kids if "/T" in _resolved(kid)]
        left += named
        name, value = _field(field)
        if value and not named:
            yield f"{name}: {value}" if name else value


FIELDS = 10_000
"""Most nested fields of a form; also ends cycles."""


def _attachments(reader: Any) -> list[Attachment]:
    try:
        return [Attachment(str(name), data) for name, files in reader.attachments.items() for data in files]
    except Exception:  # a broken list of fields
        return []


def _notes(page: Any) -> Iterator[str]:
    """Values of the form fields on a page, and its annotations."""
    annotations = _resolved(page.get("/Annots"))
    for reference in annotations if isinstance(annotations, list) else ():
        annotation = _resolved(reference)
        if not isinstance(annotation, dict):
            continue
        if annotation.get("/Subtype") == "/Widget":
            name, value = _field(annotation)
            if value:
                yield f"{name}: {value}" if name else value
        elif annotation.get("/Subtype") != "/Popup":
            said = _said(annotation.get("/Contents")) or _without_tags(_said(annotation.get("/RC")))
            yield from filter(None, [said])


def _field(widget: Any) -> tuple[str, str]:
    """A form field's name and value; both may come from its parent."""
    names: list[str] = []
    value = label = ""
    options: dict[str, str] = {}
    node, seen = widget, 0
    while isinstance(node, dict) and seen < 32:
        value = value or _said(_resolved(node.get("/V")))
        label = label or _said(node.get("/TU"))
        for option in _resolved(node.get("/Opt")) or ():
            if isinstance(pair := _resolved(option), list) and len(pair) == 2:
                options[_said(pair[0])] = _said(pair[1])
        if part := _said(node.get("/T")):
            names.insert(0, part)
        node, seen = _resolved(node.get("/Parent")), seen + 1
    return label or ".".join(names), options.get(value, value)


def _said(value: Any) -> str:
    value = _resolved(value)
    if isinstance(value, list):
        return ", ".join(filter(None, map(_said, value)))
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace").strip()
    if not isinstance(value, str):
        return ""
    return "" if value == "/Off" else value.removeprefix("/").strip()


def _resolved(value: Any) -> Any:
    return value.get_object() if hasattr(value, "get_object") else value


def _without_tags(markup: str) -> str:
    from html import unescape

    return " ".join(unescape(re.sub("<[^<>]*>", " ", markup)).split())
