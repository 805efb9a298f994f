"""Searches several collections for one text: embeds it once, fuses what they find, and marks duplicates."""

from __future__ import annotations

import heapq
import uuid
from asyncio import gather
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ... import threads
from ...engines import fusion
from ...engines.filters import Condition
from ...engines.interface import LISTS, TRIES, Chunk, Found, List, Mode, Search, one_version
from ...errors import InvalidRequest
from ...inference.cached_embedder import CachedEmbedder
from ...inference.embeddings import spelt
from ...text.legible import legible
from ...tracing import Clock
from ..collections.collection import Collection
from .ahead import WEIGHT as AHEAD_WEIGHT
from .candidates import Candidate
from .duplicates import originals
from .scope import Scope

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EXTRA_CANDIDATES = 2
"""Candidates to find beyond those wanted, so that one search is enough even if some are duplicates."""

DEEPEST = 4_000
"""Most candidates to find if most of them are duplicates."""

_Key = tuple[str, uuid.UUID]
"""A collection's name and the id of a point in it."""


async def prepare(
    scope: Scope,
    text: str,
    embedder: CachedEmbedder,
    clock: Clock,
    least_weight: float = 0.0,
    vector: Sequence[float] | None = None,
) -> Query:
    """Embed the text (unless the search is sparse, or a `vector` is given) and return the query.

    `least_weight` is the least weight of the dense list. It is ignored if the model only spells the text, and with
    `min_score`, which refers to scores with the usual weights. Without a text, the search is dense. Raises Conflict if a
    collection's vectors are by another model, InvalidRequest for a vector of another dimension, and what embedding raises.
    """
    wanted, collections = scope.wanted, scope.collections
    text = legible(text)  # as stored texts were
    mode: Mode = wanted.mode if text else "dense"
    if vector is not None:
        return Query(collections, text, _unit(vector, collections), mode, scope.where, 1.0)
    if mode == "sparse":
        return Query(collections, text, None, mode, scope.where, 1.0)
    with clock("embed"):
        vectors = await embedder.embed([text], role="query")
    if vectors.made_by is not None:
        for collection in collections:
            await collection.accept(vectors.made_by)
    tokens = vectors.tokens[0]
    weight = embedder.weight(text, tokens)
    if wanted.min_score is None and not spelt(text, tokens or 0):
        weight = max(weight, least_weight)
    return Query(collections, text, vectors.values[0], mode, scope.where, weight)


def _unit(given: Sequence[float], collections: Sequence[Collection]) -> NDArray[np.float32]:
    """Scale a caller's vector to length 1. Raises InvalidRequest if its dimension is not the collections'."""
    import numpy as np

    for collection in collections:
        dimension = collection.manifest.dimension
        if len(given) != dimension:
            raise InvalidRequest(
                f"vector: it has {len(given)} numbers, but those of the collection {collection.name!r} have {dimension}: "
                f"embed the query by {collection.manifest.embedding_model!r}",
                details={"dimension": dimension, "collection": collection.name},
            )
    vector = np.asarray(given, dtype=np.float64)
    vector /= np.abs(vector).max()  # else the squares might underflow or overflow
    return (vector / np.linalg.norm(vector)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Query:
    """A text, its vector, and the collections to search."""

    collections: Sequence[Collection]
    text: str
    vector: NDArray[np.float32] | None
    mode: Mode
    where: Sequence[Condition]
    weight: float
    ahead: Mapping[str, Mapping[uuid.UUID, float]] = field(default_factory=dict)
    """The cosines of the passages that the judge has read ahead, by collection name and point."""

    async def best(self, limit: int, enough: int) -> list[Candidate]:
        """Return the `limit` best candidates, with duplicates marked; more, until `enough` of them are no duplicates."""
        if self.where:
            await gather(*(collection.prepare(self.where) for collection in self.collections))
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
        if len(self.collections) > 1 or self.ahead:
            return await self._together(limit)
        asked = Search(self.text, self.vector, self.mode, limit, self.where, self.weight)
        name = collection.name
        return [Candidate.of(name, one) for one in await collection.search(asked)]

    async def _together(self, limit: int) -> list[Candidate]:
        """Search several collections at the same time, and what was read ahead.

        The collections' lists are merged before they are fused: cosines can be compared across collections, and BM25's
        scores well enough.
        """
        depth = fusion.depth(limit) if self.mode == "hybrid" else limit
        for attempt in range(TRIES):
            lists = {name: self._list(name, depth, current=attempt > 0) for name in LISTS[self.mode]}
            ranked = dict(zip(lists, await gather(*lists.values()), strict=True))
            read = await self._read_ahead(depth)
            best = fusion.best(ranked, self.weight, limit, read, AHEAD_WEIGHT)
            for (name, point), scores in best:
                if (cosine := self.ahead.get(name, {}).get(point)) is not None:
                    scores |= {"ahead": cosine, "fused": scores.pop("fused")}  # what orders them comes last
            chunks: dict[_Key, Chunk] = {}
            for some in await gather(*(self._chunks(one, best) for one in self.collections)):
                chunks |= some
            if len(chunks) == len(best) and not any(chunk.superseded for chunk in chunks.values()):
                break
        return [Candidate.of(key[0], Found.of(chunks[key], scores)) for key, scores in best if key in chunks]

    async def _list(self, name: List, limit: int, *, current: bool) -> list[tuple[_Key, float]]:
        """Return the best points of all collections in one list."""

        async def of(collection: Collection) -> list[tuple[_Key, float]]:
            found = await collection.lists(self.text, self.vector, [name], limit, self.where, current=current)
            return [((collection.name, point), score) for point, score in found[name]]

        lists = await gather(*map(of, self.collections))
        return await threads.by_length(sum(map(len, lists)), _highest, lists, limit)

    async def _read_ahead(self, limit: int) -> list[tuple[_Key, float]]:
        """Return the best points that the judge has read ahead and that still exist."""
        found: list[tuple[_Key, float]] = []
        for collection in self.collections:
            cosines = self.ahead.get(collection.name, {})
            points = heapq.nlargest(limit, cosines, key=cosines.__getitem__)
            there = await collection.there(points) if points else ()
            found += [((collection.name, point), cosines[point]) for point in points if point in there]
        return _highest([found], limit)

    async def _chunks(self, collection: Collection, best: Sequence[tuple[_Key, Any]]) -> dict[_Key, Chunk]:
        points = [point for (of, point), _ in best if of == collection.name]
        found = await collection.chunks(points) if points else {}
        return {(collection.name, point): chunk for point, chunk in one_version(found).items()}


def _highest(lists: Sequence[list[tuple[_Key, float]]], limit: int) -> list[tuple[_Key, float]]:
    return heapq.nlargest(limit, chain.from_iterable(lists), key=itemgetter(1))
