"""Chooses the stretch of a passage to quote: the sentence that answers, and enough around it to be understood.

A stretch is a sentence with its neighbours, a whole list or block of code with its introduction, a table row with the head, or
steps from the first one on. It is never just a heading, a line that ends in a colon, or a page mark.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from itertools import groupby
from textwrap import dedent
from typing import NamedTuple

from ..text.sentences import stems
from .fitting import Quote
from .layout import Laid
from .passages import above
from .question import Question
from .rows import head
from .units import Unit

_SPACE = re.compile(r"[ \t\r\n\f\v]+")  # but no non-breaking spaces, as inside numbers

_BEGUN = re.compile(r"\s*(?:<[a-z/][^<>]{0,500}|!?\[[^\[\]]{0,300}(?:\]\([^()]{0,500})?)\Z", re.IGNORECASE)
"""A tag or link that is not finished."""

_FENCE = re.compile(r"^`{3,}", re.MULTILINE)

ROOM = 1.25
"""The factor by which a stretch may exceed its words to finish its paragraph."""


LEAST = 15
"""Least words of a stretch that is worth quoting."""

SECOND = 0.75
"""Another passage is quoted too if its score is at least this share of the first one's."""


class Length(NamedTuple):
    """How much is quoted, in words."""

    stretches: int
    first: int
    """Words of the first stretch."""
    all: int
    """Words of all stretches together."""
    most: int
    """Hard limit on all words."""
    same: bool
    """Whether one passage may give several stretches."""


SURE = Length(2, 60, 88, 132, False)
UNSURE = Length(3, 50, 130, 136, True)
"""For the closest passages when nothing answers: the fact is often a little further on, or in the third passage."""


class Stretch(NamedTuple):
    """A quoted text, and the index of its source, from 0."""

    source: int
    text: str


def stretches(question: Question, hits: list[Laid], quotes: list[Quote], length: Length) -> list[Stretch]:
    """Return a stretch of the best passage, then of the next ones that add something, each below its relevant headings."""
    asked = question.stems
    told: list[Stretch] = []
    said: set[str] = set()
    left, used = length.all, 0
    for quote in quotes:
        hit = hits[quote.text]
        if told and quote.score < SECOND * quotes[0].score:
            break
        if not length.same and any(stretch.source == quote.text for stretch in told):
            continue
        best = next((place for place, unit in enumerate(hit.parts) if unit.end > quote.start), 0)
        if told and hit.plain(best) in said:
            continue
        last = len(told) == length.stretches - 1
        heading = hit.question(best)
        headings = [one for one in hit.above[best] if one == heading or asked & stems(one)]
        most = length.most - used - sum(map(size, headings))
        if told and most < LEAST:
            continue
        most = max(LEAST, most)
        named = hit.named(question.text)
        if best in named:
            chosen = sorted({*head(hit.text, hit.parts, best), *named})
        else:
            chosen = around(hit.text, hit.parts, best, left if last else length.first, most)
        chosen = [place for place in chosen if hit.plain(place) not in said]
        if not chosen:
            continue
        said.update(hit.plain(place) for place in chosen)
        text = written(hit.text, hit.parts, chosen, most)
        headings = above(asked, hit.above[best], text)
        if heading and heading not in headings:
            headings.append(heading)
        told.append(Stretch(quote.text, "\n\n".join([*headings, text])))
        left -= size(text)
        used += size(told[-1].text)
        if last or min(left, length.most - used) < LEAST:
            break
    return told


