"""Divides long texts into parts, because libraries hold the interpreter's lock while they work on a text."""

from __future__ import annotations

import re
from collections.abc import Iterator

PART_CHARACTERS = 2**15
"""Characters of a part; most texts have one part."""

NEAR = 2**10

# A place where a token certainly ends.
_BETWEEN = re.compile(r"(?<=\S)(?= \S)|(?<=\n)(?=\S)")


def windows(text: str, most: int = PART_CHARACTERS) -> Iterator[str]:
    """Yield the text in parts, divided between words or lines if there are any nearby."""
    start = 0
    while len(text) - start > most:
        place = start + most
        near = [found.start() for found in _BETWEEN.finditer(text, place - NEAR, place)]
        end = near[-1] if near else place
        yield text[start:end]
        start = end
    yield text[start:]
