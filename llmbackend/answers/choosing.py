"""Chooses the sentences that answer a question, by the judge; a static embedder shortlists what the judge reads."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from .. import threads
from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from .fitting import Quote
from .layout import Laid
from .question import Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JUDGED = 24
"""Sentences that the judge reads, of some 250, beside those of the best passages. With 32, 48 and 64, answers are no better."""

PASSAGES = 20
"""Passages, from the top of the search, that the judge reads as a whole."""

WHOLLY = 5
"""The best of these passages, by the judge's cosines, of which it reads every sentence.

Of 113 questions in other words than their documents (handbooks and manuals of up to 2,000 passages), on which no constant
was tuned, 79 answers contain the fact; 70 if the judge reads sentences only.
"""

READ_UNSIFTED = 12
"""Passages of which the judge reads every sentence if the embedder is the same model, and so no faster."""

OF_WORDS = 0.3
"""Weight of the share of the question's words in a sentence, beside the static cosine, when shortlisting."""

OF_PASSAGE = 0.5
"""Weight of the passage's own cosine beside the sentence's."""

OF_EXACT = 0.3
"""Weight of the question's codes, numbers and names in a sentence, and again in its passage."""

OF_CODES = 1.0
"""Weight of the question's codes in a sentence's passage: more than any other difference between two sentences. A question
about one code must not be answered from a passage about another, however well that fits."""

FRAGMENT = 0.1
"""Penalty for a sentence of fewer than three words."""

WORDS_READ = 16
"""The best sentences, which are read word by word: each word of the question is compared with the sentence's nearest word."""

OF_NEAREST = 1.0
"""Weight, in a sentence's score, of the mean of these cosines."""

OF_FARTHEST = 0.3
"""Weight, in a sentence's score, of the least of these cosines."""

CLOSE = 0.15
"""How far the scores of the sentences that are then read among their neighbours may be behind the best.

What a sentence is about is often said in the one before it. Of 108 questions in other words than 430 to 1,000 passages, 55
answers contain the fact; without this, 51. These questions were known when it was decided what to read. Reading all of
WORDS_READ is no better.
"""

WORDS_AMONG = 0.5
"""How much more the words count for these: a longer text blurs them."""

AHEAD = 0.5
"""Weight, in the fit, of the best sentence's lead over the sixth to twentieth."""

USUAL = 0.1
"""Cosine of unrelated sentences, which stands in if there are fewer than twenty."""

OF_LEAST = 0.5
"""Weight, in the fit, of how near the best passage comes to the question's word that is farthest from it: a missing detail
is such a word."""

TOLD = 0.76
"""The fit from which the best sentence counts as an answer. It is set for a fit that compares JUDGED sentences."""


class Judged(NamedTuple):
    quotes: list[Quote]
    """The sentences, best first."""
    cosines: dict[Quote, float]
    """The judge's cosine of each sentence with the question."""
    fit: float
    """The best sentence's cosine, its weighted lead over others, and the weighted least cosine of the question's words."""


_Place = tuple[int, int]
"""The number of a passage, and of a unit in it."""


async def judged(embedder: Embedder, judge: Judge, asked: Question, laid: list[Laid]) -> Judged:
    """Score the sentences of the passages, which are given best first, by how well they answer the question."""
    places = [
        (number, index)
        for number, one in enumerate(laid)
        for index, unit in enumerate(one.parts)
        if unit.tells
    ]
    if not places:
        return Judged([], {}, 0.0)
    picked = places
    whole = await _whole(judge, asked, laid)
    if embedder.name == judge.name:
        picked = places = [place for place in places if place[0] < READ_UNSIFTED]
    elif len(places) > JUDGED:
        picked = await _sifted(embedder, asked, laid, places)
        chosen = set(picked)
        wholly = await threads.processor(_best, asked, laid, whole)
        places = [place for place in places if place in chosen or place[0] in wholly]
    below = [laid[number].below[index] for number, index in places]
    vectors = await judge.embed([asked.text, *below])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    scores = await threads.processor(_scores, asked, laid, places, vectors, whole)
    order = sorted(range(len(places)), key=lambda row: -scores[row])
    closely = order[:WORDS_READ]
    words = await _words(judge, asked, [below[row] for row in closely])
    near: list[float] = (OF_NEAREST * words.mean(axis=1) + OF_FARTHEST * words.min(axis=1)).tolist()
    order = _raised(scores, order, near)
    first = places[order[0]][0]
    nearest = words[[place for place, row in enumerate(closely) if places[row][0] == first]].max(axis=0)
    # The lead is that over the shortlisted sentences, however many more are read, because TOLD is set for these.
    shortlist = set(picked)
    beside = [cosine for place, cosine in zip(places, cosines, strict=True) if place in shortlist]
    fit = _ahead_of(beside) + OF_LEAST * float(nearest.min())
    best = [row for row in order[:WORDS_READ] if scores[row] >= scores[order[0]] - CLOSE]
    among = await judge.cosines(
        asked.text, [laid[number].among(index) for number, index in (places[row] for row in best)]
    )
    by_words = dict(zip(closely, near, strict=True))
    more = [
        cosine - cosines[row] + WORDS_AMONG * by_words[row]
        for row, cosine in zip(best, among.tolist(), strict=True)
    ]
    order = _raised(scores, order, more)
    quotes = [_quote(laid, places[row], scores[row]) for row in order]
    return Judged(quotes, dict(zip(quotes, (cosines[row] for row in order), strict=True)), fit)