def size(text: str) -> int:
    """Return the number of a text's words; in scripts without spaces, a seventh of its characters."""
    return max(len(text.split()), len(text) // 7)


def around(text: str, parts: Sequence[Unit], best: int, words: int, most: int) -> list[int]:
    """Return the indices of the units to quote around `best`: about `words` words, at most `most`.

    Only a whole list, table or block of code exceeds `words` by more than a little.
    """
    return _Growing(text, parts, words, most).around(best)


class _Growing:
    def __init__(self, text: str, parts: Sequence[Unit], words: int, most: int) -> None:
        self._text = text
        self._parts = parts
        self._words = words
        self._most = most
        # Marks are not quoted.
        self._sizes = [0 if unit.kind == "mark" else size(text[unit.start : unit.end]) for unit in parts]

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
        entries = self._entries(own)
        chosen.update(*(entry for entry in entries if focus in entry))
        if kind == "step":
            for step in entries:
                if self._size(chosen | set(step)) > self._most:
                    break
                chosen.update(step)
        elif kind == "row":
            names = head(self._text, parts, focus)
            if 2 * self._size(names) <= self._most:
                chosen.update(names)
        after = [entry for entry in entries if entry[0] > focus]
        self._grow(chosen, after, [entry for entry in entries[::-1] if entry[-1] < focus])
        return self._ended(chosen)

    def _entries(self, own: list[int]) -> list[list[int]]:
        """Divide a list into its items, with all sentences of each, and others into their units."""
        entries: list[list[int]] = []
        for index in own:
            if self._parts[index].continues:
                entries[-1].append(index)
            else:
                entries.append([index])
        return entries

    def _size(self, chosen: Collection[int]) -> int:
        return sum(self._sizes[index] for index in chosen)

    def _forward(self, index: int, skipped: Callable[[Unit], bool]) -> int:
        while index + 1 < len(self._parts) and skipped(self._parts[index]):
            index += 1
        return index

    def _blocks(self, indices: Iterable[int]) -> list[list[int]]:
        """Group the units up to the next heading: single sentences, and whole lists and tables with their introductions."""
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
        """Add blocks after and before, in turn, while there is room."""
        sides = [after, before]
        turn = 0
        while (after or before) and self._size(chosen) < self._words:
            side = sides[turn % 2] or sides[1 - turn % 2]
            block = side.pop(0)
            # A list is quoted whole or not at all, and often has what its paragraph announces.
            listed = side is after and len(block) > 1 and self._parts[block[0]].stub
            limit = self._most if listed else 1.15 * self._words
            if self._size(chosen | set(block)) <= limit:
                chosen.update(block)
            else:
                side.clear()
            turn += 1

    def _ended(self, chosen: set[int]) -> list[int]:
        """Return the units in text order, without a heading or an introduction at the end."""
        told = sorted(index for index in chosen if self._parts[index].kind != "mark")
        while len(told) > 1 and (self._parts[told[-1]].kind == "heading" or self._parts[told[-1]].stub):
            told.pop()
        return told


def written(text: str, parts: Sequence[Unit], chosen: Sequence[int], most: int) -> str:
    """Join the chosen units into one text: a paragraph on one line, list items and table rows each on their own line,
    code as it is, fenced.
    """
    said = "\n\n".join(
        _fenced(text, some) if is_code else _joined(text, some)
        for is_code, group in groupby(map(parts.__getitem__, chosen), lambda unit: unit.kind == "code")
        if (some := list(group))
    )
    if size(said) <= most:
        return said
    # One endless sentence, row or paragraph of code.
    *_, last_word = [*re.finditer(r"\S+", said)][:most]
    cut = said[: min(last_word.end(), 7 * most)]
    cut = (_BEGUN.sub("", cut) or cut) + " …"
    fences = _FENCE.findall(cut)
    return f"{cut}\n{fences[-1]}" if len(fences) % 2 else cut


def _joined(text: str, some: Sequence[Unit]) -> str:
    said, last = "", some[0]
    for place, unit in enumerate(some):
        if place:
            together = unit.kind == last.kind and unit.block == last.block
            announced = last.stub and unit.kind in ("item", "step")
            if together and (unit.kind == "sentence" or unit.continues):
                said += " "
            else:
                said += "\n" if together or announced else "\n\n"
        said += _SPACE.sub(" ", text[unit.start : unit.end])
        last = unit
    return said


def _fenced(text: str, some: Sequence[Unit]) -> str:
    said = dedent("\n\n".join(text[text.rfind("\n", 0, unit.start) + 1 : unit.end] for unit in some))
    fence = max(["```", *(run + "`" for run in re.findall("`{3,}", said))], key=len)
    return f"{fence}\n{said}\n{fence}"
