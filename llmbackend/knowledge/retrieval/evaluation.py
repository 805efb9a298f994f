"""Measures how well each search mode finds the expected documents of a collection."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Sequence

from ... import threads, tracing
from ...errors import InvalidRequest
from ...inference.rerank import NoReranker
from ...schemas import EvaluateRequest, Evaluation, GoldQuestion, ModeScores, QuestionScores, Retrieval
from ..collections.collection import Collection
from .measures import ndcg, recall, reciprocal_rank
from .retrieval import Retriever
from .scope import Scope

Progress = Callable[[int, int, str], None]
"""Called with the searches done, all searches, and the current mode."""

CHUNKS = 5
"""Passages to find for each document wanted, because several may be of one long document."""


async def evaluate(
    retriever: Retriever, asked: EvaluateRequest, progress: Progress = lambda done, total, stage: None
) -> Evaluation:
    """Score each mode, over all questions and for each. With a reranker set, "hybrid+rerank" is one more mode.

    Documents are ranked by their best passage. Raises NotFound, and InvalidRequest if gold documents do not exist.
    """
    questions, k = asked.questions, asked.k
    collection = await retriever.collections.get(tracing.current().collection(asked.collection))
    await _require_gold(collection, questions)
    name = collection.manifest.called
    modes = {
        mode: Retrieval(collection=name, top_k=CHUNKS * k, mode=mode)
        for mode in ("dense", "sparse", "hybrid")
    }
    if not isinstance(retriever.reranker, NoReranker):
        modes["hybrid+rerank"] = modes["hybrid"].model_copy(update={"rerank": True})
    scores: list[ModeScores] = []
    each = await threads.processor(_rows, questions)
    total = len(modes) * len(questions)
    progress(0, total, next(iter(modes)))
    for number, (mode, wanted) in enumerate(modes.items()):
        began = time.perf_counter()
        rankings: list[list[str]] = []
        async for ranked in _rankings(retriever, Scope(wanted, [collection], ()), questions):
            rankings.append(ranked[:k])
            progress(number * len(questions) + len(rankings), total, mode)
        ms = 1000 * (time.perf_counter() - began) / len(questions)
        found, mrr, gain, by_question = await threads.processor(_measured, questions, rankings, k)
        scores.append(ModeScores(mode=mode, recall=found, mrr=mrr, ndcg=gain, ms=round(ms, 2)))
        for row, ranked, its in zip(each, rankings, by_question, strict=True):
            row.ndcg[mode] = its
            row.first[mode] = ranked[0] if ranked else None
            row.ranks[mode] = next((rank for rank, it in enumerate(ranked, 1) if it in row.gold), None)
    return Evaluation(collection=name, k=k, scores=scores, questions=each)


async def _require_gold(collection: Collection, questions: Sequence[GoldQuestion]) -> None:
    gold = list(dict.fromkeys(name for question in questions for name in question.relevance))
    there = await collection.known(gold)
    absent = [name for name in gold if name not in there]
    if absent:
        some = ", ".join(map(repr, absent[:3])) + (", …" if len(absent) > 3 else "")
        raise InvalidRequest(
            f"evaluate: {len(absent)} of {len(gold)} gold documents are not in {collection.manifest.called!r}: "
            f"{some}: gold documents are named by their ids, as list_documents returns them",
            details={"collection": collection.manifest.called, "missing": absent[:100]},
        )


async def _rankings(
    retriever: Retriever, scope: Scope, questions: Sequence[GoldQuestion]
) -> AsyncIterator[list[str]]:
    """Yield, for each question, the ids of the documents found, best first."""
    for question in questions:
        found = await retriever.candidates(scope, question.question)
        hits = [it for it in found if it.dropped is None]
        # A duplicate has the rank of its original.
        yield list(dict.fromkeys(it.chunk.document_id for hit in hits for it in [hit, *hit.copies]))


def _rows(questions: Sequence[GoldQuestion]) -> list[QuestionScores]:
    return [
        QuestionScores(
            question=one.question,
            gold=[name for name, relevance in one.relevance.items() if relevance],
            ranks={},
            ndcg={},
            first={},
        )
        for one in questions
    ]


def _measured(
    questions: Sequence[GoldQuestion], rankings: Sequence[Sequence[str]], k: int
) -> tuple[float, float, float, list[float]]:
    """Return recall, MRR and nDCG of the first `k`, averaged over the questions, and the nDCG of each question."""
    pairs = [(question.relevance, ranked) for question, ranked in zip(questions, rankings, strict=True)]
    each = [ndcg(relevance, ranked, k) for relevance, ranked in pairs]
    recalls = sum(recall(relevance, ranked) for relevance, ranked in pairs)
    mrr = sum(reciprocal_rank(relevance, ranked) for relevance, ranked in pairs)
    return recalls / len(pairs), mrr / len(pairs), sum(each) / len(pairs), each
