"""Requests to ingest texts or files, or to plan that. An ingest creates its collection if there is none."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from ... import tracing
from ...errors import NotFound
from ...files.documents import from_files
from ...files.pool import ParsingPool
from ...inference.cached_embedder import CachedEmbedder
from ...schemas import Document, IngestReport, RagIngestFilesRequest, RagIngestRequest
from ..collections.collection import Collection
from ..collections.collections import Collections, chunking
from .ingest import Incoming, StagesProgress, ingest, plan, silent


@dataclass(frozen=True, slots=True)
class Ingestion:
    collections: Collections
    embedder: CachedEmbedder
    parsers: ParsingPool

    async def documents(self, asked: RagIngestRequest, progress: StagesProgress = silent) -> IngestReport:
        return await self._ingest(asked, asked.documents, (), progress)

    async def files(self, asked: RagIngestFilesRequest, progress: StagesProgress = silent) -> IngestReport:
        if any(file.content for file in asked.files):
            self.parsers.prepare()  # meanwhile, the collection is made or opened
        incoming = Incoming(from_files(self.parsers, asked.files), len(asked.files))
        return await self._ingest(asked, incoming, asked.keep, progress)

    async def _ingest(
        self,
        asked: RagIngestRequest | RagIngestFilesRequest,
        documents: Sequence[str | Document] | Incoming,
        keep: Sequence[str],
        progress: StagesProgress,
    ) -> IngestReport:
        name = tracing.current().collection(asked.collection)
        size, overlap = asked.chunk_size, asked.chunk_overlap
        if not asked.plan:
            async with self.collections.filling(name, size, overlap) as collection:
                return await ingest(
                    collection, documents, self.embedder, sync=asked.sync, keep=keep, progress=progress
                )
        there: Collection | None = None
        with suppress(NotFound):
            there = await self.collections.matching(name, size, overlap)
        return await plan(
            there,
            documents,
            self.embedder.uncached,
            chunking=there.chunking if there else chunking(size, overlap),
            sync=asked.sync,
            keep=keep,
            progress=progress,
        )
