"""Finds duplicate passages: equal texts, and copies of one text that were cut at slightly different places."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from math import ceil

IN_COMMON = 0.9
"""The share of the longer text's words that two texts must have in common, in one run."""

WORDS = 40
"""Texts with at least so many words may be longer than their copy: in shorter ones, an added word changes the meaning."""

COMPARED = 20
"""Most texts that one is compared with: texts made to be alike in the middle would else take long."""

TRIED = 8
"""Most places at which two texts are aligned: texts made to differ late would else take long."""


def originals(texts: Iterable[str]) -> list[int]:
    """Return, for each text, the index of the first text that it repeats, or its own index if there is none.

    White space and case are ignored. A difference inside the text, even of one word, means that it is not a duplicate:
    it may be another version, or another record of the same form.
    """
    found: list[int] = []
    seen: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    for index, text in enumerate(texts):
        words = unicodedata.normalize("NFC", text.casefold()).split()
        original, within = index, _within(words)
        if not seen.keys().isdisjoint(_runs(within)):  # few texts come so far
            alike = [seen[run] for run in _runs(within) if run in seen]
            its = islice(chain.from_iterable(alike), COMPARED)
            original = next((other for other, told in its if _repeats(words, told)), index)
        if original == index:
            seen.setdefault(_middle(words), []).append((index, words))
        found.append(original)
    return found


def _middle(words: list[str]) -> tuple[str, ...]:
    """Return a text's middle three words, by which its copies are found."""
    middle = len(words) // 2
    return tuple(words[middle : middle + 3])


def _within(words: list[str]) -> Sequence[str]:
    """Return the part of a text's words that contains the middle of any text that it may repeat."""
    if len(words) < IN_COMMON * WORDS:
        return _middle(words)
    # What only one of them has, at either end, is a tenth at most: it shifts the middle by up to one and a half tenths.
    shift = ceil(1.5 * (1 - IN_COMMON) * len(words) / IN_COMMON) + 1
    middle = len(words) // 2
    return words[max(0, middle - shift) : middle + shift + 3]


def _runs(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """Return all runs of three words, or the words as one run if there are at most three."""
    return zip(words, words[1:], words[2:], strict=False) if len(words) > 3 else [tuple(words)]


def _repeats(one: list[str], other: list[str]) -> bool:
    """Return whether two texts are the same, except for what one of them has before or after."""
    if one == other:
        return True
    longer = max(len(one), len(other))
    least = IN_COMMON * longer
    if longer < WORDS or min(len(one), len(other)) < least:
        return False
    return _continues(one, other, least) or _continues(other, one, least)


def _continues(one: list[str], other: list[str], least: float) -> bool:
    """Return whether `other` begins with a run of `one` that has at least `least` words and ends where one of them does."""
    first = other[0]
    tried = 0
    for start in range(len(one) - ceil(least) + 1):
        if one[start] == first:
            run = min(len(one) - start, len(other))
            # Compare the last words first: texts of the same form often differ only there.
            if one[start + run - 1] != other[run - 1]:
                continue
            if one[start : start + run] == other[:run]:
                return True
            tried += 1
            if tried == TRIED:
                break
    return False
