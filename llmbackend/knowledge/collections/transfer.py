"""Exports and imports collections, page by page, between machines and engines.

An import fills a physical collection that nobody sees, and its last page turns that into a collection. Until then it is
an orphan (manifests.py), which is removed if the last page never comes.
"""

from __future__ import annotations

import asyncio
import base64
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
from anyio import CancelScope

from ... import threads
from ...access.names import QualifiedName
from ...access.room import NOTHING, Size
from ...engines.interface import Chunk, Stored, VectorIndex, fitting
from ...errors import InvalidRequest, NotFound, Overloaded
from ...inference.fingerprint import Fingerprint
from ...schemas import (
    CollectionExport,
    CollectionManifest,
    EngineOptions,
    ImportedCollection,
    ImportRequest,
    StoredChunk,
)
from .collections import Collections, require_few
from .manifests import Manifest
from .storing import size

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

IDLE_SECONDS = 600.0
"""Seconds that an import waits for its next page before it is dropped."""
AT_ONCE = 8
"""Most imports of a project under way: each has an open index, of some megabytes."""
REPLACED_AFTER = 60.0
"""Seconds without a page after which another import may take the place of this one, whose client probably is gone."""


async def export_page(
    collections: Collections, name: QualifiedName, limit: int, cursor: str | None
) -> CollectionExport:
    """Return a page of a collection. Documents that are written meanwhile may be missing. Raises NotFound."""
    collection = await collections.get(name)
    stored = await collection.read(limit, cursor)
    made = collection.manifest
    shown = {**made.public, "engine": EngineOptions(**made.options)}
    if made.made_by is not None:
        made_by = await threads.database(collections.manifests.model, made.made_by)
        shown["fingerprint"] = made_by.to_json()
    return CollectionExport(
        manifest=CollectionManifest(
            **{name: shown[name] for name in CollectionManifest.model_fields if name in shown}
        ),
        chunks=await threads.processor(_encoded, stored),
        cursor=stored.cursor,
    )


def _encoded(stored: Stored) -> list[StoredChunk]:
    rows = stored.vectors.astype("<f4", copy=False)
    return [
        StoredChunk.model_construct(
            document_id=chunk.document_id,
            hash=chunk.hash,
            number=chunk.number,
            total=chunk.total,
            text=chunk.text,
            metadata=chunk.metadata,
            place=chunk.place,
            vector=base64.b64encode(row.tobytes()).decode(),
        )
        for chunk, row in zip(stored.chunks, rows, strict=True)
    ]


@dataclass
class _Import:
    manifest: Manifest
    index: VectorIndex
    is_open: bool = True
    at_work: asyncio.Lock = field(default_factory=asyncio.Lock)
    last_used: float = field(default_factory=time.monotonic)
    came: Counter[tuple[str, str, int]] = field(default_factory=Counter)
    """The number of chunks received, by (document id, hash, total)."""
    size: Size = NOTHING

    def whole(self, documents: int, chunks: int) -> bool:
        """Return whether each document has one version with all its chunks, each once."""
        return (
            documents == len(self.came) == len({name for name, _, _ in self.came})
            and chunks == self.came.total()
            and all(count == total for (_, _, total), count in self.came.items())
        )


