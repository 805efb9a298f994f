"""Checking that each sentence of an answer has a source; sentences without one are removed, unless none would remain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from ..analysis.extract import split
from ..schemas import Source
from ..text.sentences import stems

_CITED = re.compile(r"\s?\[(\d{1,9}(?:\s?[,;]\s?\d{1,9})*)\]")
_BEHIND = re.compile(r"([.!?])((?:\s?\[\d{1,9}(?:\s?[,;]\s?\d{1,9})*\])+)")

SUPPORT = 0.6
"""The share of a sentence's words that a passage must have to count as its source."""


class Cited(NamedTuple):
    text: str
    citations: list[int]
    left_out: list[str]


def cited(answer: str, sources: Mapping[int, Source]) -> Cited:
    """The answer with a source for each sentence: those it cites, or else the one that has its words."""
    known = {number: stems(one.text) for number, one in sources.items()}
    kept: list[str] = []
    left_out: list[str] = []
    numbers: dict[int, None] = {}
    plain = _BEHIND.sub(lambda found: f"{found[2]}{found[1]}", answer.strip())
    for line in plain.split("\n"):
        said: list[str] = []
        for sentence in split(line) if line.strip() else ():
            start = line.rfind("\n", 0, sentence.start) + 1
            marker = line[start : sentence.start] if not said else ""
            text, named = _own(line[sentence.start : sentence.end], sources)
            if not named and (by := _support(text, known)) is not None:
                named, text = [by], _with(text, by)
            if named or not re.search(r"\w", text):
                numbers |= dict.fromkeys(named)
                said.append(f"{marker}{text}")
            elif text.rstrip().endswith((":", "?")) or len(text.split()) < 3:
                said.append(f"{marker}{text}")  # an introduction to what follows
            else:
                left_out.append(text)
        kept.append(" ".join(said))
    if not numbers:
        return Cited(_CITED.sub(lambda one: _checked(one, sources), answer).strip(), [], [])
    return Cited("\n".join(kept).strip(), list(numbers), left_out)


def _own(text: str, sources: Mapping[int, Source]) -> tuple[str, list[int]]:
    named: list[int] = []

    def keep(found: re.Match[str]) -> str:
        there = [int(one) for one in re.findall(r"\d+", found[1]) if int(one) in sources]
        named.extend(there)
        return (" " if there and found[0][0].isspace() else "") + "".join(f"[{one}]" for one in there)

    return _CITED.sub(keep, text), named


def _checked(found: re.Match[str], sources: Mapping[int, Source]) -> str:
    there = [int(one) for one in re.findall(r"\d+", found[1]) if int(one) in sources]
    return (" " if there else "") + "".join(f"[{one}]" for one in there)


def _support(text: str, known: Mapping[int, set[str]]) -> int | None:
    said = stems(text)
    if len(said) < 2 or not known:
        return None
    best = max(known, key=lambda number: len(said & known[number]))
    return best if len(said & known[best]) >= SUPPORT * len(said) else None


def _with(text: str, number: int) -> str:
    end = re.search(r"[.!?]*\s*$", text)
    assert end is not None
    return f"{text[: end.start()]} [{number}]{text[end.start() :]}".rstrip()
