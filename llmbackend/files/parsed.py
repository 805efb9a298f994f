"""The result of reading a file. The parsing process imports this first, so it imports next to nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Literal, NamedTuple

Syntax = Literal["plain", "markdown", "rst"]
PAGE_END = "\f"
"""Between the pages of a text, as in the output of pdftotext."""

Warn = Callable[[str], None]
"""Called with a warning: what was replaced, left out or not found."""


class Unreadable(Exception):
    """A file without readable text; the message gives the reason."""


def at_most(most: int, count: int, what: str) -> None:
    """Raise Unreadable for a file with more of something than any real one has, because parsing it would take long."""
    if count > most:
        raise Unreadable(too_large(f"{count:,} {what}", f"{most:,}"))


def too_large(has: str, most: str) -> str:
    return f"too large: it has {has}, and the limit is {most}"


ATTRIBUTES = 10_000
"""Most attributes of a tag."""
_LONG_TAG = re.compile(r"<[^<>]{50000,}")
_VALUE = re.compile(r"""=\s*(?:"[^"]*"|'[^']*')""")
_ATTRIBUTE = re.compile(r"\s[^\s=/]")


def check_attributes(markup: str) -> None:
    """Raise Unreadable for an HTML or XML tag with more attributes than any real one has."""
    for tag in _LONG_TAG.finditer(markup):
        names = _VALUE.sub(" = ", tag[0])
        at_most(ATTRIBUTES, sum(1 for _ in _ATTRIBUTE.finditer(names)), "attributes in a tag")


class Attachment(NamedTuple):
    """A file inside another."""

    name: str
    data: bytes


class Parsed(NamedTuple):
    text: str
    syntax: Syntax = "plain"
    attachments: tuple[Attachment, ...] = ()
    warnings: tuple[str, ...] = ()
