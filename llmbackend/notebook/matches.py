"""Marks the words of a question in a passage."""

from __future__ import annotations

import re

from ..engines.bm25 import EITHER, STOP_WORDS, stems
from ..text.words import is_run, words
from .parts import Line, Span

_WORDS = re.compile(r"\w[\w'’-]*")


def marked(text: str, question: str) -> Line:
    """The text, with those words marked by which a search may have found it."""
    asked = {term for word in words(question) if word not in STOP_WORDS for term in _terms(word)}
    parts: list[Line] = []
    end = 0
    for found in _WORDS.finditer(text) if asked else ():
        if any(not asked.isdisjoint(_terms(word)) for word in words(found[0]) if word not in STOP_WORDS):
            parts += [text[end : found.start()], Span("mark", found[0])]
            end = found.end()
    return [*parts, text[end:]]


def _terms(word: str) -> tuple[int | str, ...]:
    return (word,) if is_run(word) else stems(word, EITHER)


def quoted(text: str, quote: str) -> Line:
    """The text, with the quote from it marked."""
    at = text.find(quote) if quote else -1
    if at < 0:
        return text
    return [text[:at], Span("mark", quote), text[at + len(quote) :]]
