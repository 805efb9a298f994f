"""Splits texts between sentences into parts of a number of tokens, by LlamaIndex's splitter, but always in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from .. import llamaindex_import, slices
from .tokens import tokens_of
from .windows import PART_CHARACTERS, windows

LONG_WORD = 200
"""Longest word in which a sentence may end: in longer ones, the splitter would cut off one sentence after another."""

NEAR = 2**12
"""Characters in which sentences are looked for at a time: nltk gives up on a text that takes five seconds."""

DENSE = 8
"""If sentences have fewer characters than this on average, every mark ends one, because nltk is slow for each."""


@lru_cache(maxsize=16)
def splitter(size: int, overlap: int) -> Any:
    """Return LlamaIndex's SentenceSplitter, for parts of at most `size` tokens."""
    llamaindex_import.load()
    from llama_index.core.node_parser import SentenceSplitter

    return SentenceSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=partial(units, size=size),
        secondary_chunking_regex=_PHRASES,
        tokenizer=tokens_of,
    )


# Matches up to a mark that ends a phrase, but not a mark within a number. Being possessive, it takes 3 ms for a megabyte
# without marks instead of 130, during which it holds the interpreter's lock.
_PHRASES = r"(?:[^,.;。？！]++|(?<=\d)[.,](?=\d))++[,.;。？！]?|[,.;。？！]"

_ITEM = re.compile(r"^[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+(?=\S)", re.MULTILINE)


def units(text: str, size: int) -> list[str]:
    """Return a list's items, or else a text's sentences."""
    starts = list(_items(text))
    if len(starts) > 1 or (starts and starts[0]):
        return _cut(text, [start for start in starts if start])
    return _sentences(text, size)


def _items(text: str) -> Iterator[int]:
    """Yield where each item of a list begins. Looks at some lines at a time, because it holds the interpreter's lock."""
    begin = 0
    while begin < len(text):
        slices.give_way()
        end = text.find("\n", begin + PART_CHARACTERS) + 1 or len(text)
        yield from (item.start() for item in _ITEM.finditer(text, begin, end))
        begin = end


def _sentences(text: str, size: int) -> list[str]:
    """Split into sentences as LlamaIndex does, except for what is longer than any sentence or word."""
    longest = min(LONG_WORD, size)
    hide = partial(re.compile(rf"\S{{{longest},}}").sub, _hidden)
    plain = "".join(map(hide, windows(text)))
    found = _cut(text, _starts(plain))
    return [part for sentence in found for part in _parts(sentence, longest, size)]


def _starts(text: str) -> list[int]:
    """Return where each sentence but the first begins. Long texts are looked at in parts."""
    starts: list[int] = []
    begin = 0
    while begin < len(text):
        near = next(windows(text[begin : begin + 2 * NEAR], NEAR))
        found = [begin + start for start in _near_starts(near)]
        behind = begin + len(near)
        # The last sentence continues in the next part.
        begin = found[-1] if found and behind < len(text) else behind
        starts += found if found or behind == len(text) else [behind]
    return starts


_MARK = re.compile(r"[.!?]")
_ANY_END = re.compile(r"[.!?][\"')\]}]*\s+(?=\S)")


def _near_starts(text: str) -> list[int]:
    if DENSE * len(_MARK.findall(text)) < len(text):
        try:
            spans = _punkt().span_tokenize(text)
            return [start for start, _ in spans][1:]
        except TimeoutError:
            pass  # nltk has given up, because the machine is very busy
    return [found.end() for found in _ANY_END.finditer(text)]


@lru_cache(maxsize=1)
def _punkt() -> Any:
    llamaindex_import.load()
    from llama_index.core.utils import globals_helper

    return globals_helper.punkt_tokenizer


def _parts(sentence: str, longest: int, size: int) -> Iterator[str]:
    """Yield a sentence, with runs too long for a chunk and without spaces cut into lines or pieces: the splitter would cut
    them by characters, which is slow.
    """
    if len(sentence) < longest or len(tokens_of(sentence)) <= size:
        yield sentence
        return
    start = 0
    few = max(1, size // 8)  # a character has four tokens at most
    for word in re.finditer(rf"[^ ]{{{longest},}}", sentence):
        if len(tokens_of(word[0])) > size:
            yield from filter(None, [sentence[start : word.start()]])
            for line in word[0].splitlines(keepends=True):
                step = few if len(tokens_of(line)) > size else len(line)
                yield from (line[place : place + step] for place in range(0, len(line), step))
            start = word.end()
    yield from filter(None, [sentence[start:]])


def _cut(text: str, places: list[int]) -> list[str]:
    return [text[start:end] for start, end in pairwise([0, *places, len(text)])]


def _hidden(found: re.Match[str]) -> str:
    """Return a word of the same length in which no sentence ends, except at its end."""
    word = found[0]
    bare = word.rstrip("\"')]}")
    first = word[0] if word[0].isalnum() else "x"
    last = bare[-1] if bare[-1:] in (".", "!", "?") and len(bare) > 1 else "x" * min(1, len(bare) - 1)
    return first + "x" * (len(bare) - 1 - len(last)) + last + word[max(1, len(bare)) :]
