"""The sentences that answer a question, by the judge; a static embedder shortlists what the judge reads."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, NamedTuple

from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from .fitting import Quote
from .layout import Laid
from .question import Question

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JUDGED = 24
"""Sentences that the judge reads, of some 250, besides those of the best passages. With 32, 48 and 64 the answers are as good."""

PASSAGES = 20
"""Passages that the judge reads as wholes: the first ones of the search."""

WHOLLY = 5
"""The best of them, by its cosines, whose every sentence it reads.

Of 113 questions in other words than their documents' (handbooks and manuals of up to 2,000 passages), on which no constant was
set, an answer has the fact for 79, and for 70 where the judge reads sentences alone.
"""

READ_UNSIFTED = 12
"""Passages whose every sentence the judge reads when the embedder, being the same model, is no faster."""

OF_WORDS = 0.3
"""Weight of the share of the question's words in a sentence, beside the static cosine, when shortlisting."""

OF_PASSAGE = 0.5
"""Weight of the passage's own cosine beside a sentence's."""

OF_EXACT = 0.3
"""Weight of the question's codes, numbers and names in a sentence, and again in its passage."""

OF_CODES = 1.0
"""Weight of the question's codes in a sentence's passage: more than all else that two sentences differ by. Who asks with a
code is not answered from another one's passage, however well that is worded."""

FRAGMENT = 0.1
"""Penalty for a sentence of fewer than three words."""

WORDS_READ = 16
"""Of the sentences, those that come first are read word by word: each word of the question is likened to their nearest."""

OF_NEAREST = 1.0
"""Weight of the mean of that, in a sentence's score."""

OF_FARTHEST = 0.3
"""Weight of how near it comes to the word that it is farthest from."""

AHEAD = 0.5
"""Weight, in `found`, of the best sentence's lead over the sixth to twentieth."""

USUAL = 0.1
"""Cosine that stands in for missing ones if there are fewer than twenty: that of unrelated sentences."""

OF_LEAST = 0.5
"""What it counts, for `found`, how near the best passage comes to the word of the question that it is farthest from: a detail
that is missing is such a word."""

TOLD = 0.76
"""From which evidence on the judge's best counts as an answer, by the `JUDGED` sentences, for which it is set."""


class Judged(NamedTuple):
    quotes: list[Quote]
    """The sentences, best first."""
    cosines: dict[Quote, float]
    fit: float
    """The best sentence's cosine plus its lead over others, less the penalty for unknown words."""


_Place = tuple[int, int]
"""The number of a passage, and of a unit in it."""


async def judged(embedder: Embedder, judge: Judge, asked: Question, laid: list[Laid]) -> Judged:
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
        best = _best(asked, laid, whole)
        places = [place for place in places if place in chosen or place[0] in best]
    below = [laid[number].below[index] for number, index in places]
    vectors = await judge.embed([asked.text, *below])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    scores = _scores(asked, laid, places, vectors, whole)
    order = sorted(range(len(places)), key=lambda row: -scores[row])
    closely, others = order[:WORDS_READ], order[WORDS_READ:]
    words = await _words(judge, asked, [below[row] for row in closely])
    near: list[float] = (OF_NEAREST * words.mean(axis=1) + OF_FARTHEST * words.min(axis=1)).tolist()
    for row, more in zip(order, near + [min(near)] * len(others), strict=True):
        scores[row] += more
    order = sorted(closely, key=lambda row: -scores[row]) + others
    first = places[order[0]][0]
    nearest = words[[place for place, row in enumerate(closely) if places[row][0] == first]].max(axis=0)
    quotes = [_quote(laid, places[row], scores[row]) for row in order]
    # Compared with the same sentences, however many more are read: the bar is set for those.
    among = set(picked)
    beside = [cosine for place, cosine in zip(places, cosines, strict=True) if place in among]
    fit = _ahead_of(beside) + OF_LEAST * float(nearest.min())
    return Judged(quotes, dict(zip(quotes, (cosines[row] for row in order), strict=True)), fit)


async def _whole(judge: Judge, asked: Question, laid: list[Laid]) -> dict[int, float]:
    """The cosines of the passages that the judge reads as wholes, or has read ahead."""
    read = [number for number, one in enumerate(laid) if one.ahead is None and number < PASSAGES]
    vectors = await judge.embed([asked.text, *(laid[number].in_context for number in read)])
    cosines = {number: one.ahead for number, one in enumerate(laid) if one.ahead is not None}
    return cosines | dict(zip(read, (vectors[1:] @ vectors[0]).tolist(), strict=True))


def _best(asked: Question, laid: list[Laid], whole: dict[int, float]) -> set[int]:
    """The passages whose every sentence is read."""

    def fits(number: int) -> float:
        text = laid[number].in_context
        return whole[number] + OF_EXACT * asked.exact(text) + OF_CODES * asked.coded(text)

    return set(heapq.nlargest(WHOLLY, whole, key=fits))


async def _sifted(
    embedder: Embedder, asked: Question, laid: list[Laid], places: list[_Place]
) -> list[_Place]:
    """Those that the judge reads, by the static vectors and the question's words."""
    import numpy as np

    below = [laid[number].below[index] for number, index in places]
    values = (await embedder.embed([asked.text, *below], too_long="truncate")).values
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
    """How well each sentence answers, by its own vector and its passage's; the first vector is the question's."""
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
    """How near each text comes to each word of the question that tells what is asked for."""
    import numpy as np

    words, nearest = await judge.words(asked.text, texts)
    if not words:  # of "\u200b", say
        return np.zeros((len(texts), 1), np.float32)
    telling = [place for place, word in enumerate(words) if asked.tells(word)] or [*range(len(words))]
    return nearest[:, telling]


def _quote(laid: list[Laid], place: _Place, score: float) -> Quote:
    number, index = place
    unit = laid[number].parts[index]
    return Quote(number, unit.start, unit.end, score)


def _ahead_of(cosines: list[float]) -> float:
    """The best cosine, and how far it is ahead of the sixth to twentieth."""
    best, *others = sorted(cosines, reverse=True)
    return best + AHEAD * (best - sum((others[4:19] + 15 * [USUAL])[:15]) / 15)
