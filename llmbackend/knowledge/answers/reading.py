"""What passages say on a question, where no model phrases it: the stretches that answer it, and whether they do.

The judge reads what may answer: the sentences of the passages that a search has found, each below its heading. A static
embedder, which reads thousands a second, picks those that the judge gets to read. Where there is no judge, or one that
does not know the language, the embedder's own vectors decide.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ... import threads
from ...inference.embeddings import Embedder
from ...inference.judge import Judge
from ...inference.sentences import Quote, fitting, stems
from ..retrieval.candidates import Candidate
from .answerability import ANSWERED, fit
from .exact import Exact
from .passages import Passages, above, sources
from .stretches import around, size, written
from .units import Unit, units

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

READ = 30
"""Passages whose sentences may answer. Of 75 questions in other words than their documents' (development half and held-back half
together), an answer has the fact for 59; from 20 passages for 57, from the first five for 53."""

DENSE_WEIGHT = 2.0
"""What the dense list counts, at least, for what is read: who is first there matters little, but who is among them.

Of 163 questions in other words than those of 2,000 passages (a half to set it by, and a half not looked at), 70 and 74 have
the right passage among those that are read, and 44 and 46 answers the fact; with what a search gives static vectors (.3),
58 and 69, and 35 and 43. The judge's own vectors of all passages, if there were such, would have 75 and 78.
"""

JUDGED = 24
"""Sentences that the judge reads, of some 250. Of 163 questions in other words than their documents' (two handbooks, four
manuals), an answer has the fact for 109; with 32 for 107, with 48 for 108, with 64 for 108; `found` is told as well by all."""

READ_UNSIFTED = 12
"""Passages, where the embedder is no faster than the judge, which then reads all of their sentences."""

OF_WORDS = 0.3
"""What the share of the question's words that a sentence has counts beside the static vectors' cosine, for being read."""

OF_PASSAGE = 0.3
"""What the mean of a passage's sentences counts beside a sentence's own cosine."""

OF_EXACT = 0.3
"""What a code, number or name of the question counts: more than any two sentences about it differ by."""

OF_EXACT_UNJUDGED = 1.5
"""The same beside the embedder's score, in which shared words count as much."""

OF_CODE = 0.2
"""What it counts for `found` that the best passage has the code that was asked for. Of 480 questions by codes and amounts
among 3,000 passages that are alike (ten languages), 463 are answered; without it, 416."""

OF_PLACE = 0.004
"""What each passage that the search found before costs."""

ORDERING = {"rerank", "retriever", "postprocessed"}
"""Scores of what has put passages in an order that stays."""

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

SECOND = 0.75
"""What a second passage's score must be of the first's, to be told as well."""

FIRST, BOTH, MOST = 60, 88, 132
"""Words: of the first stretch, of both, and of both at most."""

ENGLISH = 0.08
"""Share of common English words from which on a text is English; German has .02, English some .3."""
# fmt: off
_ENGLISH = frozenset((
    "the", "of", "and", "to", "is", "are", "for", "with", "that", "this", "be", "or", "by", "it", "you", "how", "what",
    "which", "when", "where", "who", "does", "do", "can", "a", "not", "from", "must", "have", "has",
))
# fmt: on


class Stretch(NamedTuple):
    """What is said, and the number of its source, from 0."""

    source: int
    text: str


@dataclass(frozen=True)
class Reading:
    passages: Passages
    stretches: list[Stretch]
    fit: float
    bar: float
    missing: list[str]
    """Codes of the question that no passage has."""

    @property
    def found(self) -> bool:
        return bool(self.stretches) and self.fit >= self.bar and not self.missing


@dataclass(frozen=True)
class _Laid:
    """A passage and what it is made of."""

    candidate: Candidate
    parts: list[Unit]
    below: list[str]
    """Each unit with the heading above it."""
    above: list[list[str]]
    """The headings above each unit, outermost first."""

    @property
    def text(self) -> str:
        return self.candidate.chunk.text