class Imports:
    """The imports under way. Must be made on the event loop. An import that ends unfinished leaves nothing."""

    def __init__(self, collections: Collections) -> None:
        self._collections = collections
        self._under_way: dict[str, _Import] = {}
        self._begun: Counter[str] = Counter()  # by project
        self._scope = CancelScope()
        self._waiting = asyncio.create_task(self._give_up())

    async def take(self, name: QualifiedName, request: ImportRequest) -> ImportedCollection:
        """Store a page of an import. The first page has the manifest; the last has `last` set, and returns the counts.

        Raises Conflict if there is a collection of that name, NotFound for a token of no import under way,
        InvalidRequest for chunks that do not fit the manifest or are incomplete at the end, and Overloaded if the
        project's storage is used up. Any error ends the import.
        """
        token = request.token or await self._begin(name, request)
        running = self._under_way.get(token)
        if running is None or running.manifest.qualified != name:
            raise NotFound(
                f"no such import into {request.collection!r}: it has ended, or its next page came too late; begin anew",
                details={"token": token},
            )
        async with running.at_work:
            running.last_used = time.monotonic()
            try:
                await self._write(running, request.chunks)
                if request.abort:
                    await self._drop(token)
                elif request.last:
                    return await self._finish(token, running)
            except BaseException:
                await self._drop(token)
                raise
        return ImportedCollection(token=token)

    async def close(self) -> None:
        self._scope.cancel()
        await asyncio.wait([self._waiting])
        for token in list(self._under_way):
            await self._drop(token)

    async def _begin(self, name: QualifiedName, request: ImportRequest) -> str:
        made = request.manifest
        if made is None:
            raise InvalidRequest("import_collection: the first page must have a manifest", details={})
        while self._begun[name.project] >= AT_ONCE:
            await self._make_room(name.project)
        self._begun[name.project] += 1
        try:
            return await self._made(name, made)
        except BaseException:
            self._begun[name.project] -= 1
            raise

    async def _make_room(self, project: str) -> None:
        """Drop the project's import that has waited longest for a page. Raises Overloaded if none has waited for long."""
        waiting = [
            (running.last_used, token)
            for token, running in self._under_way.items()
            if running.manifest.qualified.project == project and not running.at_work.locked()
        ]
        last_used, token = min(waiting, default=(time.monotonic(), ""))
        if time.monotonic() - last_used < REPLACED_AFTER:
            raise Overloaded(
                f"{AT_ONCE} imports of this project are under way: send their last pages, or abort them; one that gets no "
                f"page for {REPLACED_AFTER:.0f} s gives way",
                details={"limit": AT_ONCE, "retry_after": 5},
            )
        await self._drop(token)

    async def _made(self, name: QualifiedName, made: CollectionManifest) -> str:
        collections = self._collections
        collections.require_free(name)
        require_few(made.indexes)
        manifest = await collections.manifest(
            name,
            made.dimension,
            made.chunk_size,
            made.chunk_overlap,
            made.embedding_model,
            _fingerprint(made),
            made.indexes,
            made.engine.given,
            made.parser,
        )
        with CancelScope(shield=True):
            await collections.physical.make(manifest)
            try:
                index = await collections.physical.open(manifest)
            except BaseException:
                await collections.physical.drop(manifest)
                raise
        token = str(uuid.uuid4())
        self._under_way[token] = _Import(manifest, index)
        return token

    async def _write(self, running: _Import, given: list[StoredChunk]) -> None:
        if given:
            chunks, vectors = await threads.processor(_read, given, running.manifest.dimension)
            running.size = running.size.more(size(chunks))
            await self._collections.require_room(running.manifest, running.size)
            await running.index.threads(running.index.upsert, chunks, vectors)
            running.came.update((one.document_id, one.hash, one.total) for one in given)

    async def _finish(self, token: str, running: _Import) -> ImportedCollection:
        documents, chunks = await running.index.threads(running.index.count)
        if not running.whole(documents, chunks):
            raise InvalidRequest(
                "import_collection: some documents lack chunks, or have them twice: export the collection again"
            )
        with CancelScope(shield=True):
            await running.index.threads(running.index.close)
            running.is_open = False
            await self._collections.add(running.manifest, (documents, chunks), running.size)
            self._end(token)
        return ImportedCollection(documents=documents, chunks=chunks)

    async def _drop(self, token: str) -> None:
        running = self._end(token)
        if running is not None:
            with CancelScope(shield=True):
                if running.is_open:
                    await running.index.threads(running.index.close)
                await self._collections.physical.drop(running.manifest)

    def _end(self, token: str) -> _Import | None:
        running = self._under_way.pop(token, None)
        if running is not None:
            self._begun[running.manifest.qualified.project] -= 1
        return running

    async def _give_up(self) -> None:
        """Drop imports whose next page does not come in time."""
        with self._scope:
            while True:
                await anyio.sleep(IDLE_SECONDS / 10)
                for token, running in list(self._under_way.items()):
                    idle = time.monotonic() - running.last_used
                    if idle > IDLE_SECONDS and not running.at_work.locked():
                        await self._drop(token)


def _fingerprint(made: CollectionManifest) -> Fingerprint | None:
    if made.fingerprint is None:
        return None
    try:
        found = Fingerprint.from_json(made.fingerprint.model_dump())
    except ValueError as error:
        raise InvalidRequest(f"import_collection: manifest.fingerprint: {error}") from error
    if found.vectors is not None and found.vectors.shape[1] != made.dimension:
        raise InvalidRequest("import_collection: manifest.fingerprint does not have the manifest's dimension")
    return found


def _read(given: list[StoredChunk], dimension: int) -> tuple[list[Chunk], NDArray[np.float32]]:
    import numpy as np

    rows = [np.frombuffer(_decoded(one, number), dtype="<f4") for number, one in enumerate(given)]
    vectors = fitting(rows, dimension, lambda row: f"import_collection: chunks[{row}].vector")
    chunks = [
        Chunk(one.document_id, one.hash, one.number, one.total, one.text, one.metadata, one.place)
        for one in given
    ]
    return chunks, vectors


def _decoded(given: StoredChunk, number: int) -> bytes:
    try:
        data = base64.b64decode(given.vector, validate=True)
    except ValueError:
        data = b"?"
    if len(data) % 4:
        raise InvalidRequest(f"import_collection: chunks[{number}].vector is not float32 numbers as base64")
    return data
