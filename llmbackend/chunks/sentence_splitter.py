"""Texts by sentences, in parts of so many tokens: by LlamaIndex's splitter, in linear time whatever a text says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache, partial
from itertools import pairwise
from typing import Any

from .. import llamaindex_import, threads
from .tokens import tokens_of
from .windows import PART_CHARACTERS, windows

LONG_WORD = 200
"""Longest word in which a sentence may end: in a longer one, the splitter would cut off one sentence after another."""

NEAR = 2**12
"""Characters in which sentences are looked for at a time: nltk gives up on a text that takes it five seconds."""

DENSE = 8
"""Characters of a sentence; where the mean is less, every mark ends one, for nltk takes long for each."""


@lru_cache(maxsize=16)
def splitter(size: int, overlap: int) -> Any:
    """LlamaIndex's SentenceSplitter, for parts of at most `size` tokens."""
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


# Up to a mark that ends a phrase, but not the mark within a number. Possessive, and not a character at a time: a megabyte
# without any mark takes 3 ms, not 130, in which nothing else goes on, for it holds the interpreter's lock.
_PHRASES = r"(?:[^,.;。？！]++|(?<=\d)[.,](?=\d))++[,.;。？！]?|[,.;。？！]"

_ITEM = re.compile(r"^[ \t]*(?:[-*+•–]|\(?\d{1,3}[.)]|\(?[a-zA-Z][.)])[ \t]+(?=\S)", re.MULTILINE)


def units(text: str, size: int) -> list[str]:
    """A list's items, or a text's sentences."""
    starts = list(_items(text))
    if len(starts) > 1 or (starts and starts[0]):
        return _cut(text, [start for start in starts if start])
    return _sentences(text, size)


def _items(text: str) -> Iterator[int]:
    """Where each of a list's items begins; sought some lines at a time, for the interpreter's lock is held meanwhile."""
    begin = 0
    while begin < len(text):
        threads.give_way()
        end = text.find("\n", begin + PART_CHARACTERS) + 1 or len(text)
        yield from (item.start() for item in _ITEM.finditer(text, begin, end))
        begin = end


def _sentences(text: str, size: int) -> list[str]:
    """As LlamaIndex's own function for this, but for what is longer than any sentence or word."""
    longest = min(LONG_WORD, size)
    hide = partial(re.compile(rf"\S{{{longest},}}").sub, _hidden)
    plain = "".join(map(hide, windows(text)))
    found = _cut(text, _starts(plain))
    return [part for sentence in found for part in _parts(sentence, longest, size)]


def _starts(text: str) -> list[int]:
    """Where each sentence but the first begins. Text too long to be looked at in one go is cut."""
    starts: list[int] = []
    begin = 0
    while begin < len(text):
        near = next(windows(text[begin : begin + 2 * NEAR], NEAR))
        found = [begin + start for start in _near_starts(near)]
        behind = begin + len(near)
        # The last sentence goes on in the next part.
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
            pass  # the machine is very busy
    return [found.end() for found in _ANY_END.finditer(text)]


@lru_cache(maxsize=1)
def _punkt() -> Any:
    llamaindex_import.load()
    from llama_index.core.utils import globals_helper

    return globals_helper.punkt_tokenizer


def _parts(sentence: str, longest: int, size: int) -> Iterator[str]:
    """A sentence; what no chunk can hold in it, and has no spaces, in lines or pieces: by characters it takes long."""
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
    """A word of the same length in which no sentence ends, though one may at its end."""
    word = found[0]
    bare = word.rstrip("\"')]}")
    first = word[0] if word[0].isalnum() else "x"
    last = bare[-1] if bare[-1:] in (".", "!", "?") and len(bare) > 1 else "x" * min(1, len(bare) - 1)
    return first + "x" * (len(bare) - 1 - len(last)) + last + word[max(1, len(bare)) :]