async def read(
    embedder: Embedder, judge: Judge, question: str, candidates: list[Candidate], top_k: int
) -> Reading:
    """The candidates of a hybrid search in the order in which they answer; those beyond `top_k` are dropped.

    The order of other searches, a reranker's and a project's own parts' stays.
    """
    may = _readable(candidates)
    others = [one for one in candidates if not any(one is other for other in may)]
    exact = Exact(question, [one.chunk.in_context for one in may])
    knows, stays = _knows(judge, question, may), _stays(may)
    if not knows or stays:
        may, others = _hits(candidates)
    laid = await threads.processor(lambda: [_lay(one) for one in may])
    if knows:
        quotes, cosines, best = await _judged(embedder, judge, question, laid, exact)
        told, bar = best - UNKNOWN_WORDS * _unknown(question, may), TOLD
    else:
        quotes = await _unjudged(embedder, question, laid, exact)
        told, bar = await fit(embedder, question, [one.chunk.in_context for one in may]), ANSWERED
    if exact.has_code and quotes:
        told += OF_CODE * exact.share(laid[quotes[0].text].candidate.chunk.in_context)
    if knows and not stays:
        for quote in reversed(quotes):
            of = laid[quote.text].candidate
            of.score = quote.score
            of.scores = {**of.scores, "judge": cosines[quote], "judged": quote.score}
        laid, quotes = _ordered(laid, quotes)
    for place, one in enumerate(laid):
        one.candidate.dropped = None if place < top_k else "top_k"
    hits, asked = laid[:top_k], stems(question)
    quotes = [quote for quote in quotes if quote.text < len(hits)]
    ordered = [*(one.candidate for one in laid), *others]
    shown = [_below_headings(asked, hits[quote.text], quote) for quote in quotes]
    told_by = await threads.processor(sources, question, [one.candidate for one in hits], shown)
    passages = Passages(question, ordered, told_by, quotes)
    stretches = await threads.processor(_stretches, asked, hits, quotes)
    return Reading(passages, stretches, round(told, 4), bar, exact.missing)


def orders(judge: Judge, question: str, candidates: list[Candidate]) -> bool:
    """Whether the judge is going to put them in order: whom the search puts first does not matter then."""
    may = _readable(candidates)
    return _knows(judge, question, may) and not _stays(may)