def _raised(scores: list[float], order: list[int], more: list[float]) -> list[int]:
    """Add to the scores of the first rows, and the least of it to the others, which so stay behind; return the new order."""
    for row, one in zip(order, more + [min(more)] * (len(order) - len(more)), strict=True):
        scores[row] += one
    return sorted(order, key=lambda row: -scores[row])


async def _whole(judge: Judge, asked: Question, laid: list[Laid]) -> dict[int, float]:
    """Return the cosines of the passages that the judge reads as a whole, or has read ahead, by their numbers."""
    read = [number for number, one in enumerate(laid) if one.ahead is None and number < PASSAGES]
    vectors = await judge.embed([asked.text, *(laid[number].in_context for number in read)])
    cosines = {number: one.ahead for number, one in enumerate(laid) if one.ahead is not None}
    return cosines | dict(zip(read, (vectors[1:] @ vectors[0]).tolist(), strict=True))


def _best(asked: Question, laid: list[Laid], whole: dict[int, float]) -> set[int]:
    """Return the numbers of the passages of which every sentence is read."""

    def fits(number: int) -> float:
        text = laid[number].in_context
        return whole[number] + OF_EXACT * asked.exact(text) + OF_CODES * asked.coded(text)

    return set(heapq.nlargest(WHOLLY, whole, key=fits))


async def _sifted(
    embedder: Embedder, asked: Question, laid: list[Laid], places: list[_Place]
) -> list[_Place]:
    """Return the JUDGED best places by the static vectors and the question's words."""
    below = [laid[number].below[index] for number, index in places]
    values = (await embedder.embed([asked.text, *below], too_long="truncate")).values
    return await threads.processor(_sifted_by, values, asked, laid, places)


def _sifted_by(
    values: NDArray[np.float32], asked: Question, laid: list[Laid], places: list[_Place]
) -> list[_Place]:
    """Return the JUDGED best places; the first row of `values` is the question's."""
    import numpy as np

    below = [laid[number].below[index] for number, index in places]
    first = values[1:] @ values[0] + np.array(
        [OF_WORDS * asked.overlap(text) + asked.exact(text) for text in below]
    )
    coded = [OF_CODES * asked.coded(one.in_context) for one in laid]
    first += np.array([coded[number] for number, _ in places])
    return [places[place] for place in sorted(np.argsort(-first, kind="stable")[:JUDGED])]


def _scores(
    asked: Question,
    laid: list[Laid],
    places: list[_Place],
    vectors: NDArray[np.float32],
    whole: dict[int, float],
) -> list[float]:
    """Score each sentence by its own vector and its passage's. The first row of `vectors` is the question's."""
    import numpy as np

    of_passage: dict[int, float] = {}
    for number in {number for number, _ in places}:
        text = laid[number].in_context
        if (cosine := whole.get(number)) is None:
            rows = [row for row, place in enumerate(places, 1) if place[0] == number]
            mean = vectors[rows].mean(axis=0)
            cosine = float(mean @ vectors[0]) / max(float(np.linalg.norm(mean)), 1e-9)
        of_passage[number] = OF_PASSAGE * (cosine + OF_EXACT * asked.exact(text)) + OF_CODES * asked.coded(
            text
        )
    scores: list[float] = []
    for (number, index), cosine in zip(places, (vectors[1:] @ vectors[0]).tolist(), strict=True):
        unit, text = laid[number].parts[index], laid[number].text
        said = text[unit.start : unit.end]
        fragment = FRAGMENT * (len(said.split()) < 3)
        scores.append(cosine + of_passage[number] + OF_EXACT * asked.exact(said) - fragment)
    return scores


async def _words(judge: Judge, asked: Question, texts: list[str]) -> NDArray[np.float32]:
    """Return how near each text comes to each telling word of the question, of shape (texts, words)."""
    import numpy as np

    words, nearest = await judge.words(asked.text, texts)
    if not words:  # for instance, the question is "\u200b"
        return np.zeros((len(texts), 1), np.float32)
    telling = [place for place, word in enumerate(words) if asked.tells(word)] or [*range(len(words))]
    return nearest[:, telling]


def _quote(laid: list[Laid], place: _Place, score: float) -> Quote:
    number, index = place
    unit = laid[number].parts[index]
    return Quote(number, unit.start, unit.end, score)


def _ahead_of(cosines: list[float]) -> float:
    """Return the best cosine plus its weighted lead over the mean of the sixth to twentieth."""
    best, *others = sorted(cosines, reverse=True)
    return best + AHEAD * (best - sum((others[4:19] + 15 * [USUAL])[:15]) / 15)
