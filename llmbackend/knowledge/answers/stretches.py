"""The stretch of a passage that answers: enough around a sentence to be understood, in the text's own words.

That is the sentence with its neighbours, a whole list with what introduces it, a row of a table with its head, steps from
the first one on. A heading, a line that ends in a colon or the mark of a page is never all of it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from ...inference.sentences import sentences

Kind = Literal["sentence", "item", "step", "row", "heading", "mark"]

TITLE_WORDS = 8
"""Of a line by itself that may be a heading without any sign of one."""

LONGEST_PAGE = 40
"""Characters of a line that may be the mark of a page."""

ROOM = 1.25
"""How far beyond its words a stretch goes to end with its paragraph."""

_STEP = re.compile(r"\s*(?:#\.|\(?(?:\d{1,3}|[a-z])[.)])\s+(?=\S)")
_ITEM = re.compile(r"\s*[-*+•‣▪·–]\s+(?=\S)")
_HEADING = re.compile(r"\s*#{1,6}\s")
_HEADING_LINE = re.compile(r"\s*#{1,6}[ \t][^\n]*\n")
_PAGE = re.compile(r"\W*(?:page|seite|p\.)?\W*\d{1,4}(?:\s*(?:of|/|von)\s*\d{1,4})?\W*", re.IGNORECASE)
_UNDERLINE = re.compile(r"\s*([=\-~^\"'#*+`:.])\1{2,}\s*")
_EMPTY_LINE = re.compile(r"\n\s*?\n")
_END = '.!?:;,…。！？)"”’'


class Unit(NamedTuple):
    """A sentence, heading, item of a list or row of a table: `text[start:end]`."""

    start: int
    end: int
    kind: Kind
    block: int
    """The number of its paragraph, list or table."""
    stub: bool
    """It ends in a colon: what it announces comes next."""

    @property
    def tells(self) -> bool:
        """Whether it may answer something."""
        return self.kind not in ("heading", "mark")


def units(text: str) -> list[Unit]:
    """What a passage is made of, in its order."""
    found: list[Unit] = []
    block = before = 0
    for start, end in _spans(text):
        said = text[start:end]
        kind = _kind(said)
        last = found[-1] if found else None
        if last and kind == "mark" and _UNDERLINE.fullmatch(said) and _is_line(text, last, start):
            found[-1] = last._replace(kind="heading")  # as reStructuredText has them
        apart = _EMPTY_LINE.search(text, before, start) is not None
        # The items of a list may stand apart.
        if last and (kind != last.kind or (apart and kind not in ("item", "step"))):
            block += 1
        found.append(Unit(start, end, kind, block, said.rstrip(" *_`\n").endswith((":", "："))))
        before = end
    counted = Counter(unit.block for unit in found)
    for index, unit in enumerate(found[:-1]):
        if (
            unit.kind == "sentence"
            and counted[unit.block] == 1
            and _like_a_title(text[unit.start : unit.end])
        ):
            found[index] = unit._replace(kind="heading")
    return found


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Sentences, without the headings that Markdown lets stand right above them."""
    for start, end in sentences(text):
        while heading := _HEADING_LINE.match(text, start, end):
            yield start, heading.end() - 1
            start = heading.end()
        if text[start:end].strip():
            yield start, end


def _kind(said: str) -> Kind:
    line = said.strip()
    if _HEADING.match(said):
        return "heading"
    if line.startswith("|") or (line.startswith("+") and line.endswith("+")):
        return "row"
    if not re.search(r"\w", line) or (len(line) <= LONGEST_PAGE and _PAGE.fullmatch(line)):
        return "mark"
    if _STEP.match(said):
        return "step"
    return "item" if _ITEM.match(said) else "sentence"


def _is_line(text: str, unit: Unit, following: int) -> bool:
    """Whether it is one line, and what follows is the next one."""
    between = text[unit.end : following]
    return unit.kind == "sentence" and "\n" not in text[unit.start : unit.end] and between.count("\n") == 1


def _like_a_title(said: str) -> bool:
    line = said.strip()
    short = len(line.split()) <= TITLE_WORDS and "\n" not in line
    return short and line[-1] not in _END and not re.search(r"\d", line)


