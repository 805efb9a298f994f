"""Splits passages into units (sentences, list items, table rows), each with the headings above it."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..engines.interface import Chunk
from ..knowledge.retrieval.candidates import Candidate
from . import rows
from .fitting import Quote
from .passages import above
from .units import Unit, is_question, units

AROUND = 20
"""Most words of the unit before, and of the unit after, with which a unit is read among its neighbours."""


@dataclass(frozen=True)
class Laid:
    """A passage and its units."""

    candidate: Candidate
    parts: list[Unit]
    below: list[str]
    """Each unit's text, prefixed by the heading above it."""
    above: list[list[str]]
    """The headings above each unit, outermost first."""

    @property
    def text(self) -> str:
        return self.candidate.chunk.text

    @property
    def in_context(self) -> str:
        return self.candidate.chunk.in_context

    @property
    def ahead(self) -> float | None:
        """The judge's cosine of the passage with the question if it was read ahead; else None."""
        return self.candidate.scores.get("ahead")

    def among(self, place: int) -> str:
        """Return a unit's text between the nearest words of the units before and after it, prefixed by the heading above it."""
        told = [index for index, unit in enumerate(self.parts) if unit.tells]
        at = told.index(place)
        before, own, after = (self._words(told[max(0, by) : by + 1]) for by in (at - 1, at, at + 1))
        said = " ".join([*before[-AROUND:], *own, *after[:AROUND]])
        return f"{self.above[place][-1]}: {said}" if self.above[place] else said

    def _words(self, places: Iterable[int]) -> list[str]:
        return [
            word
            for index in places
            for word in self.text[self.parts[index].start : self.parts[index].end].split()
        ]

    def plain(self, place: int) -> str:
        """Return a unit's words in lower case, to compare units by."""
        unit = self.parts[place]
        return " ".join(re.findall(r"\w+", self.text[unit.start : unit.end].lower()))

    def named(self, question: str) -> dict[int, bool]:
        return rows.named(question, self.text, self.parts)

    def question(self, place: int) -> str:
        """Return the question above a unit, as in an FAQ: the answer is not understood without it. Empty if there is none."""
        heading = self.above[place][-1] if self.above[place] else ""
        return heading if is_question(heading) else ""

    def place_of(self, quote: Quote) -> int:
        return next((index for index, unit in enumerate(self.parts) if unit.start == quote.start), 0)

    def below_headings(self, asked: set[str], quote: Quote) -> Quote:
        """Extend the quote to the headings right above it, if they have words of the question that it lacks."""
        place = self.place_of(quote)
        start, said = quote.start, self.text[quote.start : quote.end]
        while place and self.parts[place - 1].kind == "heading":
            place -= 1
            heading = self.parts[place]
            if above(asked, [self.text[heading.start : heading.end]], said):
                start, said = heading.start, self.text[heading.start : quote.end]
        return quote._replace(start=start)


def lay(candidate: Candidate) -> Laid:
    """Split a candidate's passage into units. Each unit's headings are the chunk's, then those inside the passage."""
    text = candidate.chunk.text
    parts = units(text) or [Unit(0, len(text), "sentence", 0, False)]
    if not any(unit.tells for unit in parts):
        parts = [unit._replace(kind="sentence") for unit in parts]
    outer = candidate.chunk.headings
    heading = outer[-1] if outer else ""
    below: list[str] = []
    above: list[list[str]] = []
    for unit in parts:
        said = " ".join(text[unit.start : unit.end].split())
        if unit.kind == "heading":
            heading = re.sub(r"^#+\s*|[*_`|]+", "", said).strip()
        below.append(f"{heading}: {said}" if heading else said)
        above.append(outer if heading in ("", *outer[-1:]) else [*outer, heading])
    return Laid(candidate, parts, below, above)


def sentences(chunk: Chunk) -> list[str]:
    """Return what the judge reads of a chunk: each unit that may answer a question, prefixed by its heading."""
    laid = lay(Candidate(chunk, "", 0.0, {}))
    return [below for unit, below in zip(laid.parts, laid.below, strict=True) if unit.tells]
