"""What passages say on a question, where no model phrases it: the stretches that answer it, and whether they do.

The judge reads what may answer: the sentences of the passages that a search has found, each below its heading. A static
embedder, which reads thousands a second, picks those that the judge gets to read. Where there is no judge, or one that
does not know the language, the embedder's own vectors decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ... import threads
from ...inference.embeddings import Embedder
from ...inference.judge import Judge
from ...inference.sentences import Quote
from ..retrieval.candidates import Candidate
from .answerability import ANSWERED, unjudged
from .choosing import TOLD, judged
from .layout import lay
from .passages import Passages, sources
from .question import Question
from .stretches import SURE, UNSURE, Stretch, stretches

READ = 30
"""Passages whose sentences may answer. Of 75 questions in other words than their documents' (development half and held-back half
together), an answer has the fact for 59; from 20 passages for 57, from the first five for 53."""

DENSE_WEIGHT = 2.0
"""What the dense list counts, at least, for what is read: who is first there matters little, but who is among them.

Of 163 questions in other words than those of 2,000 passages (a half to set it by, and a half not looked at), 70 and 74 have
the right passage among those that are read, and 44 and 46 answers the fact; with what a search gives static vectors (.3),
58 and 69, and 35 and 43. The judge's own vectors of all passages, if there were such, would have 75 and 78.
"""

OF_CODE = 0.2
"""What it counts for `found` that the best passage has the code that was asked for. Of 480 questions by codes and amounts
among 3,000 passages that are alike (ten languages), 463 are answered; without it, 416."""

ORDERING = {"rerank", "retriever", "postprocessed"}
"""Scores of what has put passages in an order that stays."""

ENGLISH = 0.08
"""Share of common English words from which on a text is English; German has .02, English some .3."""
# fmt: off
_ENGLISH = frozenset((
    "the", "of", "and", "to", "is", "are", "for", "with", "that", "this", "be", "or", "by", "it", "you", "how", "what",
    "which", "when", "where", "who", "does", "do", "can", "a", "not", "from", "must", "have", "has",
))
# fmt: on


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


async def read(
    embedder: Embedder, judge: Judge, question: str, candidates: list[Candidate], top_k: int
) -> Reading:
    """The candidates of a hybrid search in the order in which they answer; those beyond `top_k` are dropped.

    The order of other searches, a reranker's and a project's own parts' stays.
    """
    may = _readable(candidates)
    others = [one for one in candidates if not any(one is other for other in may)]
    knows, stays = _knows(judge, question, may), _stays(may)
    asked = Question(question, [one.chunk.in_context for one in may])
    if not knows or stays:
        may, others = _hits(candidates)
    laid = await threads.processor(lambda: [lay(one) for one in may])
    cosines: dict[Quote, float] = {}
    if knows:
        quotes, cosines, fit = await judged(embedder, judge, asked, laid)
        bar = TOLD
    else:
        quotes, fit = await unjudged(embedder, asked, laid)
        bar = ANSWERED
    if asked.has_code and quotes:
        fit += OF_CODE * asked.exact(laid[quotes[0].text].in_context)
    if knows and not stays:
        for quote in reversed(quotes):
            of = laid[quote.text].candidate
            of.score = quote.score
            of.scores = {**of.scores, "judge": cosines[quote], "judged": quote.score}
        # In the order of their best sentences; those without any keep theirs, behind them.
        order = list(dict.fromkeys([*(quote.text for quote in quotes), *range(len(laid))]))
        quotes = [quote._replace(text=order.index(quote.text)) for quote in quotes]
        laid = [laid[number] for number in order]
    for place, one in enumerate(laid):
        one.candidate.dropped = None if place < top_k else "top_k"
    hits, ordered = laid[:top_k], [*(one.candidate for one in laid), *others]
    quotes = [quote for quote in quotes if quote.text < len(hits)]
    shown = [hits[quote.text].below_headings(asked.stems, quote) for quote in quotes]
    told = await threads.processor(sources, asked.stems, ordered[: len(hits)], shown)
    passages = Passages(question, ordered, told, quotes)
    said = await threads.processor(stretches, asked.stems, hits, quotes, SURE if fit >= bar else UNSURE)
    return Reading(passages, said, round(fit, 4), bar, asked.missing)


def orders(judge: Judge, question: str, candidates: list[Candidate]) -> bool:
    """Whether the judge is going to put them in order: whom the search puts first does not matter then."""
    may = _readable(candidates)
    return _knows(judge, question, may) and not _stays(may)


def _readable(candidates: list[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.dropped in (None, "top_k")][:READ]


def _knows(judge: Judge, question: str, candidates: Sequence[Candidate]) -> bool:
    return judge.here and is_english([question, *(one.chunk.text for one in candidates[:3])])


def _stays(candidates: Sequence[Candidate]) -> bool:
    """Whether they are in somebody else's order, or of a search that is not hybrid."""
    return any(ORDERING & one.scores.keys() or "fused" not in one.scores for one in candidates)


def _hits(candidates: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    hits = [one for one in candidates if one.dropped is None]
    return hits, [one for one in candidates if one.dropped is not None]


def is_english(texts: Iterable[str]) -> bool:
    words = re.findall(r"\w+", " ".join(texts).lower())
    return bool(words) and sum(word in _ENGLISH for word in words) >= ENGLISH * len(words)
