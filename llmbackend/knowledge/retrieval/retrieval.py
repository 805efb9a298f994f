"""A question into passages: embed it once, search all collections, fuse, leave copies out, rerank, cut."""

from __future__ import annotations

from asyncio import gather
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ... import threads
from ...inference.embeddings import Embedder
from ...inference.rerank import Reranker
from ...schemas import Hit, Place, Retrieval
from ...tracing import Clock
from ..collections.collection import Collection
from ..engines.filters import Condition, conditions
from ..engines.vectors import RRF_K, RRF_WEIGHTS, Chunk, Mode, fusion_depth
from .duplicates import originals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RERANK_DEPTH = 50
"""How many passages a reranker reads for an answer of up to as many."""

SPARE = 2

DEEPEST = 4_000
"""How many are looked at where most of what was found are copies."""

FEW_CHARACTERS = 2**16
"""Of texts that are compared on the loop, which is over before a thread has begun."""

NEXT_BEST = 10
"""How many that are no hits a trace shows."""

Dropped = Literal["duplicate", "min_score", "top_k", "budget"]
SCORE: dict[Mode, str] = {"dense": "dense", "sparse": "sparse", "hybrid": "fused"}


@dataclass(slots=True)
class Candidate:
    """A chunk that may become a hit. `dropped` is why it does not."""

    chunk: Chunk
    collection: str
    score: float
    """What it is ordered by: the last of its `scores`."""
    scores: dict[str, float]
    """`dense` (cosine), `sparse` (BM25), `fused` (RRF), `rerank` (the reranker's), as far as there are such."""
    dropped: Dropped | None = None
    copies: list[Candidate] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, str, str, int]:
        return self.collection, self.chunk.document_id, self.chunk.hash, self.chunk.number

    @property
    def place(self) -> Place:
        return Place(collection=self.collection, document_id=self.chunk.document_id, chunk=self.chunk.number)

    @property
    def hit(self) -> Hit:
        chunk = self.chunk
        return Hit(
            text=chunk.text,
            score=self.score,
            document_id=chunk.document_id,
            chunk=chunk.number,
            collection=self.collection,
            metadata={**chunk.place, **chunk.metadata},
            duplicates=[copy.place for copy in self.copies],
        )


async def retrieve(
    collections: Sequence[Collection],
    text: str,
    wanted: Retrieval,
    embedder: Embedder,
    reranker: Reranker,
    *,
    clock: Clock | None = None,
    trace: bool = False,
) -> list[Candidate]:
    """The hits for a text, best first, among what was dropped on the way; a trace has more of the latter.

    Raises InvalidRequest for filters that make no sense, and what the embedder and the reranker raise.
    """
    clock = clock or Clock()
    where = conditions(wanted.filters)
    vector = None
    if wanted.mode != "sparse":
        with clock("embed"):
            vector = (await embedder.embed([text])).values[0]
    searching = _Searching(collections, text, vector, wanted.mode, where, trace)
    # A few more than are wanted: where some turn out to be copies, one search still does.
    limit = max(RERANK_DEPTH, wanted.top_k) if wanted.rerank else wanted.top_k + SPARE
    with clock("search"):
        found = await searching.best(max(limit, NEXT_BEST) if trace else limit, enough=wanted.top_k)
    if wanted.rerank:
        with clock("rerank"):
            found = await _reranked(found, text, reranker, None if wanted.rerank is True else wanted.rerank)
    hits = 0
    for candidate in found:
        if candidate.dropped is None:
            if wanted.min_score is not None and candidate.score < wanted.min_score:
                candidate.dropped = "min_score"
            elif hits == wanted.top_k:
                candidate.dropped = "top_k"
            else:
                hits += 1
    return found


