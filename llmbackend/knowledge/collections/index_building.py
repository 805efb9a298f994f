"""Builds graphs for approximate search and indexes of metadata fields, in the background, one collection after the other."""

from __future__ import annotations

import asyncio
import logging

from anyio import CancelScope

from ...engines.qdrant_edge import QdrantEdge
from ...errors import Conflict, NotFound
from .collection import Collection
from .collections import Collections
from .rebuild import build_indexes

log = logging.getLogger(__name__)

GROWN = 20_000
"""Chunks outside the graph for which a rebuild is worthwhile: searching fewer without it takes a few milliseconds."""
GROWTH = 0.2
"""Their least share of the chunks in the graph, so that a large collection is not copied again and again."""


class IndexBuilder:
    """Builds what is due after a write. Must be made on the event loop. For Edge only: a Qdrant server does this itself."""

    def __init__(self, collections: Collections, edge: QdrantEdge) -> None:
        self._collections = collections
        self._edge = edge
        self._grown = GROWN
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
                except (Conflict, NotFound) as error:  # deleted or reindexed meanwhile
                    log.debug("no index was built for %s: %s", collection.manifest.qualified, error)
                except Exception as error:  # the disk is full, …
                    log.warning("no index was built for %s: %s", collection.manifest.qualified, error)

    async def _due(self, collection: Collection) -> tuple[bool, bool]:
        """Return whether indexes of metadata fields are due, and whether the graph is."""
        manifest = collection.manifest
        if manifest.engine != self._edge.name or not collection.is_open:  # opening it queues it again
            return False, False
        _, chunks = await collection.count()
        grown = chunks - manifest.indexed >= max(self._grown, GROWTH * manifest.indexed)
        return await collection.lacks(manifest.indexes), grown

    async def close(self) -> None:
        self._scope.cancel()
        await asyncio.wait([self._working])
