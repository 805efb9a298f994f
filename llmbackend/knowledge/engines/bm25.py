"""BM25 as sparse vectors, made here so that every engine gets the same: for English, German, Arabic, and scripts
written without spaces.

A dimension is a term's hash. A document's value is the term's saturated frequency in it (Robertson and Zaragoza, The
Probabilistic Relevance Framework, 2009), the engine multiplies by the term's rarity among what is stored. What a word's
terms are follows from its script; of Latin words also from the language that the function words around it tell. A query
is too short for that, so it asks for the stems of every language: those of the wrong one find nothing.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import chain, filterfalse, repeat
from typing import Any, NamedTuple, Protocol

from ...errors import Conflict

NAME = "bm25-multilingual"
K, B, USUAL_LENGTH = 1.2, 0.75, 256

# Letters that run on without spaces between words: Thai to Myanmar, Khmer, kana, Han, Hangul.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3\uf900-\ufaff\U00020000-\U0003ffff"
_RUN = re.compile(f"[{_UNSPACED}]")
_WORD = re.compile(rf"[{_UNSPACED}]+|[^\W_{_UNSPACED}]+")
_ASCII_GAPS = str.maketrans({letter: " " for letter in map(chr, range(128)) if not letter.isalnum()})
_ARABIC_MARKS = re.compile("[\u0610-\u061a\u0640\u064b-\u065f\u0670\u06d6-\u06ed]")
_ARABIC_LETTERS = str.maketrans("أإآٱىة", "اااايه")

# Digits and letters with signs between them, but no white space.
_CODE = re.compile(r"[^\W_]+(?:[-_./:,+#'’][^\W_]+)+")
_SIGNS = re.compile(r"[\W_]+")
_DIGIT = re.compile(r"\d")
LONGEST_CODE = 40

GRAM = 5  # letters; McNamee and Mayfield (2004) find 4 and 5 best for languages that compound
GRAMS_SHARE = 0.5  # of a word's weight in a query, for all its grams together


class Sparse(NamedTuple):
    """A sparse vector: its dimensions, each once, and their values."""

    indices: list[int]
    values: list[float]


class Encoder(Protocol):
    """Texts as sparse vectors."""

    def document(self, text: str) -> Sparse: ...

    def query(self, text: str) -> Sparse: ...


def encoder(name: str) -> Encoder:
    """The encoder of that name; raises Conflict if this version has none."""
    if name == NAME:
        return Multilingual()
    if name == EnglishOfEdge.NAME:
        return EnglishOfEdge()
    raise Conflict(
        f"this version knows no sparse model {name!r}, only {NAME!r}: embed the collection's texts anew by "
        "reindex_collection",
        details={"made_with": name, "model": NAME},
    )


class Multilingual:
    """The encoder of new collections."""

    def document(self, text: str) -> Sparse:
        words = _words(text)
        languages = _languages(words)
        kept = list(filterfalse(_STOP_WORDS.__contains__, words)) + _codes(text, words)
        counts = Counter(chain.from_iterable(map(_terms_and_grams, kept, repeat(languages))))
        norm = K * (1 - B + B * len(kept) / USUAL_LENGTH)
        values = {count: count * (K + 1) / (count + norm) for count in set(counts.values())}
        return Sparse(list(counts), list(map(values.__getitem__, counts.values())))

    def query(self, text: str) -> Sparse:
        words = _words(text)
        compounds = GERMAN in _languages(words)
        kept = [word for word in words if word not in _STOP_WORDS] or words
        kept += _codes(text, words)
        weights: dict[int, float] = {}
        for word in kept:
            for term in _terms(word, EITHER, asked=True):
                weights[term] = 1.0
            grams = _grams(word) if compounds else ()
            for term in grams:
                weights[term] = max(weights.get(term, 0.0), GRAMS_SHARE / len(grams))
        return Sparse(list(weights), list(weights.values()))


class EnglishOfEdge:
    """The encoder of collections made before there was another: Qdrant Edge's own, with English stems."""

    NAME = "bm25-english"

    def __init__(self) -> None:
        from qdrant_edge import Bm25

        self._bm25: Any = Bm25()

    def document(self, text: str) -> Sparse:
        return self._sparse(self._bm25.embed_document(text))

    def query(self, text: str) -> Sparse:
        return self._sparse(self._bm25.embed_query(text))

    @staticmethod
    def _sparse(vector: Any) -> Sparse:
        return Sparse(list(vector.indices), list(vector.values))


def _words(text: str) -> list[str]:
    if text.isascii():  # the same, in half the time
        return text.lower().translate(_ASCII_GAPS).split()
    text = _ARABIC_MARKS.sub("", unicodedata.normalize("NFKC", text))
    return _WORD.findall(text.casefold())


def _codes(text: str, words: list[str]) -> list[str]:
    """What is written in one with a digit and signs within, without these: E-4711, INV_2024/17, 1.234,56.

    Its parts are words by themselves, and may be common ones, scattered over many texts: 2024, 17.
    """
    if all(map(str.isalpha, words)):
        return []
    parts = filter(_DIGIT.search, filterfalse(str.isalnum, text.split()))
    codes = (_SIGNS.sub("", code.casefold()) for part in parts for code in _CODE.findall(part))
    return [code for code in codes if len(code) <= LONGEST_CODE and not code.isalpha()]


