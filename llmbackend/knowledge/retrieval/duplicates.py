"""Passages that say the same: equal texts, and copies of one text cut at slightly different places."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from itertools import chain, islice
from math import ceil

IN_COMMON = 0.9
"""The share of the longer text's words that two texts must have in common, in one run."""

WORDS = 40
"""Words from which on a text may go on a little further than its copy: in a shorter one, a word changes the meaning."""

COMPARED = 20
"""How many texts one is compared with: some may be made so that all are alike in the middle."""

TRIED = 8
"""How many places two texts are aligned at: some may be made so that they differ from all others in the middle."""


def originals(texts: Iterable[str]) -> list[int]:
    """For each text the index of the first one that it repeats, its own if there is none.

    Texts are equal whatever their spaces and capitals. A difference inside, even of one word, makes it no copy: it
    may be another version, or another record of the same form.
    """
    found: list[int] = []
    seen: dict[tuple[str, ...], list[tuple[int, list[str]]]] = {}
    first_words: set[str] = set()
    for index, text in enumerate(texts):
        words = unicodedata.normalize("NFC", text.casefold()).split()
        original, within = index, _within(words)
        if not first_words.isdisjoint(within) or not words:  # of most texts, no word is one
            alike = [seen[run] for run in _runs(within) if run in seen]
            its = islice(chain.from_iterable(alike), COMPARED)
            original = next((other for other, told in its if _repeats(words, told)), index)
        if original == index:
            middle = _middle(words)
            seen.setdefault(middle, []).append((index, words))
            first_words.update(middle[:1])
        found.append(original)
    return found


def _middle(words: list[str]) -> tuple[str, ...]:
    """Three words, by which the copies of a text are found."""
    middle = len(words) // 2
    return tuple(words[middle : middle + 3])


def _within(words: list[str]) -> Sequence[str]:
    """Those of a text's words among which the middle of whatever it repeats is."""
    if len(words) < IN_COMMON * WORDS:
        return _middle(words)
    # What only one has, before or after, is a tenth at most: it shifts a middle by that and half of that.
    shift = ceil(1.5 * (1 - IN_COMMON) * len(words) / IN_COMMON) + 1
    middle = len(words) // 2
    return words[max(0, middle - shift) : middle + shift + 3]


def _runs(words: Sequence[str]) -> Iterable[tuple[str, ...]]:
    """All runs of three; of fewer words, the one."""
    return zip(words, words[1:], words[2:], strict=False) if len(words) > 3 else [tuple(words)]


def _repeats(one: list[str], other: list[str]) -> bool:
    """Whether they are the same, apart from what one of them has before or after."""
    if one == other:
        return True
    longer = max(len(one), len(other))
    least = IN_COMMON * longer
    if longer < WORDS or min(len(one), len(other)) < least:
        return False
    return _continues(one, other, least) or _continues(other, one, least)


def _continues(one: list[str], other: list[str], least: float) -> bool:
    """Whether `other` begins with a run of `one`, of that length at least, up to the end of one of them."""
    first = other[0]
    tried = 0
    for start in range(len(one) - ceil(least) + 1):
        if one[start] == first:
            run = min(len(one) - start, len(other))
            # The last words first: texts of the same form often differ there only.
            if one[start + run - 1] != other[run - 1]:
                continue
            if one[start : start + run] == other[:run]:
                return True
            tried += 1
            if tried == TRIED:
                break
    return False
