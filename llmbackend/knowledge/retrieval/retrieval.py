"""A question into passages: embed it once, search all collections, fuse, leave copies out, rerank, cut."""

from __future__ import annotations

import heapq
import uuid
from asyncio import gather
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from statistics import fmean, pstdev
from typing import TYPE_CHECKING, Any

from ... import plugins, threads, tracing
from ...errors import InvalidRequest
from ...inference.cache import CachedEmbedder
from ...inference.embeddings import spelt
from ...inference.judge import Judge
from ...inference.rerank import Reranker
from ...schemas import Retrieval
from ...tracing import Clock
from ..collections.collection import Collection
from ..collections.collections import Collections
from ..engines import fusion
from ..engines.filters import Condition, conditions
from ..engines.interface import LISTS, TRIES, Chunk, Found, List, Mode, one_version
from ..engines.legible import legible
from . import own_parts
from .candidates import Candidate
from .duplicates import originals
from .unmet import unmet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

JUDGED = 20
"""How many passages the judge reads. It is slow: as many as may still become one of the first five."""

JUDGED_WEIGHT, JUDGED_SPREAD = 0.7, 0.15
"""What a deviation of its cosines counts beside one of the search's scores, and the least that is a deviation.

Of 120 titles or sentences each, the right passage's nDCG goes from .85, .72 and .43 (English) and .81 (German) to .91,
.75, .47 and .82; by its cosines alone to .89, .72, .48 and .71. Cosines of passages that are alike but for a code differ
by .02 to .05: without a least, they would put another one's passage first.
"""

RERANK_DEPTH = 50
"""How many passages a reranker, or a project's own postprocessors, read for an answer of up to as many."""

EXTRA_CANDIDATES = 2

DEEPEST = 4_000
"""How many are looked at where most of what was found are copies."""

NEXT_BEST = 10
"""How many that are no hits a trace shows."""

_Key = tuple[str, uuid.UUID]
"""A collection's name, and a point in it."""


@dataclass(frozen=True, slots=True)
class Retriever:
    """Finds passages in collections by their names, with the models that are set."""

    collections: Collections
    embedder: CachedEmbedder
    reranker: Reranker
    judge: Judge
    plugin_seconds: float
    """What each of a project's own parts may take."""

    async def candidates(
        self,
        wanted: Retrieval,
        text: str,
        *,
        clock: Clock | None = None,
        depth: int = 0,
        judged: bool = False,
        least_weight: float = 0.0,
        vector: Sequence[float] | None = None,
    ) -> list[Candidate]:
        """As `retrieve`, in the collections that are wanted; raises NotFound for one that there is not.

        The judge has a say where `judged`, and where it is here.
        """
        return await retrieve(
            await self._wanted(wanted),
            text,
            wanted,
            self.embedder,
            self.reranker,
            judge=self.judge if judged and self.judge.here else None,
            clock=clock,
            depth=depth,
            plugin_seconds=self.plugin_seconds,
            least_weight=least_weight,
            vector=vector,
        )

    async def unmet(self, wanted: Retrieval) -> list[str]:
        """What its filters ask for that the collections' documents do not have."""
        return await unmet(await self._wanted(wanted), wanted.filters or {})

    async def _wanted(self, wanted: Retrieval) -> list[Collection]:
        names = [wanted.collection] if isinstance(wanted.collection, str) else wanted.collection
        found = dict.fromkeys(map(tracing.current().collection, names))
        return [await self.collections.get(name) for name in found]


