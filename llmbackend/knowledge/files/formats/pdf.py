"""PDF: its pages, with what was filled in and written onto them."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from ...chunks.syntax import PAGE_END
from ..parsed import Parsed, Unreadable, Warn, at_most

PAGES = 50_000
_PAGE = re.compile(rb"/Type\s*/Page\b")


def pdf(data: bytes, warn: Warn) -> Parsed:
    from pypdf import PdfReader
    from pypdf.errors import DependencyError, FileNotDecryptedError, LimitReachedError

    # Those that can be seen without opening it, which takes a minute where there are millions.
    at_most(PAGES, len(_PAGE.findall(data)), "pages")
    try:
        reader = PdfReader(io.BytesIO(data))
        if reader.is_encrypted and not reader.decrypt(""):
            raise Unreadable("encrypted: remove its password first")
        at_most(PAGES, len(reader.pages), "pages")
        pages = [_page(page) for page in reader.pages]
    except FileNotDecryptedError:
        raise Unreadable("encrypted: remove its password first") from None
    except LimitReachedError as error:
        raise Unreadable(f"too large: {error}") from None
    except DependencyError as error:
        raise ImportError(str(error), name="cryptography") from error
    without = sum(1 for page in pages if not page.strip())
    if without == len(pages):
        return Parsed("")
    if without:
        warn(f"{without} of {len(pages)} pages have no text: scanned?")
    return Parsed(without_ligatures(PAGE_END.join(pages)))


def _page(page: Any) -> str:
    text: str = page.extract_text().replace(PAGE_END, "\n") + "\n"
    notes = [note for note in _notes(page) if note not in text]
    return text + "".join(f"{note}\n" for note in notes)


def _notes(page: Any) -> Iterator[str]:
    """What form fields on a page hold, and what was written onto it."""
    annotations = _resolved(page.get("/Annots"))
    for reference in annotations if isinstance(annotations, list) else ():
        annotation = _resolved(reference)
        if not isinstance(annotation, dict):
            continue
        if annotation.get("/Subtype") == "/Widget":
            name, value = _field(annotation)
            if value:
                yield f"{name}: {value}" if name else value
        elif annotation.get("/Subtype") != "/Popup" and (said := _said(annotation.get("/Contents"))):
            yield said


def _field(widget: Any) -> tuple[str, str]:
    """A form field's name and value; both may be told by what it is part of."""
    names: list[str] = []
    value = label = ""
    node, seen = widget, 0
    while isinstance(node, dict) and seen < 32:
        value = value or _said(_resolved(node.get("/V")))
        label = label or _said(node.get("/TU"))
        if part := _said(node.get("/T")):
            names.insert(0, part)
        node, seen = _resolved(node.get("/Parent")), seen + 1
    return label or ".".join(names), value


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


def without_ligatures(text: str) -> str:
    return re.sub("[\ufb00-\ufb06]", lambda found: unicodedata.normalize("NFKC", found[0]), text)
