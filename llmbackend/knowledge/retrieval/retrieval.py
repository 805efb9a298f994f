"""Finds the passages for a question: searches the collections, orders what is found, and marks the hits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ...inference.cached_embedder import CachedEmbedder
from ...inference.rerank import Reranker
from ...schemas import RagSearchRequest, SearchResult
from ...tracing import Clock
from ..collections.collections import Collections
from ..collections.unmet import unmet
from .ahead import ReadingAhead
from .candidates import Candidate
from .ordering import RERANK_DEPTH, ordered
from .own_retriever import retrieved
from .query import EXTRA_CANDIDATES, prepare
from .scope import Scope, scope

NEXT_BEST = 10
"""Candidates that an explanation shows, hits included."""


@dataclass(frozen=True, slots=True)
class Retriever:
    """Finds passages in collections, with the models that are set."""

    collections: Collections
    embedder: CachedEmbedder
    reranker: Reranker
    plugin_seconds: float
    """Seconds that each of a project's own parts may take."""
    reading_ahead: ReadingAhead

    async def search(self, wanted: RagSearchRequest) -> SearchResult:
        """Return the hits for a query or a vector. Raises what `scope` and `candidates` raise."""
        within = await scope(wanted, self.collections)
        found = await self.candidates(within, wanted.query or "", vector=wanted.vector)
        hits = [it.hit for it in found if it.dropped is None]
        return SearchResult.made(
            hits=hits, notes=[] if hits else await unmet(within.collections, within.where)
        )

    async def candidates(
        self,
        within: Scope,
        text: str,
        *,
        clock: Clock | None = None,
        depth: int = 0,
        least_weight: float = 0.0,
        ahead: bool = False,
        vector: Sequence[float] | None = None,
    ) -> list[Candidate]:
        """Return the hits for a text, best first, and the candidates that were dropped: at least `depth` in all, if found.

        For `least_weight` and `vector` see `prepare`. With `ahead`, a hybrid search also uses what the judge has read
        ahead, unless there are filters or a `min_score`. Raises what the embedder, the reranker and a project's own parts
        raise.
        """
        clock, wanted = clock or Clock(), within.wanted
        if within.retriever is not None:
            with clock(f"retriever {within.retriever.name}"):
                found = await retrieved(within.retriever, within, text, self.embedder, self.plugin_seconds)
        else:
            query = await prepare(within, text, self.embedder, clock, least_weight, vector)
            if ahead and query.mode == "hybrid" and not within.where and wanted.min_score is None:
                with clock("read ahead"):
                    await self.reading_ahead.catch_up(within.collections)
                with clock("embed"):
                    read = await self.reading_ahead.cosines(within.collections, query.text)
                query = replace(query, ahead=read)
            limit = wanted.top_k + EXTRA_CANDIDATES
            if wanted.rerank or wanted.postprocessors:
                limit = max(RERANK_DEPTH, wanted.top_k)
            with clock("search"):
                found = await query.best(max(limit, depth), enough=wanted.top_k)
        return await ordered(found, text, within, self.reranker, self.plugin_seconds, clock)