async def retrieve(
    collections: Sequence[Collection],
    text: str,
    wanted: Retrieval,
    embedder: CachedEmbedder,
    reranker: Reranker,
    *,
    judge: Judge | None = None,
    clock: Clock | None = None,
    depth: int = 0,
    plugin_seconds: float = plugins.SECONDS,
    least_weight: float = 0.0,
    vector: Sequence[float] | None = None,
) -> list[Candidate]:
    """The hits for a text, best first, among what was dropped on the way: `depth` of them together, if there are as many.

    The judge has a say in a hybrid search where it reads better than the model that embedded the collections.
    `least_weight` is what the dense list counts at least, unless its model has to spell the text, or a bar is set, which is
    on the search's own scale.

    With a `vector`, nothing is embedded; without a text, that alone is searched for.

    Raises InvalidRequest for filters that make no sense, and what the embedder, the reranker and a project's own parts
    raise, which may take `plugin_seconds` each.
    """
    clock = clock or Clock()
    part = own_parts.require(wanted)
    if part is None:
        found, judge = await _searched(
            collections, text, wanted, embedder, judge, clock, depth, least_weight, vector
        )
    else:

        async def find(query: str, asked: Retrieval) -> list[Candidate]:
            return (await _searched(collections, query, asked, embedder, None, Clock(), 0, 0.0))[0]

        names = [collection.name for collection in collections]
        found, judge = await own_parts.retrieved(part, text, wanted, names, find, plugin_seconds, clock), None
    if wanted.rerank:
        with clock("rerank"):
            found = await _reranked(found, text, reranker, None if wanted.rerank is True else wanted.rerank)
    if judge:
        with clock("judge"):
            found = await _judged(found, text, judge)
    if wanted.postprocessors:
        found = await own_parts.postprocessed(wanted.postprocessors, text, found, plugin_seconds, clock)
    hits = 0
    for candidate in found:
        if candidate.dropped is None:
            # The bar is on the search's own scale, whoever else has read the passages for an answer.
            score = candidate.scores["fused"] if judge else candidate.score
            if wanted.min_score is not None and score < wanted.min_score:
                candidate.dropped = "min_score"
            elif hits == wanted.top_k:
                candidate.dropped = "top_k"
            else:
                hits += 1
    return found


async def _searched(
    collections: Sequence[Collection],
    text: str,
    wanted: Retrieval,
    embedder: CachedEmbedder,
    judge: Judge | None,
    clock: Clock,
    depth: int,
    least_weight: float,
    given: Sequence[float] | None = None,
) -> tuple[list[Candidate], Judge | None]:
    """What a search finds, for what follows to order or cut, and the judge, if it is to have a say."""
    text = legible(text)  # as what is stored was
    where = conditions(wanted.filters)
    vector, weight = None, 1.0
    mode: Mode = wanted.mode if text else "dense"
    if given is not None:
        vector = _unit(given, collections)
    elif mode != "sparse":
        with clock("embed"):
            vectors = await embedder.embed([text], role="query")
        for collection in collections:
            if vectors.made_by is not None:
                await collection.accept(vectors.made_by)
        vector, weight = vectors.values[0], embedder.weight(text, vectors.tokens[0])
        if wanted.min_score is None and not spelt(text, vectors.tokens[0] or 0):
            weight = max(weight, least_weight)
    searching = _Searching(collections, text, vector, mode, where, weight)
    # A few more than are wanted: where some turn out to be copies, one search still does.
    ordered = wanted.rerank or wanted.postprocessors
    limit = max(RERANK_DEPTH, wanted.top_k) if ordered else wanted.top_k + EXTRA_CANDIDATES
    if judge and (mode != "hybrid" or wanted.rerank or await judge.weight(text) <= weight):
        judge = None
    if judge:
        limit = max(JUDGED, limit)
    with clock("search"):
        if where:
            await gather(*(collection.prepare(where) for collection in collections))
        return await searching.best(max(limit, depth), enough=wanted.top_k), judge