def size(text: str) -> int:
    """Its words; in scripts without spaces, so many as take that room."""
    return max(len(text.split()), len(text) // 7)


def around(text: str, parts: Sequence[Unit], best: int, words: int, most: int) -> list[int]:
    """The units to say, of which `best` is one or the announcement: about so many words, at most `most`.

    Only a list or table that is wanted whole has more than a few above `words`.
    """
    return _Growing(text, parts, words, most).around(best)


class _Growing:
    def __init__(self, text: str, parts: Sequence[Unit], words: int, most: int) -> None:
        self._text = text
        self._parts = parts
        self._words = words
        self._most = most
        self._sizes = [size(text[unit.start : unit.end]) for unit in parts]

    def around(self, best: int) -> list[int]:
        parts = self._parts
        best = self._forward(best, lambda unit: not unit.tells)
        focus = best
        if parts[best].stub and best + 1 < len(parts):
            focus = self._forward(best + 1, lambda unit: not unit.tells)
        kind = parts[focus].kind
        own = [index for index, unit in enumerate(parts) if unit.block == parts[focus].block]
        before = own[0] - 1
        lead = [before] if before >= 0 and parts[before].stub and parts[before].tells else []
        chosen = {best, focus, *lead}
        whole = self._size({*chosen, *own})
        if whole <= (ROOM * self._words if kind == "sentence" else self._most):
            chosen.update(own)
            after = self._blocks(range(max(chosen) + 1, len(parts)))
            self._grow(chosen, after, self._blocks(range(min(chosen) - 1, -1, -1)))
            return self._ended(chosen)
        if kind == "step":
            for step in own:
                if self._size(chosen | {step}) > self._most:
                    break
                chosen.add(step)
        elif kind == "row":
            rule = next((row for row in own if not re.search(r"\w", self._said(row))), None)
            head = [row for row in own if rule is not None and row <= rule]
            if 2 * self._size(head) <= self._most:
                chosen.update(head)
        after = [[index] for index in own if index > focus]
        self._grow(chosen, after, [[index] for index in own[::-1] if index < focus])
        return self._ended(chosen)

    def _said(self, index: int) -> str:
        return self._text[self._parts[index].start : self._parts[index].end]

    def _size(self, chosen: Collection[int]) -> int:
        return sum(self._sizes[index] for index in chosen)

    def _forward(self, index: int, skipped: Callable[[Unit], bool]) -> int:
        while index + 1 < len(self._parts) and skipped(self._parts[index]):
            index += 1
        return index

    def _blocks(self, indices: Iterable[int]) -> list[list[int]]:
        """What stands around, up to a heading: sentences one by one, lists and tables as a whole, with what announces
        them."""
        blocks: list[list[int]] = []
        for index in indices:
            unit = self._parts[index]
            if unit.kind == "heading":
                break
            last = self._parts[blocks[-1][-1]] if blocks else None
            if last and (last.stub or (unit.kind != "sentence" and unit.block == last.block)):
                blocks[-1].append(index)
            else:
                blocks.append([index])
        return blocks

    def _grow(self, chosen: set[int], after: list[list[int]], before: list[list[int]]) -> None:
        """Add what comes after and before in turn, as long as there is room for it."""
        sides = [after, before]
        turn = 0
        while (after or before) and self._size(chosen) < self._words:
            side = sides[turn % 2] or sides[1 - turn % 2]
            block = side.pop(0)
            if self._size(chosen | set(block)) <= 1.15 * self._words:
                chosen.update(block)
            else:
                side.clear()
            turn += 1

    def _ended(self, chosen: set[int]) -> list[int]:
        """In order, and without what leads to nothing at the end."""
        told = sorted(index for index in chosen if self._parts[index].kind != "mark")
        while len(told) > 1 and (self._parts[told[-1]].kind == "heading" or self._parts[told[-1]].stub):
            told.pop()
        return told


def written(text: str, parts: Sequence[Unit], chosen: Sequence[int], most: int) -> str:
    """The units as they are said: a paragraph's in one line, a list's and a table's in lines of their own."""
    said = ""
    for place, index in enumerate(chosen):
        unit = parts[index]
        if place:
            last = parts[chosen[place - 1]]
            together = unit.kind == last.kind and unit.block == last.block
            announced = last.stub and unit.kind in ("item", "step")
            if together and unit.kind == "sentence":
                said += " "
            else:
                said += "\n" if together or announced else "\n\n"
        said += " ".join(text[unit.start : unit.end].split())
    if size(said) <= most:
        return said
    # One endless sentence or row.
    *_, last_word = [*re.finditer(r"\S+", said)][:most]
    return said[: min(last_word.end(), 7 * most)] + " …"
