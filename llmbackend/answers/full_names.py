"""Full names: words with capitals that follow each other, such as Ann Lee, and whatever else is written like one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import regex

from ..text.words import WRITTEN

_BETWEEN = r"(?:\.?[\s-]+(?:\p{Lu}[\p{L}'’]*|\p{Ll}{1,3})){0,3}\.?[\s-]+"  # Ann Sofie Lee, Ann van der Lee


LONGEST = 6
"""Words of a name at most: a longer run of them is a title. Looking for its parts takes the square of its length."""


class FullName(NamedTuple):
    words: list[str]
    start: int
    """Where it stands in the text."""


def full_names(text: str) -> Iterator[FullName]:
    """Yield the full names in a text; the first word of a sentence may be taken for a part of one."""
    words: list[str] = []
    start = end = 0
    for found in WRITTEN.finditer(text):
        word = bare(found[0])
        follows = words and not text[end : found.start()].strip(" .")
        if words and not (follows and word[:1].isupper()):
            if 1 < len(words) <= LONGEST:
                yield FullName(words, start)
            words = []
        if word[:1].isupper():
            start = start if words else found.start()
            words = [*words, word]
        end = found.end()
    if 1 < len(words) <= LONGEST:
        yield FullName(words, start)


def parts(name: Sequence[str]) -> Iterator[Sequence[str]]:
    """Yield the name and the parts of it that have two words or more, the longest first."""
    for length in range(len(name), 1, -1):
        for start in range(len(name) - length, -1, -1):
            yield name[start : start + length]


def pattern(name: Sequence[str]) -> regex.Pattern[str]:
    """Match a full name, also with other names and particles inside, or with its last word first: Lee, Ann."""
    words = [rf"(?i:{regex.escape(word)})" for word in name]
    turned = rf"{words[-1]},\s*{_BETWEEN.join(words[:-1])}"
    return regex.compile(rf"(?<!\p{{L}})(?:{_BETWEEN.join(words)}|{turned})(?!\p{{L}})")


def bare(word: str) -> str:
    """Return the word without punctuation around it, and without affixes that an apostrophe joins to a code or a name.

    Examples: E-03's, E-03'ün, l'E-03, Ann's; O'Neil stays.
    """
    written = re.split("['’]", word)
    own = [place for place, part in enumerate(written) if any(one.isdigit() or one.isupper() for one in part)]
    kept = written[own[0] : own[-1] + 1] if own else written
    return "'".join(kept).strip("-.'_")