def _unit(given: Sequence[float], collections: Sequence[Collection]) -> NDArray[np.float32]:
    """The vector with the length that those stored have; raises InvalidRequest for one of another dimension."""
    import numpy as np

    for collection in collections:
        dimension = collection.manifest.dimension
        if len(given) != dimension:
            raise InvalidRequest(
                f"vector: it has {len(given)} numbers, and those of the collection {collection.name!r} have {dimension}: "
                f"embed it by {collection.manifest.embedding_model!r}",
                details={"dimension": dimension, "collection": collection.name},
            )
    vector = np.asarray(given, dtype=np.float64)
    vector /= np.abs(vector).max()  # whose squares might be none, or too large
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Searching:
    """One text, searched for in some collections."""

    collections: Sequence[Collection]
    text: str
    vector: NDArray[np.float32] | None
    mode: Mode
    where: Sequence[Condition]
    weight: float

    async def best(self, limit: int, enough: int) -> list[Candidate]:
        """The `limit` best, copies marked; more, if need be, until `enough` of them are none."""
        for _ in range(3):
            found = await self._found(limit)
            texts = [candidate.chunk.text for candidate in found]
            firsts = await threads.by_length(sum(map(len, texts)), originals, texts)
            for index, (first, candidate) in enumerate(zip(firsts, found, strict=True)):
                if first != index:
                    candidate.dropped = "duplicate"
                    found[first].copies.append(candidate)
            if len(set(firsts)) >= enough or len(found) < limit:
                break
            limit = min(4 * limit, max(limit, DEEPEST))
        return found

    async def _found(self, limit: int) -> list[Candidate]:
        collection = self.collections[0]
        if len(self.collections) > 1 or collection.shared:
            return await self._together(limit)
        found = await collection.search(
            self.text, self.vector, mode=self.mode, top_k=limit, conditions=self.where, weight=self.weight
        )
        name = collection.name
        return [Candidate.of(name, one) for one in found]

    async def _together(self, limit: int) -> list[Candidate]:
        """What is asked of several collections, or of a server, is asked at the same time.

        Their lists become one before they are fused: a cosine is a cosine, and BM25's scores compare well enough.
        """
        depth = fusion.depth(limit) if self.mode == "hybrid" else limit
        for attempt in range(TRIES):
            lists = {name: self._list(name, depth, current=attempt > 0) for name in LISTS[self.mode]}
            ranked = dict(zip(lists, await gather(*lists.values()), strict=True))
            best = fusion.best(ranked, self.weight, limit)
            chunks: dict[_Key, Chunk] = {}
            for some in await gather(*(self._chunks(one, best) for one in self.collections)):
                chunks |= some
            if len(chunks) == len(best) and not any(chunk.superseded for chunk in chunks.values()):
                break
        return [Candidate.of(key[0], Found.of(chunks[key], scores)) for key, scores in best if key in chunks]

    async def _list(self, name: List, limit: int, *, current: bool) -> list[tuple[_Key, float]]:
        """The best of all collections."""

        async def of(collection: Collection) -> list[tuple[_Key, float]]:
            found = await collection.lists(self.text, self.vector, [name], limit, self.where, current=current)
            return [((collection.name, point), score) for point, score in found[name]]

        lists = await gather(*map(of, self.collections))
        return await threads.by_length(sum(map(len, lists)), _highest, lists, limit)

    async def _chunks(self, collection: Collection, best: Sequence[tuple[_Key, Any]]) -> dict[_Key, Chunk]:
        points = [point for (of, point), _ in best if of == collection.name]
        found = await collection.chunks(points) if points else {}
        return {(collection.name, point): chunk for point, chunk in one_version(found).items()}


def _highest(lists: Sequence[list[tuple[_Key, float]]], limit: int) -> list[tuple[_Key, float]]:
    return heapq.nlargest(limit, chain.from_iterable(lists), key=itemgetter(1))


async def _judged(found: list[Candidate], text: str, judge: Judge) -> list[Candidate]:
    """In the order of how well they fit by the search and by the judge; copies, which it does not read, come last."""
    kept = [candidate for candidate in found if candidate.dropped is None]
    cosines = (await judge.cosines(text, [candidate.chunk.in_context for candidate in kept])).tolist()
    if kept:
        weight = JUDGED_WEIGHT * pstdev(candidate.score for candidate in kept)
        middle, spread = fmean(cosines), max(pstdev(cosines), JUDGED_SPREAD)
        for candidate, cosine in zip(kept, cosines, strict=True):
            candidate.score += weight * (cosine - middle) / spread
            candidate.scores = {**candidate.scores, "judge": cosine, "judged": candidate.score}
        kept.sort(key=lambda candidate: -candidate.score)
    return kept + [candidate for candidate in found if candidate.dropped is not None]


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
