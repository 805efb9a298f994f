"""Splits texts between sentences into parts of a number of tokens, as LlamaIndex does, but always in linear time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

from .. import slices
from ..text.sentences import sentences
from .tokens import tokens_of
from .windows import PART_CHARACTERS

LONG_WORD = 200
"""Longest word that stays whole: dividing longer ones character by character would be slow."""


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


def _pieces(text: str, size: int, level: int = 0) -> Iterator[_Piece]:
    """Yield a text's largest divisions that fit: paragraphs, else items of a list, sentences, phrases, words and characters.

    What is divided in one way is not divided in that way again: without what was before it, a part may have an end of a
    sentence at its beginning, and another one after that.
    """
    tokens = len(tokens_of(text))
    if tokens > size:
        for number, divide in enumerate(_DIVISIONS[level:], level + 1):
            if len(parts := divide(text, size)) > 1:
                for part in parts:
                    yield from _pieces(part, size, number)
                return
    yield _Piece(text, tokens)


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
    found = _listed(text, size)
    return found if len(found) > 1 else _sentences(text, size)


def _listed(text: str, size: int) -> list[str]:
    return _cut(text, [start for start in _items(text) if start])


def _items(text: str) -> Iterator[int]:
    """Yield where each item of a list begins. Looks at some lines at a time, because it holds the interpreter's lock."""
    begin = 0
    while begin < len(text):
        slices.give_way()
        end = text.find("\n", begin + PART_CHARACTERS) + 1 or len(text)
        yield from (item.start() for item in _ITEM.finditer(text, begin, end))
        begin = end


def _sentences(text: str, size: int) -> list[str]:
    longest = min(LONG_WORD, size)
    found = _cut(text, [start for start, _ in sentences(text)][1:])
    return [part for sentence in found for part in _parts(sentence, longest, size)]


def _parts(sentence: str, longest: int, size: int) -> Iterator[str]:
    """Yield a sentence, with runs too long for a chunk and without spaces cut into lines or pieces:
    `_divided` would cut them by characters, which is slow.
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


_DIVISIONS: Sequence[Callable[[str, int], list[str]]] = (
    lambda text, size: _before("\n\n", text),
    _listed,
    _sentences,
    lambda text, size: re.findall(_PHRASES, text),
    lambda text, size: _before(" ", text),
    lambda text, size: list(text),
)
"""Ways to divide a text, from the largest parts to the smallest."""
