"""A question's words, and those that must match exactly: codes, numbers and names."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from itertools import islice

import regex

from .. import slices
from ..text.sentences import stems
from ..text.words import UNSPACED, WRITTEN
from . import full_names

_RUN = re.compile(f"[{UNSPACED}]+")  # 契約E-03の金額 has the code E-03
_FRACTION = re.compile(r"(?<![/\d])\d+/\d+(?![/\d])")  # 2024/915, but no date
_PART = re.compile(
    r"(?:§+|№|\b(?:section|article|paragraph|clause|chapter|rule|part|annex|appendix|table|figure|room|line|item|number|no))"
    r"\W{0,2}\d{1,3}[a-z]?\b",
    re.IGNORECASE,
)  # as in section 13, which is as exact as a code
_GROUP = re.compile(r"[^\W\d_]+|\d+|[§№]+")
_MEASURE = re.compile(r"\d+(?:[a-z]{1,2}|-[a-z]+)", re.IGNORECASE)  # 4th, 9am, 30-day
_YEAR = re.compile(r"(?:19|20)\d\d")

# fmt: off
COMMON = frozenset((
    "a", "about", "an", "and", "any", "are", "as", "at", "be", "by", "can", "could", "did", "do", "does", "for", "from",
    "had", "has", "have", "how", "i", "if", "in", "is", "it", "its", "many", "may", "me", "much", "must", "my", "not",
    "of", "on", "or", "our", "should", "so", "that", "the", "their", "them", "there", "they", "this", "to", "us", "was",
    "we", "were", "what", "when", "where", "which", "who", "whom", "whose", "why", "will", "with", "would", "you",
    "your",
    # Words of requests
    "describe", "details", "explain", "give", "information", "list", "need", "please", "policies", "policy", "show",
    "tell", "want",
))
GERMAN = frozenset((
    "aber", "alle", "allem", "allen", "aller", "als", "also", "am", "an", "auch", "auf", "aus", "bei", "beim", "bin", "bis",
    "bitte", "da", "das", "dass", "dem", "den", "denn", "der", "des", "die", "dies", "diese", "diesem", "diesen", "dieser",
    "dieses", "doch", "du", "durch", "darf", "dürfen", "ein", "eine", "einem", "einen", "einer", "eines", "er", "es", "etwas",
    "für", "gibt", "habe", "haben", "hat", "hatte", "ich", "ihm", "ihn", "ihr", "ihre", "ihrem", "ihren", "ihrer", "im", "in",
    "ist", "kann", "kein", "keine", "können", "man", "mein", "meine", "mich", "mir", "mit", "muss", "müssen", "nach", "nicht",
    "noch", "nur", "ob", "oder", "sein", "seine", "sich", "sie", "sind", "so", "soll", "sollen", "um", "und", "uns", "unser",
    "unsere", "viel", "viele", "vom", "von", "vor", "wann", "war", "waren", "warum", "was", "welche", "welchem", "welchen",
    "welcher", "welches", "wem", "wen", "wenn", "wer", "werde", "werden", "wessen", "wie", "wieso", "wieviel", "wird", "wir",
    "wo", "woher", "wohin", "wurde", "wurden", "zu", "zum", "zur", "über",
))
# fmt: on
"""Words that do not show what is asked for, in English and in German."""


def telling(words: Sequence[str]) -> list[str]:
    """Return the words, in lower case, that show what is asked for, in the language that more of the others are of."""
    common = max((COMMON, GERMAN), key=lambda known: sum(word in known for word in words))
    return [word for word in words if word not in common]


NAMES = 10
"""Full names that are looked for at most, each in every passage."""


class Question:
    """A question, and how rare its codes, numbers and names are in the given passages."""

    def __init__(self, question: str, passages: Sequence[str]) -> None:
        self.text = question
        self.stems = stems(question)
        words = [
            word
            for run in WRITTEN.findall(question)
            for part in _RUN.split(run)
            if (word := full_names.bare(part))
        ]
        words += _FRACTION.findall(question)
        self._patterns: dict[str, regex.Pattern[str]] = {
            word: _pattern(word) for place, word in enumerate(words) if _is_exact(word, place == 0)
        }
        parts = _PART.findall(question)
        self._patterns |= {part: _pattern(part) for part in parts}
        self._codes = {word for word in self._patterns if word in parts or _is_code(word)}
        self._rare: dict[str, float] = {}
        self.missing: list[str] = []
        """Codes of the question that no passage has, and full names that none has, though each of their words is in some."""
        self.unknown: list[str] = []
        """Names and numbers of the question that no passage has."""
        for word, pattern in self._patterns.items():
            slices.give_way()
            count = sum(pattern.search(passage) is not None for passage in passages)
            if count:
                self._rare[word] = math.log(1 + len(passages) / count)
            elif word in parts:
                continue  # it may be written differently: § 13
            elif word in self._codes:
                self.missing.append(word)
            else:
                self.unknown.append(word)
        self._leading: list[regex.Pattern[str]] = []
        """Full names that are the first in some passage."""
        for name in islice(full_names.full_names(question), NAMES):
            self._look_for(name.words, passages)

    def _look_for(self, name: Sequence[str], passages: Sequence[str]) -> None:
        """Take a full name, or the longest part of it that some passage has, as one: who asks for Ann Lee is not told of Ann Fox."""
        for part in full_names.parts(name):
            pattern = full_names.pattern(part)
            if having := [passage for passage in passages if pattern.search(passage)]:
                said = " ".join(part)
                self._patterns[said] = pattern
                self._rare[said] = math.log(1 + len(passages) / len(having))
                if not all(_after_another(pattern, passage) for passage in having):
                    self._leading.append(pattern)
                return
        own = [word for word in name if word in self._patterns]  # a question's first word may not be
        # Words with capitals need not be names: German nouns have them, and stand beside words without any.
        if len(own) > 1 and all(any(_in_a_name(word, one) for one in passages) for word in own):
            self.missing.append(" ".join(own))

    @property
    def has_code(self) -> bool:
        """Whether the question has a code that some passage also has."""
        return not self._codes.isdisjoint(self._rare)

    def tells(self, word: str) -> bool:
        """Return whether a word of the question, in lower case, shows what is asked for."""
        return len(word) > 1 and word.isalnum() and word not in COMMON

    def overlap(self, text: str) -> float:
        """Return the share of the question's words that occur in the text, 0 to 1."""
        return len(self.stems & stems(text)) / max(1, len(self.stems))

    def exact(self, text: str) -> float:
        """Return the share of the question's codes, numbers and names that occur in the text, 0 to 1, weighted by rarity.

        Those that no passage has do not count.
        """
        return self._share(self._rare, text)

    def coded(self, text: str) -> float:
        """Return the same share for the question's codes only, less 1 if the text is about somebody else.

        It is if another full name comes before the question's, which some other passage has first: of Ann Lee's record and
        that of a person who reports to her, the first is about her.
        """
        share = self._share({word: rare for word, rare in self._rare.items() if word in self._codes}, text)
        return share - any(_after_another(name, text) for name in self._leading)

    def _share(self, rare: Mapping[str, float], text: str) -> float:
        slices.give_way()
        whole = sum(rare.values())
        has = sum(weight for word, weight in rare.items() if self._patterns[word].search(text))
        return has / whole if whole else 0.0