@dataclass(frozen=True, slots=True)
class _Searching:
    """One text, searched for in some collections."""

    collections: Sequence[Collection]
    text: str
    vector: NDArray[np.float32] | None
    mode: Mode
    where: Sequence[Condition]
    trace: bool

    async def best(self, limit: int, enough: int) -> list[Candidate]:
        """The `limit` best, copies marked; more, if need be, until `enough` of them are none."""
        for _ in range(3):
            found = await self._found(limit)
            texts = [candidate.chunk.text for candidate in found]
            few = sum(map(len, texts)) <= FEW_CHARACTERS
            firsts = originals(texts) if few else await threads.processor(originals, texts)
            for index, (first, candidate) in enumerate(zip(firsts, found, strict=True)):
                if first != index:
                    candidate.dropped = "duplicate"
                    found[first].copies.append(candidate)
            if len(set(firsts)) >= enough or len(found) < limit:
                break
            limit = min(4 * limit, max(limit, DEEPEST))
        return found

    async def _found(self, limit: int) -> list[Candidate]:
        if self.mode != "hybrid":
            return await self._list(self.mode, limit)
        one = len(self.collections) == 1
        if one and not self.trace:
            return await self._list("hybrid", limit)
        depth = fusion_depth(limit)
        dense, sparse = await gather(self._list("dense", depth), self._list("sparse", depth))
        # Of one collection, the engine's own fusion, so that a trace tells of what happens without it.
        fused = await self._list("hybrid", limit) if one else fuse(dense, sparse)[:limit]
        scores = {
            mode: {it.key: it.score for it in its} for mode, its in (("dense", dense), ("sparse", sparse))
        }
        for candidate in fused:
            told = {mode: of[candidate.key] for mode, of in scores.items() if candidate.key in of}
            candidate.scores = {**told, **candidate.scores}
        return fused

    async def _list(self, mode: Mode, limit: int) -> list[Candidate]:
        """The `limit` best of all collections: a cosine is a cosine, BM25's scores compare well enough."""
        if len(self.collections) == 1:
            return await self._of(self.collections[0], mode, limit)
        lists = await gather(*(self._of(collection, mode, limit) for collection in self.collections))
        return sorted((it for its in lists for it in its), key=lambda it: -it.score)[:limit]

    async def _of(self, collection: Collection, mode: Mode, limit: int) -> list[Candidate]:
        def look() -> list[Candidate]:
            vector = None if mode == "sparse" else self.vector
            found = collection.index.search(self.text, vector, mode=mode, top_k=limit, conditions=self.where)
            name = collection.manifest.name
            return [Candidate(chunk, name, score, {SCORE[mode]: score}) for chunk, score in found]

        return await collection.run(look)


def fuse(dense: Sequence[Candidate], sparse: Sequence[Candidate]) -> list[Candidate]:
    """Both lists in one by Qdrant's weighted reciprocal rank fusion, as the engines do it for one collection."""
    fused: dict[tuple[str, str, str, int], Candidate] = {}
    for its, weight in zip((dense, sparse), RRF_WEIGHTS, strict=True):
        for rank, it in enumerate(its, start=1):
            candidate = fused.setdefault(it.key, Candidate(it.chunk, it.collection, 0.0, {}))
            candidate.score += 1 / (RRF_K + rank / weight - 1)
    best = sorted(fused.values(), key=lambda candidate: -candidate.score)
    for candidate in best:
        candidate.scores["fused"] = candidate.score
    return best


async def _reranked(
    found: list[Candidate], text: str, reranker: Reranker, model: str | None
) -> list[Candidate]:
    """In the reranker's order; it does not read copies, which come last."""
    kept = [candidate for candidate in found if candidate.dropped is None]
    ranks = await reranker.rerank(text, [candidate.chunk.in_context for candidate in kept], model)
    for candidate, score in zip(kept, ranks.scores, strict=True):
        candidate.score = candidate.scores["rerank"] = score
    kept.sort(key=lambda candidate: -candidate.score)
    return kept + [candidate for candidate in found if candidate.dropped is not None]
