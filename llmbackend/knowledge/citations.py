"""What a model writes, checked as it comes: whether it found anything at all, and whom it cites."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

NOT_THERE = "NOT IN THE DOCUMENTS"
"""What the model is told to answer where the passages do not tell."""

_CITATION = re.compile(r"\s?\[(\d+)\]")
_BEGUN = re.compile(r"\s?(?:\[\d*)?\Z")  # what may yet become one


def cited(text: str) -> list[int]:
    """The numbers of the sources that a text cites, in the order of their first mention."""
    return list(dict.fromkeys(int(number) for number in _CITATION.findall(text)))


async def checked(pieces: AsyncIterator[str], count: int) -> AsyncGenerator[str, None]:
    """The pieces of an answer without citations of sources that there are not (there are `count`).

    Nothing comes where the answer is that the passages do not tell.
    """

    def known(text: str) -> str:
        return _CITATION.sub(lambda match: match[0] if 1 <= int(match[1]) <= count else "", text)

    held = ""
    begun = False
    async for piece in pieces:
        held += piece
        if not begun:
            beginning = _plain(held)
            if beginning.startswith(NOT_THERE):
                return
            if NOT_THERE.startswith(beginning):
                continue  # it may become that
            begun = True
            held = held.lstrip()
        incomplete = _BEGUN.search(held)
        assert incomplete is not None
        if incomplete.start():
            yield known(held[: incomplete.start()])
            held = held[incomplete.start() :]
    if held := held.strip() if not begun else held.rstrip():
        yield known(held)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Z ]", "", text.upper()).strip()
