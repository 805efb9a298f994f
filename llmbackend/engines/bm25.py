"""Makes BM25 sparse vectors, the same for every engine: for English, German, Arabic, and scripts without spaces.

Words are those of text/words.py. A dimension is a term's hash. Its value in a document is the term's saturated frequency
(Robertson and Zaragoza, The Probabilistic Relevance Framework, 2009); the engine multiplies it by the term's rarity among
the stored chunks. A word's terms depend on its script, and for Latin script on the language, which the function words
around it show. A query is too short to show that, so it asks for the stems of every language; the wrong ones find
nothing.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from itertools import chain
from typing import Any, NamedTuple, Protocol, TypeVar

from ..errors import Conflict
from ..text.words import REMEMBERED_LENGTH, is_run, letters, pairs, plain, words

_Made = TypeVar("_Made")

REMEMBERED = 2**16  # words of documents, for each encoder and language
REMEMBERED_ASKED = 2**12  # words of queries, for each encoder

Terms = Callable[[str, tuple[str, ...]], tuple[int, ...]]
Asked = Callable[[str], dict[int, float]]

NAME = "bm25-multilingual-2"
K, B, USUAL_LENGTH = 1.2, 0.75, 256

GRAM = 5  # letters; McNamee and Mayfield (2004) find 4 and 5 best for languages that compound
GRAMS_SHARE = 0.5  # of a word's weight in a query, for all its grams together


class Sparse(NamedTuple):
    """A sparse vector: distinct dimensions and their values."""

    indices: list[int]
    values: list[float]


class Encoder(Protocol):
    """Turns texts into sparse vectors."""

    def document(self, text: str) -> Sparse: ...

    def query(self, text: str) -> Sparse: ...


def encoder(name: str) -> Encoder:
    """Return the encoder of that name; raises Conflict if this version has none."""
    if name == NAME:
        return Multilingual()
    from .bm25_first import FirstMultilingual  # here, because its patterns take long to compile

    for kind in (FirstMultilingual, EnglishOfEdge):
        if name == kind.NAME:
            return kind()
    raise Conflict(
        f"this version does not have the sparse model {name!r}, only {NAME!r}: convert the collection by "
        "reindex_collection",
        details={"made_with": name, "model": NAME},
    )


class Multilingual:
    """The encoder of new collections."""

    NAME = NAME

    def document(self, text: str) -> Sparse:
        found = self.words(text)
        common = list(filter(STOP_WORDS.__contains__, found))
        terms = _remembered(self.terms, _languages(common))
        counts = Counter(chain.from_iterable(map(terms.__getitem__, found)))
        norm = K * (1 - B + B * (len(found) - len(common)) / USUAL_LENGTH)
        values = {count: count * (K + 1) / (count + norm) for count in set(counts.values())}
        return Sparse(list(counts), list(map(values.__getitem__, counts.values())))

    def query(self, text: str) -> Sparse:
        found = self.words(text)
        common = list(filter(STOP_WORDS.__contains__, found))
        telling = [word for word in found if word not in STOP_WORDS] if common else found
        compounds = GERMAN in _languages(common)
        asked_for = _remembered_asked(self.asked)
        weights: dict[int, float] = {}
        for word in telling or found:
            asked = asked_for[word]
            if compounds and (in_common := grams(plain(word))):
                asked = dict.fromkeys(in_common, GRAMS_SHARE / len(in_common)) | asked
            for term, weight in asked.items():
                if weights.get(term, 0.0) < weight:
                    weights[term] = weight
        return Sparse(list(weights), list(weights.values()))

    words = staticmethod(words)

    @staticmethod
    def asked(word: str) -> dict[int, float]:
        """Return the weighted dimensions of a query's word. With accents, each of its two forms gets half of the weight."""
        if is_run(word):
            # A single letter is searched as such; in a longer word, single letters would only be noise.
            return dict.fromkeys(map(hashed, pairs(word) or letters(word)), 1.0)
        without_accents = plain(word)
        if without_accents == word:
            return dict.fromkeys(stems(word, EITHER), 1.0)
        weights: dict[int, float] = {}
        for form in (word, without_accents):
            for term in stems(form, EITHER):
                weights[term] = weights.get(term, 0.0) + 0.5
        return weights

    @staticmethod
    def terms(word: str, languages: tuple[str, ...]) -> tuple[int, ...]:
        """Return a word's dimensions in a document; a stop word has none."""
        if word in STOP_WORDS:
            return ()
        if is_run(word):
            return tuple(set(map(hashed, pairs(word) + letters(word))))
        without_accents = plain(word)
        found = stems(word, languages)
        if without_accents != word:
            found = tuple({*found, *stems(without_accents, languages)})
        return found + (grams(without_accents) if GERMAN in languages else ())


