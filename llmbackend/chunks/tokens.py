"""Counts a text's tokens by LlamaIndex's tokenizer (tiktoken's cl100k)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sized
from functools import lru_cache

from .. import llamaindex_import, slices
from .windows import PART_CHARACTERS, windows

REMEMBERED_LENGTH = 64
"""Most characters of a word whose count is remembered; many longer ones would take much memory."""

REMEMBERED = 2**16  # words


def tokens_of(text: str) -> range:
    """Return a range as long as the text has tokens. LlamaIndex's splitter uses this as a tokenizer, and only counts."""
    slices.give_way()
    return range(sum(map(_count, windows(text))) if len(text) > PART_CHARACTERS else _count(text))


def _count(text: str) -> int:
    """Count a text's tokens as the sum of its words', of which most have been counted before.

    That is exact, because a token may begin with a space but not contain one further on. A text with several spaces in a
    row is counted as a whole.
    """
    count = math.inf
    if "  " not in text and _by_words():
        first, *others = text.split(" ")
        count = _firsts[first] + sum(map(_others.__getitem__, others))
    return len(_tokenizer()(text)) if count == math.inf else int(count)


class _Words(dict[str, float]):
    """Token counts of words, each with the space before it; infinity if a space beside it may belong to a longer gap."""

    def __init__(self, space: str) -> None:
        self._space = space

    def __missing__(self, word: str) -> float:
        after_space = self._space and word[:1].isspace()
        before_space = word[-1:].isspace() and word[-1] != "\n"
        count = math.inf if after_space or before_space else len(_tokenizer()(self._space + word))
        if len(word) < REMEMBERED_LENGTH:
            if len(self) >= REMEMBERED:
                self.clear()
            self[word] = count
        return count


_firsts, _others = _Words(""), _Words(" ")


@lru_cache(maxsize=1)
def _by_words() -> bool:
    """Return whether the tokenizer counts word by word; an application may have set LlamaIndex to a different one."""
    whole, first, second = (len(_tokenizer()(text)) for text in ("one two", "one", " two"))
    return whole == first + second


@lru_cache(maxsize=1)
def _tokenizer() -> Callable[[str], Sized]:
    return llamaindex_import.tokenizer()
