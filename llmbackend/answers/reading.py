"""Reads passages for an answer without a chat model: which stretches answer the question, and whether any does.

The judge reads the sentences of the passages found, each prefixed by its heading. A static embedder, which reads thousands
of sentences a second, shortlists them. Without a judge that knows the language, the embedder's own vectors decide.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .. import threads
from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from ..knowledge.retrieval.candidates import Candidate
from .choosing import TOLD, judged
from .embedder_fit import ANSWERED, unjudged
from .fitting import Quote
from .layout import Laid, lay
from .passages import Passages, sources
from .question import Question
from .rows import is_row
from .stretches import SURE, UNSURE, Stretch, stretches

READ = 30
"""Passages whose sentences may answer. Of 75 questions that paraphrase their documents (tuning and held-out halves
together), 59 answers contain the fact; with 20 passages 57, with five 53.

More passages do not help. Of 54 other questions worded differently from the texts, 42 have the fact among 30 passages
and 50 among 60, but 25 answers contain it either way (the judge read 45 words of each of the 60 instead of 20 whole ones).
"""

DENSE_WEIGHT = 2.0
"""The least weight of the dense list here: it matters which passages are read, not in which order.

Of 163 questions that paraphrase 2,000 passages (a tuning and a held-out half), 70 and 74 have the right passage among
those read, and 44 and 46 answers contain the fact; with the usual weight of static vectors (.3), 58 and 69, and 35 and 43.
The judge's own vectors of all passages would reach 75 and 78.
"""

OF_CODE = 0.3
"""Added to the fit if the best passage has the question's code. Of 480 questions about codes and amounts in 3,000 similar
passages (ten languages), 463 are answered; without this, 416."""

OF_UNKNOWN = 0.1
"""Subtracted from the fit if no passage has a name or number of the question. That is so for 33 of 206 questions that the
documents do not answer, and for 5 of 163 that they do (say, a question about France answered for all of Europe)."""

ORDERING = {"rerank", "retriever", "postprocessed"}
"""Scores whose order is kept: those of a reranker and of a project's own parts."""

ENGLISH = 0.08
"""The share of common English words from which a text counts as English: it is .02 in German, about .3 in English."""
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
    """Reorder the candidates of a hybrid search by their best sentence, drop those beyond `top_k`, and quote the best.

    Candidates from other searches, a reranker or a project's own parts keep their order.
    """
    may = _readable(candidates)
    others = [one for one in candidates if not any(one is other for other in may)]
    knows, stays = _knows(judge, question, may), _stays(may)
    # In threads, because a long question may have thousands of codes and names, each looked for in every sentence.
    asked = await threads.processor(Question, question, [one.chunk.in_context for one in may])
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
    quotes, certain = await threads.processor(_certain, asked, laid, quotes)
    fit += certain
    if knows and not stays:
        for quote in reversed(quotes):
            of = laid[quote.text].candidate
            of.score = quote.score
            of.scores = {**of.scores, "judge": cosines[quote], "judged": quote.score}
        # By their best sentences; passages without any follow in their old order.
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
    said = await threads.processor(stretches, asked, hits, quotes, SURE if fit >= bar else UNSURE)
    return Reading(passages, said, round(fit, 4), bar, asked.missing)


def _certain(asked: Question, laid: list[Laid], quotes: list[Quote]) -> tuple[list[Quote], float]:
    """Drop quotes of rows that are not asked for; return the rest, and what codes, names and rows add to the fit."""
    exact = asked.exact(laid[quotes[0].text].in_context) if asked.has_code and quotes else 0.0
    quotes, sure = _of_rows_named(asked.text, laid, quotes)
    return quotes, OF_CODE * (exact + sure) - OF_UNKNOWN * bool(asked.unknown)


def _of_rows_named(question: str, laid: list[Laid], quotes: list[Quote]) -> tuple[list[Quote], bool]:
    """Drop the quotes of other rows from tables of which the question names some rows.

    Returns the rest, and whether the first of them is in a row and a column that the question names.
    """
    rows = [one.named(question) for one in laid]
    kept: list[Quote] = []
    sure = False
    for quote in quotes:
        place = laid[quote.text].place_of(quote)
        named = rows[quote.text]
        if named and place not in named and is_row(laid[quote.text].text, laid[quote.text].parts[place]):
            continue
        sure = sure if kept else named.get(place, False)
        kept.append(quote)
    return kept or quotes, sure


def orders(judge: Judge, question: str, candidates: list[Candidate]) -> bool:
    """Return whether `read` will reorder these candidates, so that the search's order does not matter."""
    may = _readable(candidates)
    return _knows(judge, question, may) and not _stays(may)


def _readable(candidates: list[Candidate]) -> list[Candidate]:
    return [one for one in candidates if one.dropped in (None, "top_k")][:READ]


def _knows(judge: Judge, question: str, candidates: Sequence[Candidate]) -> bool:
    return judge.here and is_english([question, *(one.chunk.text for one in candidates[:3])])


def _stays(candidates: Sequence[Candidate]) -> bool:
    """Return whether the candidates keep their order, because another part has set it, or the search was not hybrid."""
    return any(ORDERING & one.scores.keys() or "fused" not in one.scores for one in candidates)


def _hits(candidates: list[Candidate]) -> tuple[list[Candidate], list[Candidate]]:
    hits = [one for one in candidates if one.dropped is None]
    return hits, [one for one in candidates if one.dropped is not None]


def is_english(texts: Iterable[str]) -> bool:
    words = re.findall(r"\w+", " ".join(texts).lower())
    return bool(words) and sum(word in _ENGLISH for word in words) >= ENGLISH * len(words)
