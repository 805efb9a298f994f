"""What a model writes, checked as it comes: whether it found anything at all, and whom it cites."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

NOT_THERE = "NOT IN THE DOCUMENTS"
"""What the model is told to answer where the passages do not tell."""

_CITATION = re.compile(r"\s?\[(\d+)\]")
_OPENING, _CLOSING = r"\s*[\"'*(]*", r"[\"'*).]*"
_NOT_THERE = re.compile(_OPENING + NOT_THERE + _CLOSING)
# What may yet become a citation, or the above.
_BEGINNINGS = "|".join(NOT_THERE[:length] for length in range(len(NOT_THERE), 0, -1))
_BEGUN = re.compile(rf"{_OPENING}(?:\[\d*|(?:{_BEGINNINGS}){_CLOSING})?\Z")


def cited(text: str) -> list[int]:
    """The numbers of the sources that a text cites, in the order of their first mention."""
    return list(dict.fromkeys(int(number) for number in _CITATION.findall(text)))


class Checked:
    """The pieces of an answer, without citations of sources that there are not (there are `count`).

    `found` tells afterwards whether the passages tell, by the model's own word. Nothing comes where it answers that
    they do not; where it says so after some words of its own, these come.
    """

    def __init__(self, answer: AsyncIterator[str], count: int) -> None:
        self._answer = answer
        self._count = count
        self._said = self._cites = self._missing = False

    @property
    def found(self) -> bool:
        # Who says that something is not there, and cites what is, has found something.
        return self._cites or (self._said and not self._missing)

    async def pieces(self) -> AsyncGenerator[str, None]:
        held = ""
        begun = False
        async for piece in self._answer:
            held += piece
            if not begun:
                beginning = _plain(held)
                if beginning.startswith(NOT_THERE):
                    async for _ in self._answer:
                        pass  # its last event counts the tokens
                    return
                if NOT_THERE.startswith(beginning):
                    continue  # it may become that
                begun = True
                held = held.lstrip()
            incomplete = _BEGUN.search(held)
            assert incomplete is not None
            if incomplete.start():
                yield self._known(held[: incomplete.start()])
                held = held[incomplete.start() :]
        if held := held.strip() if not begun else held.rstrip():
            yield self._known(held)

    def _known(self, text: str) -> str:
        text = _CITATION.sub(lambda match: match[0] if 1 <= int(match[1]) <= self._count else "", text)
        text, times = _NOT_THERE.subn("", text)
        self._missing |= times > 0
        self._cites |= bool(cited(text))
        self._said |= bool(text.strip())
        return text


def _plain(text: str) -> str:
    return re.sub(r"[^A-Z ]", "", text.upper()).strip()
