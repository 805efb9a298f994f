"""What a model writes, checked as it comes: whether it found anything at all, and whom it cites."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

NOT_THERE = "NOT IN THE DOCUMENTS"
"""What the model is told to answer where the passages do not tell."""

_CITATION = re.compile(r"\s?\[(\d+)\]")
_BEGUN = re.compile(r"\s?(?:\[\d*)?\Z")  # what may yet become one


def cited(text: str) -> list[int]:
    """The numbers of the sources that a text cites, in the order of their first mention."""
    return list(dict.fromkeys(int(number) for number in _CITATION.findall(text)))


class Checked:
    """The pieces of an answer without citations of sources that there are not (`count` are).

    Nothing comes, and `found` is False, where the answer is that the passages do not tell.
    """

    def __init__(self, pieces: AsyncIterator[str], count: int) -> None:
        self.found = True
        self._pieces = pieces
        self._count = count

    async def __aiter__(self) -> AsyncIterator[str]:
        held = ""
        begun = False
        async for piece in self._pieces:
            held += piece
            if not begun:
                beginning = _plain(held)
                if NOT_THERE.startswith(beginning) and beginning != NOT_THERE:
                    continue  # it may become that
                if beginning.startswith(NOT_THERE):
                    self.found = False
                    return
                begun = True
                held = held.lstrip()
            ready = _BEGUN.search(held)
            assert ready is not None
            if ready.start():
                yield self._without_strangers(held[: ready.start()])
                held = held[ready.start() :]
        if not begun and not held.strip():
            self.found = False
        elif held.rstrip():
            yield self._without_strangers(held.rstrip())

    def _without_strangers(self, text: str) -> str:
        return _CITATION.sub(lambda match: match[0] if 1 <= int(match[1]) <= self._count else "", text)


def _plain(text: str) -> str:
    return re.sub(r"[^A-Z ]", "", text.upper()).strip()
