"""What reading a file gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ..chunks.syntax import Syntax

Warn = Callable[[str], None]
"""Called with what a reader of the text should know: what was replaced, left out or not found."""


class Unreadable(Exception):
    """A file that gives no text; the message is the reason, for a person."""


def at_most(most: int, count: int, what: str) -> None:
    """Raises Unreadable for a file with more of something than any real one has: it would take long to find out."""
    if count > most:
        raise Unreadable(f"too large: it has {count} {what}, and {most} are read")


class Attachment(NamedTuple):
    """A file within a file."""

    name: str
    data: bytes


class Parsed(NamedTuple):
    text: str
    syntax: Syntax = "plain"
    attachments: tuple[Attachment, ...] = ()
    warnings: tuple[str, ...] = ()
