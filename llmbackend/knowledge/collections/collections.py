"""Collections: a manifest each in the database, an index each in a vector engine, opened when first used."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from anyio import CancelScope
from sqlalchemy import Engine

from ... import threads
from ...errors import BackendError, Conflict, InvalidRequest, LLMBackendError
from ...inference.cache import CachedEmbedder
from ...inference.fingerprint import AGREE, Fingerprint
from ..chunks.chunking import DEFAULT_OVERLAP, DEFAULT_SIZE
from ..engines.indexes import MOST, NO_INDEXES, FieldType, Indexes, in_points
from ..engines.interface import Physical, VectorEngine, VectorIndex, damaged, gone
from .collection import Collection, missing
from .live_index import LiveIndex
from .manifests import Manifest, Manifests, exchanged, made_otherwise, taken

log = logging.getLogger(__name__)


def chunking(chunk_size: int | None, chunk_overlap: int | None) -> tuple[int, int]:
    """Size and overlap of a new collection's chunks, in tokens; raises InvalidRequest if they cannot be."""
    size = chunk_size or DEFAULT_SIZE
    overlap = min(DEFAULT_OVERLAP, size // 4) if chunk_overlap is None else chunk_overlap
    if overlap >= size:
        raise InvalidRequest(f"chunk_overlap ({overlap}) must be smaller than chunk_size ({size})")
    return size, overlap


def require_few(indexes: Indexes) -> None:
    """Raises InvalidRequest for more indexes than a collection may have."""
    if (count := len(in_points(indexes))) > MOST:
        raise InvalidRequest(
            f"indexes: they take {count} places in a chunk, and {MOST} are the most: index what is filtered by only",
            details={"limit": MOST},
        )


SAMPLE = 8
"""Chunks among which one has a vector that is not of zeros, as of a text without a word."""

TRIED_AGAIN = 60.0
"""Seconds after which is tried again to open a collection, which may have been restored."""


class SetAside(NamedTuple):
    """A collection that is set aside."""

    physical: Physical
    until: float
    reason: str
    details: dict[str, Any]

    def error(self) -> BackendError:
        return BackendError(self.reason, details=dict(self.details))


class Collections:
    """All collections of one data directory.

    New ones are made in the first of the engines; those made before stay in the engine they are in.
    """

    def __init__(
        self, engine: Engine, engines: list[VectorEngine], embedder: CachedEmbedder, holder: str
    ) -> None:
        self.rows = Manifests(engine, holder)
        self.embedder = embedder
        self._engines = {one.name: one for one in engines}
        self._default = engines[0]
        self._open: dict[str, Collection] = {}
        self._damaged: dict[str, SetAside] = {}
        self._closing: set[asyncio.Task[None]] = set()
        # By name: what takes long with one collection holds up no other.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._rows_changing = asyncio.Lock()
        # Nobody else changes those of engines that are not shared; for the others, see `_learn` and `_look`.
        self._manifests = {manifest.name: manifest for manifest in self.rows.all()}
        self.after_flush: Callable[[Collection], None] = lambda collection: None
        """Called, in a thread, when what was written to a collection is safe."""

    @property
    def default_engine(self) -> VectorEngine:
        return self._default

    async def create(
        self,
        name: str,
        chunk_size: int | None,
        chunk_overlap: int | None,
        indexes: Indexes = NO_INDEXES,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Collection:
        """A new, empty collection; raises Conflict if there is one of that name."""
        size, overlap = chunking(chunk_size, chunk_overlap)
        require_few(indexes)
        if options and self._default.options is None:
            raise InvalidRequest(
                "engine: these are options of a Qdrant server: set QDRANT_URL to one, or leave them out",
                details={"engine": self._default.name},
            )
        await self.learn()
        async with self._changing(name):
            self.require_free(name)
            dimension, made_by = await self.model()
            manifest = await self.manifest(
                name, dimension, size, overlap, made_by.model, made_by, indexes=indexes, options=options
            )
            await self.make(manifest)
            return await self._added(manifest)

    def require_free(self, name: str) -> None:
        """Raises Conflict if there is a collection of that name."""
        if name in self._manifests:
            raise taken(name)

    async def model(self) -> tuple[int, Fingerprint]:
        """The dimension of the vectors that are made now, and what makes them."""
        sample = await self.embedder.embed(["a text, to learn the dimension"])
        return int(sample.values.shape[1]), sample.made_by or await self.embedder.fingerprint()

    async def manifest(
        self,
        name: str,
        dimension: int,
        chunk_size: int,
        chunk_overlap: int,
        embedding_model: str,
        made_by: Fingerprint | None,
        indexes: Indexes = NO_INDEXES,
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> Manifest:
        """Of a collection that is not there yet."""
        return Manifest(
            name=name,
            id=str(uuid.uuid4()),
            embedding_model=embedding_model,
            made_by=await threads.database(self.rows.model_id, made_by) if made_by else None,
            dimension=dimension,
            chunk_size=chunk_size,
            chunk_overlap=chunk_overlap,
            created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            engine=self._default.name,
            indexes=dict(indexes),
            options=dict(options),
            made_with=self.made_with(options),
        )

    def made_with(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options that a physical collection is made with now, where these were given for the collection."""
        set_now = self._default.options
        return {} if set_now is None else {**set_now, **options}

    async def make(self, manifest: Manifest, job: str = "") -> None:
        """The physical collection of a manifest, which is an orphan until somebody stores the manifest.

        If it is made by a job, it stays until that has ended.
        """
        await threads.database(self.rows.begin, manifest.physical_collection.id, manifest.engine, job)
        engine = self.engine(manifest)
        await engine.threads(engine.create, manifest.physical_collection.id, manifest.layout)

    async def add(self, manifest: Manifest, index: VectorIndex) -> Collection:
        """Make a filled index a collection, all at once; raises Conflict if there is one of that name by now."""
        async with self._changing(manifest.name):
            self.require_free(manifest.name)
            return await self._added(manifest, index)

    async def _added(self, manifest: Manifest, index: VectorIndex | None = None) -> Collection:
        with CancelScope(shield=True):
            async with self._rows_changing:
                await threads.database(self.rows.insert, manifest)
                self._manifests[manifest.name] = manifest
            self._open[manifest.name] = collection = await self._opened(manifest, index)
        return collection

    async def open(self, name: str) -> Collection:
        """The collection of that name, whatever made its vectors; raises NotFound, BackendError if it is damaged."""
        if (there := self._open.get(name)) is not None:
            return there
        await self.learn()
        if name not in self._manifests:
            raise missing(name)
        async with self._changing(name):
            if name not in self._manifests:
                raise missing(name)
            if name not in self._open:
                self._open[name] = await self._opened_if_whole(self._manifests[name])
            return self._open[name]

    async def _opened_if_whole(self, manifest: Manifest) -> Collection:
        """One that could not be opened is tried again after a while only: it may take long to find out."""
        known = self._damaged.get(manifest.name)
        if (
            known is not None
            and known.physical == manifest.physical_collection
            and time.monotonic() < known.until
        ):
            raise known.error()
        try:
            opened = await self._opened(manifest)
        except BackendError as error:
            if damaged(error):
                raise self._note_damage(manifest, error) from error
            raise
        self._damaged.pop(manifest.name, None)
        return opened

    def _note_damage(self, manifest: Manifest, error: BackendError) -> BackendError:
        name = manifest.name
        known = self._damaged[name] = SetAside(
            manifest.physical_collection,
            time.monotonic() + TRIED_AGAIN,
            f"collection {name!r} is damaged ({error}): delete it by delete_collection({name!r}) and ingest or import "
            f"it again, or put the folder of {manifest.physical_collection.id} back from a backup; it is tried again in "
            f"{TRIED_AGAIN:.0f} s",
            {**error.details, "collection": name, "damaged": True},
        )
        log.error("collection %r is set aside as damaged: %s", name, error)
        return known.error()

    def _broke(self, collection: Collection, error: BackendError) -> BackendError:
        """Set an open collection aside, until it is tried again."""
        name = collection.manifest.name
        if self._open.get(name) is not collection:
            known = self._damaged.get(name)
            return known.error() if known is not None else error
        del self._open[name]
        closing = asyncio.create_task(self._close_damaged(collection))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        return self._note_damage(collection.manifest, error)

    async def _close_damaged(self, collection: Collection) -> None:
        with suppress(LLMBackendError):
            await collection.close()

    @asynccontextmanager
    async def _changing(self, name: str) -> AsyncIterator[None]:
        """Held while a collection of that name is made, opened or deleted."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        async with lock:
            yield

    async def _fits(self, collection: Collection, made_by: Fingerprint, to_write: bool) -> None:
        manifest = collection.manifest
        if manifest.made_by is not None:
            was = await threads.database(self.rows.model, manifest.made_by)
            if not was.agrees(made_by):
                raise made_otherwise(manifest, was, made_by)
            if manifest.embedding_model != made_by.model:
                log.warning(
                    "the embedding model of collection %r is called %r now, and was %r: its vectors are the same",
                    *(manifest.name, made_by.model, manifest.embedding_model),
                )
                await self._note_model(collection, replace(manifest, embedding_model=made_by.model))
        elif manifest.embedding_model not in {made_by.model, *self.embedder.names}:
            raise made_otherwise(manifest, None, made_by)
        elif to_write:
            if not await self._made_alike(collection, made_by):
                raise made_otherwise(manifest, None, made_by)
            known = await threads.database(self.rows.model_id, made_by)
            await self._note_model(
                collection, replace(manifest, embedding_model=made_by.model, made_by=known)
            )

    async def _made_alike(self, collection: Collection, made_by: Fingerprint) -> bool:
        """Whether a stored chunk, embedded again, has the vector that it has; for a collection without a fingerprint."""
        stored = await collection.run(collection.index.read, SAMPLE, None)
        for chunk, vector in zip(stored.chunks, stored.vectors, strict=True):
            if vector.any():
                again = await self.embedder.uncached.embed([chunk.in_context], role="passage")
                same = len(again.values[0]) == len(vector) and again.values[0] @ vector >= AGREE
                return bool(same) and again.made_by is not None and again.made_by.agrees(made_by)
        return True

    async def _note_model(self, collection: Collection, manifest: Manifest) -> None:
        before = collection.manifest
        await threads.database(self.rows.note_model, manifest)
        if collection.manifest is before:  # else it was exchanged meanwhile
            collection.manifest = self._manifests[manifest.name] = manifest

    async def get_or_create(self, name: str, chunk_size: int | None, chunk_overlap: int | None) -> Collection:
        """As `open`, making it first if need be; raises Conflict if it was made with another chunking."""
        await self.learn()
        if name not in self._manifests:
            try:
                return await self.create(name, chunk_size, chunk_overlap)
            except Conflict:
                pass  # somebody else made it meanwhile
        return await self.matching(name, chunk_size, chunk_overlap)

    async def matching(self, name: str, chunk_size: int | None, chunk_overlap: int | None) -> Collection:
        """As `open`; raises Conflict, too, if it was made with another chunking."""
        collection = await self.open(name)
        made = collection.manifest
        for what, asked, is_now in (
            ("chunk_size", chunk_size, made.chunk_size),
            ("chunk_overlap", chunk_overlap, made.chunk_overlap),
        ):
            if asked is not None and asked != is_now:
                raise Conflict(
                    f"collection {name!r} was made with {what} {is_now}, not {asked}: leave it out, "
                    "or delete the collection and ingest anew",
                    details={"collection": name, what: is_now},
                )
        return collection

    async def learn(self) -> None:
        """Know of what other processes on the same database and Qdrant server have made, exchanged and deleted."""
        if len(self._engines) > 1:  # else they are in this process's data directory
            async with self._rows_changing:
                self._manifests = {one.name: one for one in await threads.database(self.rows.all)}
            for name, collection in list(self._open.items()):
                now = self._manifests.get(name)
                if now is not None and now.physical_collection == collection.manifest.physical_collection:
                    collection.manifest = now
                if collection.look is not None and (
                    now is None or now.physical_collection != collection.manifest.physical_collection
                ):
                    with suppress(LLMBackendError):
                        await collection.look(collection)

    def _looks(self, manifest: Manifest) -> Callable[[Collection], Awaitable[None]] | None:
        return self._look if self.engine(manifest).shared else None

    async def _look(self, collection: Collection) -> None:
        """See what other processes have made of a collection: whatever is in its place now is opened.

        Raises NotFound if it was deleted, and Conflict if another model made its vectors now.
        """
        async with collection.looking:
            was = collection.manifest
            now, collection.frozen = await threads.database(self.rows.find, was.name)
            if now is None:
                collection.closed = True
                self._manifests.pop(was.name, None)
                self._open.pop(was.name, None)
                await collection.index.threads(collection.index.close)
                raise missing(was.name)
            if now.physical_collection == was.physical_collection:
                collection.manifest = now
            else:
                now, index = await self._opened_as_it_is(now)
                before, collection.index.now = collection.index.now, index
                collection.manifest = self._manifests[was.name] = now
                collection.reopened += 1
                await before.threads(before.close)
                if now.embedding_model != was.embedding_model:
                    raise exchanged(was.name)

    async def set_indexes(self, name: str, changes: Mapping[str, FieldType | None]) -> Collection:
        """Make, change or (None) remove indexes of metadata fields. Raises NotFound, InvalidRequest if they are too many.

        In Edge they are built in the background: filters find the same without them.
        """
        collection = await self.open(name)
        now: dict[str, FieldType | None] = {**collection.manifest.indexes, **changes}
        declared = {field: kind for field, kind in now.items() if kind is not None}
        require_few(declared)
        await collection.run(collection.index.set_indexes, changes, declared)
        async with collection.looking:
            note = partial(self.rows.index, collection.manifest, changes)
            manifest = dataclasses.replace(collection.manifest, indexes=await threads.database(note))
            collection.manifest = self._manifests[name] = manifest
        self.after_flush(collection)  # it may have to be rebuilt for them
        return collection

    @property
    def open_count(self) -> int:
        return len(self._open)

    def names(self) -> list[str]:
        return sorted(self._manifests)

    def described(self, name: str) -> Manifest:
        """What a collection was made with, for which it need not be opened; raises NotFound."""
        if name not in self._manifests:
            raise missing(name)
        return self._manifests[name]

    async def delete(self, name: str) -> int | None:
        """Remove a collection; returns how many documents it had, None if it is damaged. Raises NotFound."""
        documents: int | None = None
        collection: Collection | None = None
        try:
            collection = await self.open(name)
            documents, _ = await collection.run(collection.index.count)
        except BackendError as error:
            if not (damaged(error) or gone(error)):
                raise
        async with self._changing(name):
            collection = self._open.get(name)
            if name not in self._manifests:
                raise missing(name)
            with CancelScope(shield=True):
                if collection is not None:
                    await self._closed_whatever(collection)
                async with self._rows_changing:
                    manifest = self._manifests.pop(name)
                    self._open.pop(name, None)
                    self._damaged.pop(name, None)
                    await threads.database(self.rows.delete, manifest)
                await self.drop(manifest)
        return documents

    async def _closed_whatever(self, collection: Collection) -> None:
        """Close one that is to be deleted, or the last thing before the end: a failure keeps nothing from that."""
        try:
            await collection.close()
        except BackendError as error:
            log.warning("closing collection %r failed: %s", collection.manifest.name, error)

    async def swap(self, collection: Collection, new: Manifest, index: VectorIndex) -> None:
        """Put another index in the place of a collection's, while its write lock is held; the old one goes.

        Raises Conflict if another process was faster.
        """
        old, before = collection.manifest, collection.index.now
        with CancelScope(shield=True):
            async with collection.looking:
                await threads.database(partial(self.rows.swap, old, new, frozen=collection.look is not None))
                index.take_over(before)
                collection.index.now = index
                # Its indexes may have changed meanwhile.
                now = dataclasses.replace(new, indexes=collection.manifest.indexes)
                collection.manifest = self._manifests[new.name] = now
                collection.look = self._looks(new)
            if now.indexes != new.indexes:
                await index.threads(index.set_indexes, now.indexes, now.indexes)
            await collection.idle()  # readers of the old one
            await before.threads(before.close)
            await self.drop(old)

    @asynccontextmanager
    async def frozen(self, collection: Collection) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Other processes do not write to the collection meanwhile, as long as what this gives is called now and then.

        Raises Conflict if one of them was faster.
        """
        manifest = collection.manifest
        if collection.look is None:
            yield partial(asyncio.sleep, 0)
            return
        await threads.database(self.rows.freeze, manifest)
        try:
            yield partial(threads.database, partial(self.rows.freeze, manifest, longer=True))
        finally:
            with CancelScope(shield=True):
                await threads.database(self.rows.thaw, manifest)

    async def drop(self, manifest: Manifest) -> None:
        """Remove an orphaned physical collection; what cannot be removed now is at the next start."""
        with CancelScope(shield=True):
            await self._drop(manifest.physical_collection.id, manifest.engine)

    async def tidy(self) -> None:
        """Remove what a process that was killed left unfinished, or had no time to remove."""
        for physical_id, engine in await threads.database(self.rows.orphans):
            await self._drop(physical_id, engine)

    async def tidy_after_jobs(self, unfinished: Callable[[Sequence[str]], Awaitable[set[str]]]) -> None:
        """Remove what jobs left that will not go on: `unfinished` tells which of some may."""
        left = await threads.database(self.rows.left_by_jobs)
        going_on = await unfinished([job for _, _, job in left]) if left else set()
        for physical_id, engine, job in left:
            if job not in going_on:
                await self._drop(physical_id, engine)

    async def _drop(self, physical_id: str, engine: str) -> None:
        try:
            there = self._engines[engine]
            await there.threads(there.drop, physical_id)
        except (KeyError, OSError, LLMBackendError) as error:
            log.warning("vectors of %s in %s could not be removed yet: %r", physical_id, engine, error)
        else:
            await threads.database(self.rows.removed, physical_id)

    async def close(self) -> None:
        for lock in list(self._locks.values()):  # what is being opened is closed, too
            async with lock:
                pass
        while self._open:
            _, collection = self._open.popitem()
            await self._closed_whatever(collection)
        if self._closing:
            await asyncio.wait(self._closing)
        for engine in self._engines.values():
            await engine.threads(engine.close)

    def engine(self, manifest: Manifest) -> VectorEngine:
        """The engine that a collection is in; raises Conflict if it is not set any more."""
        engine = self._engines.get(manifest.engine)
        if engine is None:
            raise Conflict(
                f"collection {manifest.name!r} is on a Qdrant server: set QDRANT_URL to it again",
                details={"collection": manifest.name},
            )
        return engine

    async def opened(self, manifest: Manifest, *, repair: bool = True) -> VectorIndex:
        """The index of a manifest, whether a collection has it yet or not."""
        engine = self.engine(manifest)
        return await engine.threads(partial(engine.open, manifest.physical_collection, repair=repair))

    async def _opened_as_it_is(self, manifest: Manifest) -> tuple[Manifest, VectorIndex]:
        """Its index, or, if another process exchanges it meanwhile, that in its place, with the manifest of that."""
        while True:
            try:
                return manifest, await self.opened(manifest)
            except BackendError as error:
                now, _ = await threads.database(self.rows.find, manifest.name)
                if not gone(error) or now is None or now.physical_collection == manifest.physical_collection:
                    raise
                manifest = now

    async def _opened(self, manifest: Manifest, index: VectorIndex | None = None) -> Collection:
        collection: Collection
        if index is None:
            manifest, index = await self._opened_as_it_is(manifest)
            self._manifests[manifest.name] = manifest
        live = LiveIndex(index, lambda: self.after_flush(collection))
        collection = Collection(manifest, live, look=self._looks(manifest), fits=self._fits)
        collection.broken = partial(self._broke, collection)
        self.after_flush(collection)  # it may have ended before it got its graph
        return collection
