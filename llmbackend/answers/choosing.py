"""The sentences that answer a question, by the judge; a static embedder shortlists what the judge reads."""

from __future__ import annotations

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
"""Sentences that the judge reads, of some 250. For 109 of 163 questions that paraphrase their documents (two handbooks,
four manuals) the answer has the fact; with 32 sentences for 107, with 48 and with 64 for 108. `found` is as good with each."""

READ_UNSIFTED = 12
"""Passages whose every sentence the judge reads when the embedder, being the same model, is no faster."""

OF_WORDS = 0.3
"""Weight of the share of the question's words in a sentence, beside the static cosine, when shortlisting."""

OF_PASSAGE = 0.3
"""Weight of the mean of a passage's sentences, beside a sentence's own cosine."""

OF_PASSAGE_AHEAD = 0.8
"""Weight of the passage's own cosine instead, if the judge has read it ahead; the search's order then has none."""

OF_EXACT = 0.3
"""Weight of the question's codes, numbers and names in a sentence, and again in its passage."""

OF_CODES = 1.0
"""Weight of the question's codes in a sentence's passage: more than all else that two sentences differ by. Who asks with a
code is not answered from another one's passage, however well that is worded."""

OF_PLACE = 0.004
"""Penalty for each passage that the search ranked higher."""

FRAGMENT = 0.1
"""Penalty for a sentence of fewer than three words."""

AHEAD = 0.5
"""Weight, in `found`, of the best sentence's lead over the sixth to twentieth."""

USUAL = 0.1
"""Cosine that stands in for missing ones if there are fewer than twenty: that of unrelated sentences."""

WORDS_READ = 16
"""Of the sentences, those that come first are read word by word: each word of the question is likened to their nearest."""

OF_NEAREST = 1.0
"""What the mean of that counts beside the rest. Of 163 questions in other words than their documents', an answer has the fact
for 112 (124 where the judge has read ahead); without it, for 109 (119)."""

OF_LEAST = 0.5
"""What it counts, for `found`, how near the best passage comes to the word of the question that it is farthest from: a detail
that is missing is such a word."""

TOLD = 0.76
"""From which evidence on the judge's best counts as an answer.

On questions in other words than the texts' (Debian's FAQ and reference, three handbooks, three manuals), it lets 73 % of 82
through and holds back 73 % of 102 about what such texts might tell and do not, and 67 % of the 82 where the passages that
tell are taken away; on the half that nothing was set on, 67 % of 81, 72 % of 104 and 68 % of 81. Without `OF_LEAST`, as
many are let through and 63 % and 60 % held back: no cosine of sentences tells that a detail is missing.
"""


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
    if embedder.name == judge.name:
        picked = places = [place for place in places if place[0] < READ_UNSIFTED]
    elif len(places) > JUDGED:
        picked = await _sifted(embedder, asked, laid, places)
        # Sentences read ahead cost only a cache lookup.
        chosen = set(picked)
        places = [place for place in places if place in chosen or laid[place[0]].ahead is not None]
    below = [laid[number].below[index] for number, index in places]
    vectors = await judge.embed([asked.text, *below])
    cosines: list[float] = (vectors[1:] @ vectors[0]).tolist()
    scores = _scores(asked, laid, places, vectors)
    order = sorted(range(len(places)), key=lambda row: -scores[row])
    closely, others = order[:WORDS_READ], order[WORDS_READ:]
    words = await _words(judge, asked, [below[row] for row in closely])
    means: list[float] = words.mean(axis=1).tolist()
    for row, mean in zip(order, means + [min(means)] * len(others), strict=True):
        scores[row] += OF_NEAREST * mean
    order = sorted(closely, key=lambda row: -scores[row]) + others
    best = places[order[0]][0]
    least = words[[place for place, row in enumerate(closely) if places[row][0] == best]].max(axis=0).min()
    # Compared with the same sentences, however many more are read: the bar is set for that many.
    among = set(picked)
    beside = [cosine for place, cosine in zip(places, cosines, strict=True) if place in among]
    fit = _ahead_of(max(cosines), beside) + OF_LEAST * float(least)
    quotes = [_quote(laid, places[row], scores[row]) for row in order]
    return Judged(quotes, dict(zip(quotes, (cosines[row] for row in order), strict=True)), fit)


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
    asked: Question, laid: list[Laid], places: list[_Place], vectors: NDArray[np.float32]
) -> list[float]:
    """How well each sentence answers, by its own vector and its passage's; the first vector is the question's."""
    import numpy as np

    of_passage: dict[int, float] = {}
    coded: dict[int, float] = {}
    for number in {number for number, _ in places}:
        rows = [row for row, place in enumerate(places, 1) if place[0] == number]
        if (cosine := laid[number].ahead) is None:
            mean = vectors[rows].mean(axis=0)
            cosine = float(mean @ vectors[0]) / max(float(np.linalg.norm(mean)), 1e-9)
        text = laid[number].in_context
        of_passage[number] = cosine + OF_EXACT * asked.exact(text)
        coded[number] = OF_CODES * asked.coded(text)
    some_ahead = any(laid[number].ahead is not None for number in of_passage)
    weighs, place_costs = (OF_PASSAGE_AHEAD, 0.0) if some_ahead else (OF_PASSAGE, OF_PLACE)
    scores: list[float] = []
    for (number, index), cosine in zip(places, (vectors[1:] @ vectors[0]).tolist(), strict=True):
        unit, text = laid[number].parts[index], laid[number].text
        said = text[unit.start : unit.end]
        scores.append(
            cosine
            + weighs * of_passage[number]
            + OF_EXACT * asked.exact(said)
            + coded[number]
            - place_costs * number
            - FRAGMENT * (len(said.split()) < 3)
        )
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


def _ahead_of(best: float, cosines: list[float]) -> float:
    """The best cosine, and how far it is ahead of the sixth to twentieth."""
    behind = (sorted(cosines, reverse=True)[5:20] + 15 * [USUAL])[:15]
    return best + AHEAD * (best - sum(behind) / 15)
