"""Long texts in parts: a library that works on a whole text holds the interpreter's lock for all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

PART_CHARACTERS = 2**15
"""Characters of a part; most texts are one."""

NEAR = 2**10

# A place where a token certainly ends.
_BETWEEN = re.compile(r"(?<=\S)(?= \S)|(?<=\n)(?=\S)")


def windows(text: str, most: int = PART_CHARACTERS) -> Iterator[str]:
    """The text in parts, cut between words or lines if there are any near."""
    start = 0
    while len(text) - start > most:
        place = start + most
        near = [found.start() for found in _BETWEEN.finditer(text, place - NEAR, place)]
        end = near[-1] if near else place
        yield text[start:end]
        start = end
    yield text[start:]
