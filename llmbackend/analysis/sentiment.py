"""Rates the sentiment of a text's sentences by a word list and a small model together.

VADER (Hutto and Gilbert, ICWSM 2014) knows words, negations and emphasis, but takes "the loss grew" for growth and a dry
complaint for none. The judge, all-MiniLM-L6-v2, knows what sentences are like that praise or complain. What rises or
falls, as sales and losses do, neither of them knows: a third, short list does. English only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import threads
from ..schemas import Sentiment

if TYPE_CHECKING:
    from numpy.typing import NDArray

WEIGHTS = Path(__file__).with_name("sentiment.npy")
"""Of the judge's 384 numbers, VADER's score and a constant, by ridge regression on the mean ratings of 20 people (-4 to 4)
of 11,900 sentences of product reviews, film reviews and editorials, which VADER's authors published (MIT licence):
tests/benchmarks/fit_sentiment.py."""

WORDS_ALONE = 2.0
"""Factor from VADER's score (-1 to 1) to the scale of those ratings, if the judge is not installed."""

MOVEMENT = 0.8
"""What "sales fell" subtracts on that scale, and "sales rose" adds. Tuned on 120 headlines of financial news."""

AGREED, ALONE, AGAINST = 0.1, 0.5, 0.3
"""The rating from which a sentence is not neutral: if its words or movements agree with the rating, if they are neutral, and
if they disagree. A single bar of .35 is worse on each kind of text, with weights fitted on the other kinds: .61 instead of
.64 (product reviews), .55 of .57 (film reviews), .53 of .55 (editorials), .76 of .79 (tweets), .66 of .68 (headlines)."""

FELT_WORDS = 0.05
"""VADER's score from which words are not neutral, by its authors."""

FULL = 2.0
"""The rating that counts as the strongest: hardly any sentence exceeds it."""

CLEAR, MANY = 0.8, 8
"""In a text of at least MANY sentences, the rating from which a sentence is not neutral. In licences and manuals, one
sentence in four or five exceeds the usual bars by chance, but one in eight exceeds this one; in reviews, every second does."""

FELT = 0.34
"""The least share of a text's sentences that are not neutral, if the text is not neutral."""

BOTH = 0.25
"""The least share of these that disagree with the others, if the text is mixed."""

LETTERS = 1000
"""Most characters of a sentence that are read: VADER takes quadratic time, and the judge reads at most 254 tokens."""

NOT_ENGLISH = "sentiment: only English is judged, so this text is called neutral"

# fmt: off
_UP = re.compile(
    r"\b(?:ris(?:e|es|ing)|rose|risen|increas\w+|gr[eo]w(?:s|n|ing|th)?|climb\w*|surg\w+|jump\w*|soar\w*|gain\w*|"
    r"improv\w+|boost\w*|exceed\w*|beats?|beating|tops|topped|rais(?:es|ed)|upgrad\w+|upped|rebound\w*|recover\w*|"
    r"strengthen\w*|higher|accelerat\w+|doubl(?:e|es|ed|ing)|tripl(?:e|es|ed|ing)|quicken\w*|pick(?:s|ed)? up|bullish|"
    r"outperform\w*)\b", re.I)
_DOWN = re.compile(
    r"\b(?:fall(?:s|en|ing)?|fell|decreas\w+|declin\w+|drop(?:s|ped|ping)?|slip(?:s|ped)?|plung\w+|plummet\w*|slump\w*|"
    r"shr[aiu]nk\w*|cuts?|lower(?:s|ed|ing)?|downgrad\w+|miss(?:es|ed)|weaken\w*|halv\w+|tumbl\w+|deteriorat\w+|"
    r"contracted|contraction|slow(?:s|ed|ing|er)|reduc\w+|trim(?:s|med)?|slash\w*|worsen\w*|bearish|underperform\w*|"
    r"short of|slid\w*|sank|sink(?:s|ing)?|dip(?:s|ped)?|narrow(?:s|ed|ing)?|down)\b", re.I)
_UNWELCOME = re.compile(
    r"\b(?:loss(?:es)?|debts?|costs?|expenses?|unemployment|jobless|deficits?|risks?|defaults?|layoffs?|delays?|"
    r"complaints?|errors?|defects?|failures?|crime|accidents?|deaths?|inflation|emissions|absence)\b", re.I)
# What follows these words is what the statement is compared with.
_COMPARED = re.compile(
    r"\b(?:compared (?:to|with)|in comparison (?:to|with)|versus|vs\.?|as against|as opposed to|up from|down from|"
    r"rather than|instead of)(?!\w)", re.I)
