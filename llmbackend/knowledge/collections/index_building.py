"""Graphs for approximate search, built in the background where a collection has grown, and indexes of metadata fields.

One collection after the other.
"""

from __future__ import annotations

import asyncio
import logging

from anyio import CancelScope

from ...engines.qdrant_edge import QdrantEdge
from .collection import Collection
from .collections import Collections
from .rebuild import build_indexes

log = logging.getLogger(__name__)

GROWN = 20_000
"""Chunks outside the graph that make a rebuild worth while: searching fewer one by one takes a few milliseconds."""
GROWTH = 0.2
"""... and their share of those in the graph, so that a large collection is not copied again and again."""


class IndexBuilder:
    """Builds what is due after something was written. Made on the event loop; a Qdrant server does it by itself."""

    def __init__(self, collections: Collections, edge: QdrantEdge, grown: int = GROWN) -> None:
        self._collections = collections
        self._edge = edge
        self._grown = grown
        self._scope = CancelScope()
        self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        with self._scope:
            while True:
                collection = await self._collections.written.next()
                try:
                    indexes, graph = await self._due(collection)
                    if indexes or graph:
                        await build_indexes(self._collections, collection, self._edge, graph=graph)
                except Exception as error:  # deleted or reindexed meanwhile, no room on the disk, …
                    log.warning("no index was built for %r: %r", collection.manifest.qualified, error)

    async def _due(self, collection: Collection) -> tuple[bool, bool]:
        """Whether indexes of metadata fields are, and whether the graph is."""
        manifest = collection.manifest
        if (
            manifest.engine != self._edge.name or not collection.is_open
        ):  # it is looked at again when it is opened again
            return False, False
        _, chunks = await collection.count()
        grown = chunks - manifest.indexed >= max(self._grown, GROWTH * manifest.indexed)
        return await collection.lacks(manifest.indexes), grown

    async def close(self) -> None:
        self._scope.cancel()
        await asyncio.wait([self._working])