def _after_another(name: regex.Pattern[str], text: str) -> bool:
    """Whether the text has the name, and another full name before it."""
    found = name.search(text)
    return found is not None and any(full_names.full_names(text[: found.start()]))


def _in_a_name(word: str, text: str) -> bool:
    return word in text and any(word in name.words for name in full_names.full_names(text))


def _is_exact(word: str, first: bool) -> bool:
    if word[1:].islower() and word.lower() in COMMON:
        return False  # such as "What", which may begin a second sentence
    capital = any(letter.isupper() for letter in word[1:]) or (
        word[0].isupper() and len(word) > 1 and not first
    )
    return capital or any(letter.isdigit() for letter in word)


def _is_code(word: str) -> bool:
    """Return whether a word has letters and digits, or is a long number: E-03, X200, 10482; not 30, 4th, 9am, 30-day, 2026."""
    digits = sum(letter.isdigit() for letter in word)
    if _MEASURE.fullmatch(word) or _YEAR.fullmatch(word):
        return False
    return digits >= 4 or (digits > 0 and any(letter.isalpha() for letter in word))


def _pattern(word: str) -> regex.Pattern[str]:
    """Return a pattern for the word with any punctuation: E-03, E03, E 03."""
    said = r"[\W_]{0,2}".join(map(re.escape, _GROUP.findall(word)))
    letter = rf"[^\W_{UNSPACED}]"
    slices.give_way()
    # `re` takes milliseconds for the set of letters, a word.
    return regex.compile(rf"(?<!{letter}){said}(?!{letter})", regex.IGNORECASE)
