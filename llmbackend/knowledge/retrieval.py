"""A question into passages: embed it once, search each collection, best first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..inference.embeddings import Embedder
from ..schemas import Hit
from .collections import Collection
from .vectors import Mode, conditions


async def search(
    collections: Sequence[Collection],
    query: str,
    embedder: Embedder,
    *,
    top_k: int,
    mode: Mode = "hybrid",
    filters: dict[str, Any] | None = None,
) -> list[Hit]:
    """The `top_k` best passages over all the collections; raises InvalidRequest for filters that make no sense."""
    where = conditions(filters)
    vector = None if mode == "sparse" else (await embedder.embed([query])).values[0]
    hits: list[Hit] = []
    for collection in collections:

        def look(collection: Collection = collection) -> list[Hit]:
            found = collection.index.search(query, vector, mode=mode, top_k=top_k, conditions=where)
            return [
                Hit(
                    text=chunk.text,
                    score=score,
                    document_id=chunk.document_id,
                    chunk=chunk.number,
                    collection=collection.manifest.name,
                    metadata={**chunk.place, **chunk.metadata},
                )
                for chunk, score in found
            ]

        hits += await collection.run(look)
    return sorted(hits, key=lambda hit: -hit.score)[:top_k]