def _readable(candidates: list[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.dropped in (None, "top_k")][:READ]


def _knows(judge: Judge, question: str, candidates: Sequence[Candidate]) -> bool:
    return judge.here and _is_english(question, candidates)


def _stays(candidates: Sequence[Candidate]) -> bool:
    """Whether they are in somebody else's order, or of a search that is not hybrid."""
    return any(ORDERING & one.scores.keys() or "fused" not in one.scores for one in candidates)


def _hits(candidates: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    hits = [one for one in candidates if one.dropped is None]
    return hits, [one for one in candidates if one.dropped is not None]


def _lay(candidate: Candidate) -> _Laid:
    text = candidate.chunk.text
    parts = units(text) or [Unit(0, len(text), "sentence", 0, False)]
    if not any(unit.tells for unit in parts):
        parts = [unit._replace(kind="sentence") for unit in parts]
    outer = candidate.chunk.headings
    heading = outer[-1] if outer else ""
    below: list[str] = []
    above: list[list[str]] = []
    for unit in parts:
        said = " ".join(text[unit.start : unit.end].split())
        if unit.kind == "heading":
            heading = re.sub(r"^#+\s*|[*_`|]+", "", said).strip()
        below.append(f"{heading}: {said}" if heading else said)
        above.append(outer if heading in ("", *outer[-1:]) else [*outer, heading])
    return _Laid(candidate, parts, below, above)


async def _judged(
    embedder: Embedder, judge: Judge, question: str, laid: list[_Laid], exact: Exact
) -> tuple[list[Quote], dict[Quote, float], float]:
    """The sentences, best first, their cosines, and how near the best one is, by itself and beside others."""
    import numpy as np

    places = [
        (number, index)
        for number, one in enumerate(laid)
        for index, unit in enumerate(one.parts)
        if unit.tells
    ]
    if not places:
        return [], {}, 0.0
    sifted = embedder.name != judge.name
    if not sifted:
        places = [place for place in places if place[0] < READ_UNSIFTED]
    elif len(places) > JUDGED:
        below = [laid[number].below[index] for number, index in places]
        values = (await embedder.embed([question, *below], too_long="truncate")).values
        asked = stems(question)
        first = values[1:] @ values[0] + np.array(
            [OF_WORDS * len(asked & stems(text)) / max(1, len(asked)) + exact.share(text) for text in below]
        )
        places = [places[place] for place in sorted(np.argsort(-first, kind="stable")[:JUDGED])]
    vectors = await judge.embed([question, *(laid[number].below[index] for number, index in places)])
    return _scored(laid, places, vectors[1:] @ vectors[0], vectors, exact)


def _scored(
    laid: list[_Laid],
    places: list[tuple[int, int]],
    cosines: NDArray[np.float32],
    vectors: NDArray[np.float32],
    exact: Exact,
) -> tuple[list[Quote], dict[Quote, float], float]:
    import numpy as np

    of: dict[Quote, float] = {}
    of_passage: dict[int, float] = {}
    for number in {number for number, _ in places}:
        rows = [row for row, place in enumerate(places, 1) if place[0] == number]
        mean = vectors[rows].mean(axis=0)
        cosine = float(mean @ vectors[0]) / max(float(np.linalg.norm(mean)), 1e-9)
        of_passage[number] = cosine + OF_EXACT * exact.share(laid[number].candidate.chunk.in_context)
    for (number, index), cosine in zip(places, cosines, strict=True):
        unit, text = laid[number].parts[index], laid[number].text
        said = text[unit.start : unit.end]
        score = (
            float(cosine)
            + OF_PASSAGE * of_passage[number]
            + OF_EXACT * exact.share(said)
            - OF_PLACE * number
            - FRAGMENT * (len(said.split()) < 3)
        )
        of[Quote(number, unit.start, unit.end, score)] = float(cosine)
    best, *others = sorted((float(cosine) for cosine in cosines), reverse=True)
    behind = (others[4:19] + 15 * [USUAL])[:15]
    return sorted(of, key=lambda quote: -quote.score), of, best + AHEAD * (best - sum(behind) / 15)


def _ordered(laid: list[_Laid], quotes: list[Quote]) -> tuple[list[_Laid], list[Quote]]:
    """The passages in the order of their best sentences; those without any keep theirs, behind them."""
    order = list(dict.fromkeys([*(quote.text for quote in quotes), *range(len(laid))]))
    place = {number: new for new, number in enumerate(order)}
    return [laid[number] for number in order], [quote._replace(text=place[quote.text]) for quote in quotes]


async def _unjudged(embedder: Embedder, question: str, laid: list[_Laid], exact: Exact) -> list[Quote]:
    texts = [one.text for one in laid]
    quotes = await fitting(embedder, question, texts) if texts else []
    scored = [
        quote._replace(
            score=quote.score
            + OF_EXACT_UNJUDGED * exact.share(texts[quote.text][quote.start : quote.end])
            + OF_EXACT_UNJUDGED * exact.share(laid[quote.text].candidate.chunk.in_context)
        )
        for quote in quotes
    ]
    return sorted(scored, key=lambda quote: -quote.score)


def _unknown(question: str, candidates: Sequence[Candidate]) -> float:
    """The share of the question's words that no passage has."""
    asked = stems(question)
    told: set[str] = set()
    for candidate in candidates:
        told |= stems(candidate.chunk.in_context)
    return len(asked - told) / max(1, len(asked))


def _is_english(question: str, candidates: Sequence[Candidate]) -> bool:
    words = re.findall(r"\w+", " ".join([question, *(one.chunk.text for one in candidates[:3])]).lower())
    return bool(words) and sum(word in _ENGLISH for word in words) >= ENGLISH * len(words)


def _below_headings(asked: set[str], hit: _Laid, quote: Quote) -> Quote:
    """The quote from the headings right above it on, if these have words that are asked for and that it does not have."""
    place = next((index for index, unit in enumerate(hit.parts) if unit.start == quote.start), 0)
    start, said = quote.start, hit.text[quote.start : quote.end]
    while place and hit.parts[place - 1].kind == "heading":
        place -= 1
        heading = hit.parts[place]
        if above(asked, [hit.text[heading.start : heading.end]], said):
            start, said = heading.start, hit.text[heading.start : quote.end]
    return quote._replace(start=start)


def _stretches(asked: set[str], hits: list[_Laid], quotes: list[Quote]) -> list[Stretch]:
    """One of the best passage, and one of the next that has something to add, each below what of its headings is asked."""
    told: list[Stretch] = []
    said: set[str] = set()
    left = BOTH
    for quote in quotes:
        hit = hits[quote.text]
        if told and quote.score < SECOND * quotes[0].score:
            break
        if any(stretch.source == quote.text for stretch in told):
            continue
        best = next((place for place, unit in enumerate(hit.parts) if unit.end > quote.start), 0)
        if told and _plain(hit, best) in said:
            continue
        most = MOST - (BOTH - left)
        chosen = around(hit.text, hit.parts, best, left if told else FIRST, most)
        chosen = [place for place in chosen if _plain(hit, place) not in said]
        if not chosen:
            continue
        said.update(_plain(hit, place) for place in chosen)
        text = written(hit.text, hit.parts, chosen, most)
        told.append(Stretch(quote.text, "\n\n".join([*above(asked, hit.above[best], text), text])))
        left -= size(text)
        if len(told) == 2 or left < 15:
            break
    return told


def _plain(hit: _Laid, place: int) -> str:
    unit = hit.parts[place]
    return " ".join(re.findall(r"\w+", hit.text[unit.start : unit.end].lower()))