# Languages: those of Latin script whose stems differ; no vote means that it may be either.

ENGLISH, GERMAN = "english", "german"
EITHER = (ENGLISH, GERMAN)


def _set(words: str) -> frozenset[str]:
    return frozenset(words.casefold().split())


_FUNCTION_WORDS = {
    ENGLISH: _set(
        "a about above after again against all also am an and any are as at be because been before being below "
        "between both but by can could did do does doing don down during each few for from further had has have having "
        "he her here hers him his how i if in into is it its itself just me more most my no nor not now of off on once "
        "only or other our ours out over own s same she should so some such t than that the their theirs them then "
        "there these they this those through to too under until up very was we were what when where which while who "
        "whom why will with would you your yours"
    ),
    GERMAN: _set(
        "aber alle als am an auch auf aus bei beim bin bis bist da dann das dass dem den der des die dies diese diesem "
        "diesen dieser dieses du durch ein eine einem einen einer eines er es für gegen hat hatte hatten ich ihm ihn "
        "ihr ihre im in ist ja jede jeder kann kein keine können man mein mich mir mit muss nach nicht noch nur ob "
        "oder ohne sehr sein seine sich sie sind so sollte über um und uns unter vom von vor war waren was wenn werden "
        "wer wie wir wird wo wurde wurden zu zum zur zwischen"
    ),
}
_TELLING = {
    ENGLISH: _FUNCTION_WORDS[ENGLISH] - _FUNCTION_WORDS[GERMAN],
    GERMAN: _FUNCTION_WORDS[GERMAN] - _FUNCTION_WORDS[ENGLISH],
}
_STOP_WORDS = (
    _FUNCTION_WORDS[ENGLISH]
    | _FUNCTION_WORDS[GERMAN]
    # to, from, about, on, in, with, this, that, which, what, not, or, and, if, was, he, she, how, when, where, whether
    | _set(
        "الى إلى من عن على في مع هذا هذه ذلك تلك التي الذي ما لا لم لن او أو و ان أن إن كان كانت هو هي كيف متى اين أين هل"
    )
)


def _languages(words: list[str]) -> tuple[str, ...]:
    telling = list(filter(_STOP_WORDS.__contains__, words))
    english, german = (sum(map(_TELLING[language].__contains__, telling)) for language in EITHER)
    return EITHER if english == german else (ENGLISH,) if english > german else (GERMAN,)


# Terms


@lru_cache(maxsize=2**12)
def _terms(word: str, languages: tuple[str, ...], asked: bool = False) -> tuple[int, ...]:
    """A word's dimensions; those of a query, if `asked` for."""
    if _RUN.match(word):
        pairs = [word[place : place + 2] for place in range(len(word) - 1)]
        # A query of one letter finds it in longer words; in a longer query it would only be noise.
        letters = list(word) if not asked or len(word) == 1 else []
        return tuple({_hash(term) for term in [*pairs, *letters]})
    if "\u0600" <= word[0] <= "\u06ff":
        return (_hash(_arabic(word)),)
    return tuple({_hash(_stemmer(language)(word)) for language in languages})


@lru_cache(maxsize=2**17)
def _terms_and_grams(word: str, languages: tuple[str, ...]) -> tuple[int, ...]:
    """All dimensions of a word in a document; kept for many words, because making them takes long."""
    return _terms(word, languages) + (_grams(word) if GERMAN in languages else ())


@lru_cache(maxsize=2**12)
def _grams(word: str) -> tuple[int, ...]:
    """Dimensions of what compounds have in common with their parts: each run of GRAM letters, umlauts as they stem."""
    if len(word) < GRAM or not ("a" <= word[0] <= "\u024f" and word.isalpha()):
        return ()
    plain = word.translate(_UMLAUTS)
    return tuple({_hash(f"~{plain[place : place + GRAM]}") for place in range(len(plain) - GRAM + 1)})


_UMLAUTS = str.maketrans("äöü", "aou")


def _hash(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


@lru_cache
def _stemmer(language: str) -> Callable[[str], str]:
    """Snowball's (Porter 2001)."""
    from Stemmer import Stemmer

    stemmer = Stemmer(language)
    stemmer.maxCacheSize = 0
    stem: Callable[[str], str] = stemmer.stemWord
    return stem


_ARTICLES = ("وال", "بال", "كال", "فال", "ال", "لل")
_SUFFIXES = ("ها", "ان", "ات", "ون", "ين", "يه", "ه", "ي")


def _arabic(word: str) -> str:
    """Light stemming: without conjunction, article and ending (light10: Larkey, Ballesteros and Connell, 2007)."""
    word = word.translate(_ARABIC_LETTERS)
    for article in _ARTICLES:
        if word.startswith(article) and len(word) >= len(article) + 2:
            word = word[len(article) :]
            break
    else:
        if word.startswith("و") and len(word) > 3:
            word = word[1:]
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) >= len(suffix) + 2:
            word = word[: -len(suffix)]
    return word
