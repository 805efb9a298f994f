"""Scans long texts part by part, because a regular expression holds the interpreter's lock until its next match."""

from __future__ import annotations

import re
from collections.abc import Iterator

from .. import slices

PART = 2**16
"""Characters that are scanned at a time, in a few milliseconds."""

AHEAD = 2**11
"""Most characters of a match and its lookahead."""

_WORD = re.compile(r"\S")
_SPACE = re.compile(r"\s")


def matches(
    pattern: re.Pattern[str], text: str, begin: int = 0, end: int | None = None
) -> Iterator[re.Match[str]]:
    """Do the same as `pattern.finditer(text, begin, end)`, for patterns whose matches are short or white space."""
    end = len(text) if end is None else end
    while begin < end:
        slices.give_way()
        word = _WORD.search(text, min(begin + PART, end), end)
        cut = word.start() if word else end
        next_begin = cut
        for found in pattern.finditer(text, begin, min(cut + AHEAD, end)):
            if found.start() >= cut < end:
                break
            next_begin = max(cut, found.end())
            yield found
        begin = next_begin


def lines(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """Do the same as `pattern.finditer(text)`, for patterns that match whole lines."""
    begin = 0
    while begin < len(text):
        slices.give_way()
        last = text.rfind("\n", begin, begin + PART) + 1 or begin
        end = text.find("\n", begin + PART) + 1 or len(text)
        yield from pattern.finditer(text, begin, last)
        if line := pattern.match(text, last, end):
            yield line
        begin = end


def parts(text: str) -> Iterator[str]:
    """Yield the text in parts, divided after white space; a long word stays whole."""
    begin = 0
    while begin < len(text):
        slices.give_way()
        space = _SPACE.search(text, begin + PART)
        end = space.end() if space else len(text)
        yield text[begin:end]
        begin = end


def single_spaced(text: str) -> str:
    """Return `" ".join(text.split())`."""
    if len(text) <= PART:
        return " ".join(text.split())
    return " ".join(filter(None, (" ".join(part.split()) for part in parts(text))))
