"""Splits texts between sentences into parts of a number of tokens, as LlamaIndex does, but always in linear time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import NamedTuple

from .. import llamaindex_import, slices
from .tokens import tokens_of
from .windows import PART_CHARACTERS, windows

LONG_WORD = 200
"""Longest word in which a sentence may end: in longer ones, the splitter would cut off one sentence after another."""

NEAR = 2**12
"""Characters in which sentences are looked for at a time: nltk gives up on a text that takes five seconds."""

DENSE = 8
"""If sentences have fewer characters than this on average, every mark ends one, because nltk is slow for each."""


class _Piece(NamedTuple):
    text: str
    tokens: int


def split_text(text: str, size: int, overlap: int) -> list[str]:
    """Return parts of at most `size` tokens, each beginning with up to `overlap` tokens of the end of the one before.

    These are the parts that LlamaIndex's SentenceSplitter makes with `units` as its sentences. It is not used itself,
    because importing it takes longer than ingesting a document.
    """
    joined = _joined(_pieces(text, size), size, overlap)
    return [part for whole in joined if (part := whole.strip())]


def _pieces(text: str, size: int) -> Iterator[_Piece]:
    """Yield a text's largest divisions that fit: paragraphs, else sentences, phrases, words and characters."""
    tokens = len(tokens_of(text))
    parts = _divided(text, size) if tokens > size else []
    if len(parts) < 2:
        yield _Piece(text, tokens)
        return
    for part in parts:
        yield from _pieces(part, size)


def _divided(text: str, size: int) -> list[str]:
    if len(paragraphs := _before("\n\n", text)) > 1:
        return paragraphs
    if len(sentences := units(text, size)) > 1:
        return sentences
    if len(phrases := re.findall(_PHRASES, text)) > 1:
        return phrases
    words = _before(" ", text)
    return words if len(words) > 1 else list(text)


def _before(separator: str, text: str) -> list[str]:
    """Split a text before each separator."""
    first, *others = text.split(separator)
    return [*filter(None, [first]), *(separator + other for other in others)]


def _joined(pieces: Iterable[_Piece], size: int, overlap: int) -> Iterator[str]:
    """Join as many pieces as fit."""
    part: list[_Piece] = []
    tokens = 0
    for piece in pieces:
        if part and tokens + piece.tokens > size:
            yield "".join([one.text for one in part])
            part = _end(part, min(overlap, size - piece.tokens))
            tokens = sum(one.tokens for one in part)
        part.append(piece)
        tokens += piece.tokens
    if part:
        yield "".join([one.text for one in part])


def _end(part: list[_Piece], most: int) -> list[_Piece]:
    """Return the last pieces of a part that have at most so many tokens."""
    start, tokens = len(part), 0
    while start and (tokens := tokens + part[start - 1].tokens) <= most:
        start -= 1
    return part[start:]


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
            spans = llamaindex_import.punkt().span_tokenize(text)
            return [start for start, _ in spans][1:]
        except TimeoutError:
            pass  # nltk has given up, because the machine is very busy
    return [found.end() for found in _ANY_END.finditer(text)]


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