class _Remembered(dict[str, _Made]):
    """Remembers the results for words, because computing them is slow."""

    def __init__(self, make: Callable[[str], _Made], most: int) -> None:
        self._make, self._most = make, most

    def __missing__(self, word: str) -> _Made:
        found = self._make(word)
        if len(word) <= REMEMBERED_LENGTH:
            if len(self) >= self._most:
                self.clear()
            self[word] = found
        return found


@lru_cache
def _remembered(terms: Terms, languages: tuple[str, ...]) -> _Remembered[tuple[int, ...]]:
    """Return the shared memory of words' dimensions in texts of these languages."""
    return _Remembered(lambda word: terms(word, languages), REMEMBERED)


@lru_cache
def _remembered_asked(asked: Asked) -> _Remembered[dict[int, float]]:
    return _Remembered(asked, REMEMBERED_ASKED)


class EnglishOfEdge:
    """The encoder of the oldest collections: Qdrant Edge's own, with English stems."""

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


# Languages of Latin script, whose stems differ. A text whose function words do not decide may be in either.

ENGLISH, GERMAN = "english", "german"
EITHER = (ENGLISH, GERMAN)


def _set(listed: str) -> frozenset[str]:
    """The words as text/words.py finds them, and as FirstMultilingual does."""
    return frozenset([*words(listed), *listed.split()])


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
STOP_WORDS = (
    _FUNCTION_WORDS[ENGLISH]
    | _FUNCTION_WORDS[GERMAN]
    # to, from, about, on, in, with, this, that, which, what, not, or, and, if, was, he, she, how, when, where, whether
    | _set(
        "الى إلى من عن على في مع هذا هذه ذلك تلك التي الذي ما لا لم لن او أو و ان أن إن كان كانت هو هي كيف متى اين أين هل"
    )
)


def _languages(common: list[str]) -> tuple[str, ...]:
    if not common:
        return EITHER
    english, german = (sum(map(_TELLING[language].__contains__, common)) for language in EITHER)
    return EITHER if english == german else (ENGLISH,) if english > german else (GERMAN,)


# Terms


def stems(word: str, languages: tuple[str, ...]) -> tuple[int, ...]:
    """Return the dimensions of a word's stems, for scripts with spaces."""
    if "\u0600" <= word[0] <= "\u06ff":
        return (hashed(_arabic(word)),)
    return tuple({hashed(_stemmer(language)(word)) for language in languages})


@lru_cache(maxsize=2**12)
def grams(word: str) -> tuple[int, ...]:
    """Return the dimensions of each run of GRAM letters, which compounds have in common with their parts."""
    if len(word) < GRAM or not ("a" <= word[0] <= "\u024f" and word.isalpha()):
        return ()
    return tuple({hashed(f"~{word[place : place + GRAM]}") for place in range(len(word) - GRAM + 1)})


def hashed(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


@lru_cache
def _stemmer(language: str) -> Callable[[str], str]:
    """Return a Snowball stemmer (Porter 2001)."""
    from Stemmer import Stemmer

    stemmer = Stemmer(language)
    stemmer.maxCacheSize = 0
    stem: Callable[[str], str] = stemmer.stemWord
    return stem


_ARTICLES = ("وال", "بال", "كال", "فال", "ال", "لل")
_SUFFIXES = ("ها", "ان", "ات", "ون", "ين", "يه", "ه", "ي")


def _arabic(word: str) -> str:
    """Stem lightly: remove conjunction, article and ending (light10: Larkey, Ballesteros and Connell, 2007)."""
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
