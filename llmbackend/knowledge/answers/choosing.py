"""The sentences that answer a question, by the judge; a static embedder shortlists what the judge reads."""

from __future__ import annotations

from typing import NamedTuple

from ...inference.embeddings import Embedder
from ...inference.judge import Judge
from ...inference.sentences import Quote, stems
from .layout import Laid
from .question import Question

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
"""Weight of the question's codes, numbers and names: more than two sentences about one of them ever differ by."""

OF_PLACE = 0.004
"""Penalty for each passage that the search ranked higher."""

FRAGMENT = 0.1
"""Penalty for a sentence of fewer than three words."""

AHEAD = 0.5
"""Weight, in `found`, of the best sentence's lead over the sixth to twentieth."""

USUAL = 0.1
"""Cosine that stands in for missing ones if there are fewer than twenty: that of unrelated sentences."""

TOLD = 0.57
"""The fit from which the judge's best sentence counts as an answer.

On questions that paraphrase the texts (Debian's FAQ and reference, a handbook, a router's manual), it accepts 31 of 38
and rejects 32 of 35 that such texts might answer but do not, on the half it was tuned on; 26 of 37 and 31 of 35 on the
other half. It rejects 23 of 69 that ask for a missing detail of a passage's very subject: no cosine tells those apart.
"""

UNKNOWN_WORDS = 0.1
"""Penalty if the passages have none of the question's words; in proportion if they have some."""


class Judged(NamedTuple):
    quotes: list[Quote]
    """The sentences, best first."""
    cosines: dict[Quote, float]
    fit: float
    """The best sentence's cosine plus its lead over others, less the penalty for unknown words."""


async def judged(embedder: Embedder, judge: Judge, asked: Question, laid: list[Laid]) -> Judged:
    """Score with the judge's cosines the sentences that the embedder shortlists."""
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
        # Sentences read ahead cost only a cache lookup.
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
    # Compare with the shortlist only, even if more were read: the bar is tuned for that many.
    best, among = max(cosines.values()), set(picked)
    read = zip(places, cosines.values(), strict=True)
    others = sorted((cosine for place, cosine in read if place in among), reverse=True)[1:]
    behind = (others[4:19] + 15 * [USUAL])[:15]
    quotes = sorted(cosines, key=lambda quote: -quote.score)
    return Judged(quotes, cosines, best + AHEAD * (best - sum(behind) / 15) - unknown)
