"""The collections of a data directory: create, find, describe and delete them by name."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any
from weakref import WeakValueDictionary

import anyio
from anyio import CancelScope
from sqlalchemy import Engine

from ... import plugins, threads, tracing
from ...access.names import QualifiedName, missing
from ...access.room import NOTHING, Require, Size, StorageLimits
from ...alike import alike, did_you_mean
from ...chunks.chunking import DEFAULT_OVERLAP, DEFAULT_SIZE
from ...engines.indexes import INDEX_PLACES, NO_INDEXES, FieldType, Indexes, in_points
from ...engines.interface import VectorEngine, damaged, gone
from ...errors import BackendError, Conflict, InvalidRequest, LLMBackendError, NotFound
from ...inference.cached_embedder import CachedEmbedder
from ...inference.fingerprint import Fingerprint
from ...schemas import CollectionInfo
from .collection import Collection
from .current_index import CollectionServices
from .manifests import Manifest, Manifests, called, taken
from .open_indexes import OpenIndexes
from .physical import PhysicalCollections
from .written import Written

log = logging.getLogger(__name__)

COUNTED_AT_ONCE = 8
"""Collections that a listing counts at the same time."""


def chunking(chunk_size: int | None, chunk_overlap: int | None) -> tuple[int, int]:
    """Return the size and overlap of a new collection's chunks, in tokens. Raises InvalidRequest if they do not fit."""
    size = chunk_size or DEFAULT_SIZE
    overlap = min(DEFAULT_OVERLAP, size // 4) if chunk_overlap is None else chunk_overlap
    if overlap >= size:
        raise InvalidRequest(f"chunk_overlap ({overlap}) must be smaller than chunk_size ({size})")
    return size, overlap


def require_few(indexes: Indexes) -> None:
    """Raise InvalidRequest for more indexes than a collection may have."""
    if (count := len(in_points(indexes))) > INDEX_PLACES:
        raise InvalidRequest(
            f"indexes: they take {count} paths in a chunk, and {INDEX_PLACES} are the most: index only fields that filters "
            "use",
            details={"limit": INDEX_PLACES},
        )


def require_there(fields: Iterable[str], indexes: Indexes) -> None:
    """Raise InvalidRequest for a field that has no index."""
    for field in fields:
        if field not in indexes:
            near = alike(field, indexes)
            meant = did_you_mean(near) if near else f"there are {', '.join(map(repr, indexes)) or 'none'}"
            raise InvalidRequest(f"indexes: there is no index of {field!r} to remove: {meant}")


class Collections:
    """All collections of one data directory. Must be made on the event loop; opens no index by itself."""

    def __init__(
        self,
        engine: Engine,
        engines: Sequence[VectorEngine],
        embedder: CachedEmbedder,
        holder: str,
        *,
        most_open: int = 32,
        idle_seconds: float = 30.0,
        plugin_seconds: float = plugins.SECONDS,
        limits: StorageLimits | None = None,
    ) -> None:
        self.manifests = Manifests(engine, holder)
        self.physical = PhysicalCollections(self.manifests, engines)
        self.embedder = embedder
        self.written: Written[Collection] = Written()
        self._open_indexes = OpenIndexes(most_open, idle_seconds)
        self._services = CollectionServices(
            self.manifests,
            self.physical,
            embedder,
            self._open_indexes,
            self.written,
            plugin_seconds,
            self.storage_limits,
        )
        self._limits = limits
        self._measured: set[str] = set()
        """Projects whose collections are all measured."""
        counts = self.manifests.counts()
        # Other processes change collections only in shared engines; `learn` notices that.
        self._collections = {
            one.qualified: Collection(one, self._services, counts.get(one.id)) for one in self.manifests.all()
        }
        # By name, so that slow work on one collection delays no other.
        self._changing_names: WeakValueDictionary[QualifiedName, asyncio.Lock] = WeakValueDictionary()
        self._registering = asyncio.Lock()
        """Held while the rows and `_collections` change together."""
        self._closing: set[asyncio.Task[None]] = set()
        self._filled: Counter[Collection] = Counter()
        """How many callers are filling each collection."""
        self._made_to_fill: set[Collection] = set()
        """Collections that were made to be filled, and may still be empty."""

    # Finding

    async def get(self, name: QualifiedName) -> Collection:
        """Return the collection of that name, whatever model made its vectors. Raises NotFound."""
        there = self._collections.get(name)
        if there is None or there.closed or not there.is_open:
            await self.learn()
            there = self._collections.get(name)
        if there is None or there.closed:
            raise missing(called(name))
        return there

    async def matching(
        self, name: QualifiedName, chunk_size: int | None, chunk_overlap: int | None
    ) -> Collection:
        """Return a collection as `get`. Raises Conflict if it was made with another chunking."""
        collection = await self.get(name)
        made = collection.manifest
        for what, asked, is_now in (
            ("chunk_size", chunk_size, made.chunk_size),
            ("chunk_overlap", chunk_overlap, made.chunk_overlap),
        ):
            if asked is not None and asked != is_now:
                raise Conflict(
                    f"collection {collection.name!r} was made with {what} {is_now}, not {asked}: leave {what} out, "
                    "or delete the collection and ingest its documents again",
                    details={"collection": collection.name, what: is_now},
                )
        return collection

    @asynccontextmanager
    async def filling(
        self, name: QualifiedName, chunk_size: int | None, chunk_overlap: int | None
    ) -> AsyncIterator[Collection]:
        """Yield a collection as `matching`, to be written to in the block; create it if there is none.

        If it was created for this, the block fails and it is still empty, it is removed.
        """
        collection = await self._to_fill(name, chunk_size, chunk_overlap)
        self._filled[collection] += 1
        try:
            yield collection
            self._made_to_fill.discard(collection)
        finally:
            self._filled[collection] -= 1
            if not self._filled[collection]:  # else the last one who fills it does this
                del self._filled[collection]
                if collection in self._made_to_fill:
                    self._made_to_fill.discard(collection)
                    with CancelScope(shield=True):
                        await self._remove_empty(collection)

    async def _to_fill(
        self, name: QualifiedName, chunk_size: int | None, chunk_overlap: int | None
    ) -> Collection:
        await self.learn()
        try:
            return await self.matching(name, chunk_size, chunk_overlap)
        except NotFound:
            with suppress(Conflict):  # somebody else has created it meanwhile
                made = await self.create(name, chunk_size, chunk_overlap)
                self._made_to_fill.add(made)
                return made
        return await self.matching(name, chunk_size, chunk_overlap)

    async def _remove_empty(self, collection: Collection) -> None:
        gone = False
        with suppress(LLMBackendError):  # the caller gets the error of the block instead
            # Nobody, in any process, can write between the count and the deletion.
            async with (
                self._changing(collection.manifest.qualified),
                collection.writing(),
                collection.frozen(),
            ):
                if await collection.count() != (0, 0):
                    return
                await self._forget(collection)
                gone = collection.closed = True  # those who wait to write get NotFound
        if gone:
            await self._discard(collection)

    async def learn(self) -> None:
        """Learn which collections other processes on the same database have created, exchanged and deleted."""
        if self.physical.one_process:
            return
        async with self._registering:
            now = {one.qualified: one for one in await threads.database(self.manifests.all)}
            for name, collection in list(self._collections.items()):
                if name in now and not collection.closed:
                    collection.told(now.pop(name))
                elif name in now or collection.shared:
                    del self._collections[name]
                    closing = asyncio.create_task(self._close(collection))
                    self._closing.add(closing)
                    closing.add_done_callback(self._closing.discard)
            for name, manifest in now.items():
                self._collections[name] = Collection(manifest, self._services)

    @property
    def open_count(self) -> int:
        return sum(one.is_open for one in self._collections.values())

    def names(self) -> list[QualifiedName]:
        return sorted(self._collections)

    async def info(self, name: QualifiedName) -> CollectionInfo:
        """Describe a collection: what it is made with, its counts, and its problem, if any. Raises NotFound."""
        return await self._info(await self.get(name))

    async def infos(
        self, which: Callable[[QualifiedName], bool], *, counts: bool = True
    ) -> list[CollectionInfo]:
        """Describe the collections that `which` selects, by name. Raises BackendError as `info` does."""
        found: dict[QualifiedName, CollectionInfo] = {}
        failed: list[BackendError] = []
        at_once = asyncio.Semaphore(COUNTED_AT_ONCE)

        async def describe(collection: Collection) -> None:
            with suppress(NotFound):  # deleted meanwhile
                async with at_once:
                    try:
                        found[collection.manifest.qualified] = await self._info(collection)
                    except BackendError as error:
                        failed.append(error)

        await self.learn()
        names = list(filter(which, self.names()))
        async with anyio.create_task_group() as describing:
            for collection in map(self._collections.__getitem__, names):
                if not counts or collection.counts is not None:
                    found[collection.manifest.qualified] = _described(
                        collection, collection.counts if counts else None
                    )
                else:
                    describing.start_soon(describe, collection)
        if failed:
            raise failed[0]
        return [found[name] for name in names if name in found]

    async def _info(self, collection: Collection) -> CollectionInfo:
        try:
            return _described(collection, await collection.count())
        except (BackendError, Conflict) as error:
            lost = isinstance(error, BackendError)
            if lost and not (damaged(error) or gone(error)):
                raise
            return _described(collection, None, damaged=lost, problem=error.message)

    def lacking_parsers(self) -> list[str]:
        """Return a message for each collection whose node parser is not installed."""
        return [lacks for one in self._collections.values() if (lacks := one.lacks_parser)]

    # Making and deleting

    async def create(
        self,
        name: QualifiedName,
        chunk_size: int | None,
        chunk_overlap: int | None,
        indexes: Indexes = NO_INDEXES,
        options: Mapping[str, Any] = MappingProxyType({}),
        parser: str | None = None,
    ) -> Collection:
        """Create an empty collection.

        Raises Conflict if there is one of that name, and InvalidRequest for an unknown parser, a chunking that does not
        fit, too many indexes, or options without a Qdrant server.
        """
        if parser is not None:
            plugins.NODE_PARSERS.named(parser)
        size, overlap = chunking(chunk_size, chunk_overlap)
        require_few(indexes)
        if options and self.physical.default.options is None:
            raise InvalidRequest(
                "engine: these are options of a Qdrant server: set QDRANT_URL to one, or leave them out",
                details={"engine": self.physical.default.name},
            )
        await self.learn()
        async with self._changing(name):
            self.require_free(name)
            dimension, made_by = await self.model()
            manifest = await self.manifest(
                name, dimension, size, overlap, made_by.model, made_by, indexes, options, parser
            )
            await self.physical.make(manifest)
            return await self._add(manifest, (0, 0), NOTHING)

    async def add(self, manifest: Manifest, counts: tuple[int, int], size: Size) -> Collection:
        """Turn a filled physical collection into a collection.

        Raises Conflict if there is one of that name by now, and Overloaded if its project may not store so much more.
        """
        async with self._changing(manifest.qualified):
            self.require_free(manifest.qualified)
            return await self._add(manifest, counts, size, await self.storage_limits(manifest.project))

    async def _add(
        self, manifest: Manifest, counts: tuple[int, int], size: Size, require: Require | None = None
    ) -> Collection:
        known = None if self.physical.shared(manifest) else counts
        with CancelScope(shield=True):
            async with self._registering:
                await threads.database(self.manifests.insert, manifest, known, size, require)
                added = self._collections[manifest.qualified] = Collection(manifest, self._services, known)
        return added

    async def storage_limits(self, project: str) -> Require | None:
        """Return the check that the current caller may store more in that project; None without limits."""
        if self._limits is None:
            return None
        if (require := await self._limits.of(tracing.current().caller, project)) is None:
            return None
        await self._measure(project)
        return require

    async def require_room(self, manifest: Manifest, more: Size) -> None:
        """Raise Overloaded if a project may not store so much more in a collection that does not exist yet."""
        if (require := await self.storage_limits(manifest.project)) is not None:
            await threads.database(self.manifests.require, manifest, more, require)

    async def stored(self, project: str) -> Size:
        """Return how much a project stores, including vectors."""
        await self._measure(project)
        return await threads.database(self.manifests.stored, project)

    async def _measure(self, project: str) -> None:
        """Measure a project's collections of earlier versions, once."""
        if project in self._measured:
            return
        for name in await threads.database(self.manifests.unmeasured, project):
            try:
                await (await self.get(name)).measure()
            except NotFound:  # deleted meanwhile
                pass
            except BackendError as error:
                if not (damaged(error) or gone(error)):
                    raise
        self._measured.add(project)

    def require_free(self, name: QualifiedName) -> None:
        """Raise Conflict if there is a collection of that name."""
        if name in self._collections:
            raise taken(called(name))

    async def model(self) -> tuple[int, Fingerprint]:
        """Return the dimension of the current embedding model's vectors, and its fingerprint."""
        sample = await self.embedder.embed(["a text, to learn the dimension"])
        return int(sample.values.shape[1]), sample.made_by or await self.embedder.fingerprint()

    async def manifest(
        self,
        name: QualifiedName,
        dimension: int,
        chunk_size: int,
        chunk_overlap: int,
        embedding_model: str,
        made_by: Fingerprint | None,
        indexes: Indexes = NO_INDEXES,
        options: Mapping[str, Any] = MappingProxyType({}),
        parser: str | None = None,
    ) -> Manifest:
        """Make a manifest for a new collection, in the default engine."""
        return Manifest(
            project=name.project,
            name=name.name,
            id=str(uuid.uuid4()),
            embedding_model=embedding_model,
            made_by=await threads.database(self.manifests.model_id, made_by) if made_by else None,
            dimension=dimension,
            chunk_size=chunk_size,
            chunk_overlap=chunk_overlap,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            engine=self.physical.default.name,
            indexes=dict(indexes),
            options=dict(options),
            made_with=self.made_with(options),
            parser=parser,
        )

    def made_with(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Return the engine options for a new physical collection: the settings, and what was given for the collection."""
        set_now = self.physical.default.options
        return {} if set_now is None else {**set_now, **options}

    async def set_indexes(
        self, name: QualifiedName, changes: Mapping[str, FieldType | None]
    ) -> CollectionInfo:
        """Make, change or (None) remove indexes of metadata fields.

        Raises NotFound, and InvalidRequest for too many, or if one to remove is not there.
        """
        collection = await self.get(name)
        removed = {field for field, kind in changes.items() if kind is None}
        if not removed <= collection.manifest.indexes.keys():
            await collection.refresh()  # another process may have made it
            require_there(removed, collection.manifest.indexes)
        now: dict[str, FieldType | None] = {**collection.manifest.indexes, **changes}
        require_few({field: kind for field, kind in now.items() if kind is not None})
        await collection.set_indexes(changes)
        return await self._info(collection)

    async def delete(self, name: QualifiedName) -> int | None:
        """Delete a collection; return how many documents it had, or None if that is not known. Raises NotFound."""
        collection = await self.get(name)
        counts = await collection.counted()
        async with self._changing(name):
            await self._forget(collection)
        await self._discard(collection)
        return None if counts is None else counts[0]

    async def _forget(self, collection: Collection) -> None:
        """Remove a collection from the database and from `_collections`. Raises NotFound if it was deleted already."""
        name = collection.manifest.qualified
        if self._collections.get(name) is not collection:
            raise missing(called(name))
        collection.give_up_opening()
        with CancelScope(shield=True):
            async with collection.settled(), self._registering:
                await threads.database(self.manifests.delete, collection.manifest)
                del self._collections[name]

    async def _discard(self, collection: Collection) -> None:
        with CancelScope(shield=True):
            await self._close(collection)
            await self.physical.drop(collection.manifest)

    async def close(self) -> None:
        for lock in list(self._changing_names.values()):  # so that what is being created is closed, too
            async with lock:
                pass
        await self._open_indexes.close()
        for collection in list(self._collections.values()):
            await self._close(collection)
        if self._closing:
            await asyncio.wait(self._closing)
        await self.physical.close()

    async def _close(self, collection: Collection) -> None:
        """Close a collection. A failure is only logged."""
        try:
            await collection.close()
        except BackendError as error:
            log.warning("closing collection %r failed: %s", collection.name, error)

    @asynccontextmanager
    async def _changing(self, name: QualifiedName) -> AsyncIterator[None]:
        """Hold this while creating or deleting a collection of that name."""
        lock = self._changing_names.get(name)
        if lock is None:
            lock = self._changing_names[name] = asyncio.Lock()
        async with lock:
            yield


def _described(collection: Collection, counts: tuple[int, int] | None, **more: Any) -> CollectionInfo:
    documents, chunks = counts or (None, None)
    if "problem" not in more and collection.lacks_parser:
        more["problem"] = collection.lacks_parser
    if collection.read_ahead is not None:
        more["read_ahead"] = collection.read_ahead
    return CollectionInfo.model_construct(
        **collection.manifest.public, documents=documents, chunks=chunks, **more
    )
