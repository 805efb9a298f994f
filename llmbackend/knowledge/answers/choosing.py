"""Which sentences answer a question, by the judge: a static embedder picks those that it gets to read."""

from __future__ import annotations

from typing import NamedTuple

from ...inference.embeddings import Embedder
from ...inference.judge import Judge
from ...inference.sentences import Quote, stems
from .layout import Laid
from .question import Question

JUDGED = 24
"""Sentences that the judge reads, of some 250. Of 163 questions in other words than their documents' (two handbooks, four
manuals), an answer has the fact for 109; with 32 for 107, with 48 for 108, with 64 for 108; `found` is told as well by all."""

READ_UNSIFTED = 12
"""Passages, where the embedder is no faster than the judge, which then reads all of their sentences."""

OF_WORDS = 0.3
"""What the share of the question's words that a sentence has counts beside the static vectors' cosine, for being read."""

OF_PASSAGE = 0.3
"""What the mean of a passage's sentences counts beside a sentence's own cosine."""

OF_PASSAGE_AHEAD = 0.8
"""What the passage's own cosine counts instead, where the judge has read ahead; the search's order counts nothing then."""

OF_EXACT = 0.3
"""What a code, number or name of the question counts: more than any two sentences about it differ by."""

OF_PLACE = 0.004
"""What each passage that the search found before costs."""

FRAGMENT = 0.1

AHEAD = 0.5
"""What it counts, for `found`, how far the best sentence is ahead of the sixth to twentieth."""

USUAL = 0.1
"""The cosine of sentences that there are too few of, for that: what those about other things have."""

TOLD = 0.57
"""From which evidence on the judge's best counts as an answer.

On questions in other words than the texts' (Debian's FAQ and reference, a handbook, a router's manual), it lets 31 of 38
through and holds back 32 of 35 about what such texts might tell and do not, where it was set; 26 of 37 and 31 of 35
where it was not. Of 69 that ask for what is missing about the very thing a passage is about, it holds back 23: no cosine
tells those apart.
"""

UNKNOWN_WORDS = 0.1
"""What it costs if no passage has any of the question's words."""


class Judged(NamedTuple):
    quotes: list[Quote]
    """The sentences, best first."""
    cosines: dict[Quote, float]
    fit: float
    """How near the best is to the question, by itself and beside others, less what the passages do not know."""


async def judged(embedder: Embedder, judge: Judge, asked: Question, laid: list[Laid]) -> Judged:
    import numpy as np

    places = [
        (number, index)
        for number, one in enumerate(laid)
        for index, unit in enumerate(one.parts)
        if unit.tells
    ]
    known: set[str] = set().union(*(stems(one.in_context) for one in laid))
    unknown = UNKNOWN_WORDS * len(asked.stems - known) / max(1, len(asked.stems))
    if not places:
        return Judged([], {}, -unknown)
    picked = places
    if embedder.name == judge.name:
        picked = places = [place for place in places if place[0] < READ_UNSIFTED]
    elif len(places) > JUDGED:
        below = [laid[number].below[index] for number, index in places]
        values = (await embedder.embed([asked.text, *below], too_long="truncate")).values
        first = values[1:] @ values[0] + np.array(
            [OF_WORDS * asked.overlap(text) + asked.exact(text) for text in below]
        )
        picked = [places[place] for place in sorted(np.argsort(-first, kind="stable")[:JUDGED])]
        # What is read ahead takes no more than a look into the cache.
        chosen = set(picked)
        places = [place for place in places if place in chosen or laid[place[0]].ahead is not None]
    vectors = await judge.embed([asked.text, *(laid[number].below[index] for number, index in places)])
    of_passage: dict[int, float] = {}
    for number in {number for number, _ in places}:
        rows = [row for row, place in enumerate(places, 1) if place[0] == number]
        if (cosine := laid[number].ahead) is None:
            mean = vectors[rows].mean(axis=0)
            cosine = float(mean @ vectors[0]) / max(float(np.linalg.norm(mean)), 1e-9)
        of_passage[number] = cosine + OF_EXACT * asked.exact(laid[number].in_context)
    some_ahead = any(laid[number].ahead is not None for number in of_passage)
    weighs, place_costs = (OF_PASSAGE_AHEAD, 0.0) if some_ahead else (OF_PASSAGE, OF_PLACE)
    cosines: dict[Quote, float] = {}
    for (number, index), cosine in zip(places, (vectors[1:] @ vectors[0]).tolist(), strict=True):
        unit, text = laid[number].parts[index], laid[number].text
        said = text[unit.start : unit.end]
        score = (
            cosine
            + weighs * of_passage[number]
            + OF_EXACT * asked.exact(said)
            - place_costs * number
            - FRAGMENT * (len(said.split()) < 3)
        )
        cosines[Quote(number, unit.start, unit.end, score)] = cosine
    # Beside the same others, whether more are read or not: the bar is set for so many.
    best, among = max(cosines.values()), set(picked)
    read = zip(places, cosines.values(), strict=True)
    others = sorted((cosine for place, cosine in read if place in among), reverse=True)[1:]
    behind = (others[4:19] + 15 * [USUAL])[:15]
    quotes = sorted(cosines, key=lambda quote: -quote.score)
    return Judged(quotes, cosines, best + AHEAD * (best - sum(behind) / 15) - unknown)
