"""Checks a model's answer as it streams: whether it found anything, and which sources it cites.

Real citations are marked by noncharacters until the answer is shown. These are removed from all other text, so anything
else that looks like a citation, in a document or a reply, is known not to be one.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator

from ..inference.thoughts import CLOSING

NOT_THERE = "NOT IN THE DOCUMENTS"
"""What the model is told to reply if the passages do not answer the question."""

# Noncharacters, which Unicode reserves for use within a program.
_OPEN, _CLOSE, ANEW = "\ufdd0", "\ufdd1", "\ufdd2"
MARKED = rf"{_OPEN}([0-9]+){_CLOSE}"
_UNSHOWN = {ord(_OPEN): None, ord(_CLOSE): None, ord(ANEW): None}

# [1], [1, 2] and [1-3].
_AND = r"\s?[,;–-]\s?"
_MOST_CITED = 20  # in one pair of brackets
_NUMBERS = rf"[0-9]{{1,9}}(?:{_AND}[0-9]{{1,9}}){{0,{_MOST_CITED - 1}}}"
_NUMBERS_BEGUN = rf"\[(?:{_NUMBERS}(?:\s?(?:[,;–-]\s?)?)?)?"
# As in args[0]: sources are numbered from 1.
_INDEX = r"\[0\]"
# The same with digits of any script.
LIKE_ONE = rf"\[(?={_NUMBERS}\])(?!0\])".replace("[0-9]", r"\d")
LIKE_ONE_BEGUN = _NUMBERS_BEGUN.replace("[0-9]", r"\d")
_CITATION = re.compile(rf"(?!{_INDEX})\s?\[({_NUMBERS})\]")
_RANGE = re.compile(r"([0-9]+)(?:\s?[–-]\s?([0-9]+))?")
_NOT_THERE = re.compile(r"\s{0,9}[\"'*(]{0,9}" + NOT_THERE + r"[\"'*).]{0,9}")
# The end of a text that may still become a citation or NOT_THERE.
_BEGINNINGS = "|".join(NOT_THERE[:length] for length in range(len(NOT_THERE), 0, -1))
_BEGUN = re.compile(
    rf"\s{{0,9}}[\"'*(]{{0,9}}(?:{_NUMBERS_BEGUN}|[<\[]/?[a-zA-Z]{{0,9}}|(?:{_BEGINNINGS})[\"'*).]{{0,9}})?\Z"
)
_MOST = 9 + 9 + max(len(NOT_THERE) + 9, 1 + 12 * _MOST_CITED + 3)
"""Most characters of such an end."""
_MOST_BEFORE = 200
"""Most characters that are held back at the beginning while they may still become NOT_THERE."""

_UNSEEN = "\u00ad\u200b-\u200f\u2060-\u2064\ufe00-\ufe0f\ufeff"
_LIKE_A_CITATION = re.compile(rf"[\[［【〔⟦〚]([\s\d,;^#–—{_UNSEEN}-]{{1,40}})[\]］】〕⟧〛]")
_INDEX_IN_TEXT = re.compile(rf"(?<=[\w)\]]){_INDEX}")
_LIKE_NOT_THERE = re.compile(rf"\b{NOT_THERE}\b".replace(" ", r"\s+"), re.IGNORECASE)


def mark(number: int) -> str:
    """Return a marked citation, which `links.Inert` turns into "[1]"."""
    return f"{_OPEN}{number}{_CLOSE}"


def _in_other_brackets(found: re.Match[str]) -> str:
    if not re.search(r"\d", found[1]) or _INDEX_IN_TEXT.match(found.string, found.start()):
        return found[0]
    return f"({found[1]})"


def citing_nothing(text: str) -> str:
    """Return a document's text, changed wherever it could pass for one of our citations or for NOT_THERE."""
    text = _LIKE_A_CITATION.sub(_in_other_brackets, text)
    text = _LIKE_NOT_THERE.sub(lambda found: "-".join(found[0].split()), text)
    return text.translate(_UNSHOWN)


class Checked:
    """Marks the citations in an answer's pieces, and drops citations of sources beyond `count`.

    When `pieces` has ended, `found` tells whether the passages answer the question, by the model's own statement. A reply
    of NOT_THERE yields nothing but the words before it. Some chat templates open the model's thoughts themselves, so that
    only their closing tag is seen: then ANEW is yielded, and what came before it is not part of the answer.
    """

    def __init__(self, answer: AsyncIterator[str], count: int) -> None:
        self._answer = answer
        self._count = count
        self._said = self._cites = self._missing = False

    @property
    def found(self) -> bool:
        # A reply that says that something is missing, but cites other things, has found something.
        return self._cites or (self._said and not self._missing)

    async def pieces(self) -> AsyncGenerator[str, None]:
        held = ""
        begun = False
        async for piece in self._answer:
            held += piece.translate(_UNSHOWN)
            if thought := CLOSING.search(held):
                held, begun = held[thought.end() :], False
                self._said = self._cites = self._missing = False
                yield ANEW
            if not begun:
                beginning = _plain(held[:_MOST_BEFORE])
                if beginning.startswith(NOT_THERE):
                    async for _ in self._answer:
                        pass  # read on to the last event, which has the token counts
                    return
                if NOT_THERE.startswith(beginning) and len(held) < _MOST_BEFORE:
                    continue  # it may still become NOT_THERE
                begun = True
                held = held.lstrip()
            incomplete = _BEGUN.search(held, max(0, len(held) - _MOST))
            assert incomplete is not None
            if incomplete.start():
                yield self._known(held[: incomplete.start()])
                held = held[incomplete.start() :]
        if held := held.strip() if not begun else held.rstrip():
            yield self._known(held)

    def _known(self, text: str) -> str:
        text = _CITATION.sub(self._marked, text)
        text, times = _NOT_THERE.subn("", text)
        self._missing |= times > 0
        self._cites |= _OPEN in text
        self._said |= bool(text.strip())
        return text

    def _marked(self, found: re.Match[str]) -> str:
        """Mark each cited source that exists, one by one: [1, 2] becomes [1][2]."""
        named = [(int(one), int(last or one)) for one, last in _RANGE.findall(found[1])]
        nought = len(named) > 1 and any(one == 0 for one, _ in named)
        if nought or any(one > last for one, last in named):
            return found[0]  # an interval, as in "between [0, 1]", or a date
        known: dict[int, None] = {}
        for one, last in named:
            known |= dict.fromkeys(range(max(one, 1), min(last, self._count) + 1))
        if not known:
            return ""
        return found[0][: found[0].index("[")] + "".join(map(mark, known))


def _plain(text: str) -> str:
    return re.sub(r"[^A-Z ]", "", text.upper()).strip()
