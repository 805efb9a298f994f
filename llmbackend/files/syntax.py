"""Tells how a document's text is marked up."""

from __future__ import annotations

import hashlib
from posixpath import splitext
from typing import Any, NamedTuple

from ..schemas import Document
from .parsed import Syntax

PART_OF = "part_of"
"""Metadata field of a document from a file inside another: the outer document's id."""


class ParsedDocument(Document):
    """A document read from a file, whose name does not show the syntax of its text."""

    syntax: Syntax
    warnings: tuple[str, ...] = ()
    """What reading the file left out or replaced."""


class BareText(NamedTuple):
    """A text given without id or metadata; a Document, which is validated, takes longer to make."""

    id: str
    text: str
    metadata: dict[str, Any]

    @classmethod
    def of(cls, text: str) -> BareText:
        """Return a text with the hash of its content as its id."""
        return cls(hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], text, {})


_SYNTAXES: dict[str, Syntax] = {".md": "markdown", ".markdown": "markdown", ".rst": "rst"}


def syntax(document: Document | BareText) -> Syntax:
    """Return how a document's text is marked up: by the extension of its id or `source`, unless it was parsed from a file."""
    if isinstance(document, ParsedDocument):
        return document.syntax
    if isinstance(document, BareText):  # its id is a hash
        return "plain"
    for name in (document.id, document.metadata.get("source")):
        if isinstance(name, str) and (found := _SYNTAXES.get(splitext(name)[1].lower())):
            return found
    return "plain"