_SAYINGS = (
    (re.compile(r"\b(?:no|not any|never any|never had (?:an?|any)|zero|without(?: any)?|nothing to) "
                r"(?:complain(?:ts?)?|problems?|issues?|troubles?|regrets?|worries|faults?)\b", re.I), "satisfied"),
    (re.compile(r"\b(?:could|should|might) (?:have been|be) (?:\w+ )?(?:better|faster|nicer|cleaner|friendlier|easier)\b|"
                r"\bleaves? (?:much|a lot|something) to be desired\b|\bnot (?:worth|recommend\w*)\b|"
                r"\b(?:not buy|not order|not come back|expected (?:more|better)|waste of|stopped working|does(?: not|n't) work|did(?: not|n't) work|never again)\b", re.I),
     "disappointing"),
)
# Words of contracts, reports and manuals that VADER takes for feelings.
_PLAIN = (
    "agree", "agreed", "agreement", "agreements", "agrees", "argument", "arguments", "asset", "assets", "assurance",
    "certain", "credit", "effective", "energy", "exclusive", "grant", "granted", "greater", "hand", "interest", "interests",
    "legal", "liability", "limitation", "limited", "matter", "matters", "natural", "number", "parties", "party",
    "principal", "secured", "securities", "security", "share", "shared", "shares", "sharing", "trust",
)
_ENGLISH = frozenset((
    "the", "and", "of", "to", "is", "was", "it", "that", "this", "for", "with", "are", "i", "you", "not", "have", "has",
    "be", "but", "my", "we", "they", "at", "from", "very", "our", "which", "were", "shall", "or", "by",
))
_OTHER = frozenset((
    "der", "die", "das", "und", "ist", "nicht", "ich", "ein", "eine", "mit", "zu", "auf", "den", "sehr", "von",
    "le", "la", "les", "des", "et", "est", "une", "je", "pas", "du", "que", "pour", "très", "el", "los", "las", "y",
    "es", "un", "una", "muy", "con", "por", "il", "di", "che", "non", "per", "è", "de", "het", "een", "van", "niet",
    "e", "o", "os", "não", "bir", "ve", "bu", "çok", "için", "i", "nie", "jest", "och", "det", "att", "som", "inte",
))
# fmt: on


class Feeling(NamedTuple):
    sentiment: Sentiment
    score: float
    """From -1 (negative) to 1 (positive)."""


def is_english(text: str) -> bool:
    """Return whether a text is English, by its letters and most frequent words; of a short text, by its letters alone."""
    letters = [letter for letter in text[:20_000] if letter.isalpha()]
    if sum(letter.isascii() for letter in letters) < 0.9 * len(letters):
        return False
    words = re.findall(r"\w+", text[:20_000].lower())
    return sum(map(_ENGLISH.__contains__, words)) >= sum(map((_OTHER - _ENGLISH).__contains__, words))


async def feeling(sentences: Sequence[str], vectors: NDArray[Any] | None) -> Feeling:
    """Return the sentiment of an English text. `vectors` are the judge's, a row for each sentence; None without the judge."""
    import numpy as np

    if not sentences:
        return Feeling("neutral", 0.0)
    rated = await threads.processor(ratings, sentences, vectors)
    felt = signs(rated, CLEAR if len(rated.scores) >= MANY else 0.0)
    glad, sad = int((felt > 0).sum()), int((felt < 0).sum())
    if glad + sad < FELT * len(felt) or not glad + sad:
        return Feeling("neutral", 0.0)
    score = round(float(np.clip(rated.scores.mean() / FULL, -1, 1)), 2)
    if min(glad, sad) > BOTH * (glad + sad):
        return Feeling("mixed", score)
    sign = 1 if glad > sad else -1
    return Feeling("positive" if sign > 0 else "negative", sign * max(sign * score, 0.01))


class Ratings(NamedTuple):
    """The ratings of sentences, in order."""

    scores: NDArray[Any]
    """From -4 to 4, on the scale of the people who rated the examples."""
    words: NDArray[Any]
    movements: NDArray[Any]
    """The sign of the sentence's words and movements together: -1, 0 or 1."""


def ratings(sentences: Sequence[str], vectors: NDArray[Any] | None) -> Ratings:
    """Rate each sentence. `vectors` are the judge's, a row for each; None without the judge."""
    import numpy as np

    words = np.array([lexicon(sentence) for sentence in sentences])
    movements = np.array([movement(sentence) for sentence in sentences])
    if vectors is None:
        scores = WORDS_ALONE * words
    else:
        weights = np.load(WEIGHTS)
        scores = vectors @ weights[:-2] + words * weights[-2] + weights[-1]
    felt = np.where(np.abs(words) < FELT_WORDS, 0.0, np.sign(words))
    return Ratings(scores + MOVEMENT * movements, felt, movements)


def signs(rated: Ratings, least: float = 0.0) -> NDArray[Any]:
    """Return 1 for each positive sentence, -1 for each negative one, 0 for the others. `least` is a lower limit of all bars."""
    import numpy as np

    sides = np.sign(rated.scores)
    agreed = (sides == rated.words) | (sides == rated.movements)
    bars = np.where(agreed, AGREED, np.where(rated.words == 0, ALONE, AGAINST))
    return np.where(np.abs(rated.scores) >= np.maximum(bars, least), sides, 0.0)


def lexicon(sentence: str) -> float:
    """Return VADER's score (-1 to 1) of a sentence, without the part that it makes a comparison with."""
    said = _said(sentence)
    for saying, word in _SAYINGS:
        said = saying.sub(word, said)
    return float(_vader().polarity_scores(said)["compound"])


def movement(sentence: str) -> int:
    """Return 1 if something welcome rises or something unwelcome falls, -1 for the reverse, 0 for neither or both."""
    said = _said(sentence)
    ups, downs = len(_UP.findall(said)), len(_DOWN.findall(said))
    rises = (ups > downs) - (ups < downs)
    return -rises if _UNWELCOME.search(said) else rises


def _said(sentence: str) -> str:
    sentence = sentence[:LETTERS]
    compared = _COMPARED.search(sentence)
    before = sentence[: compared.start()] if compared else sentence
    return before if len(before.split()) >= 4 else sentence


@cache
def _vader() -> Any:
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    analyzer = SentimentIntensityAnalyzer()
    for word in _PLAIN:
        analyzer.lexicon.pop(word, None)
    return analyzer
