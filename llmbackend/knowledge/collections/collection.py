"""A collection: searched, read and written to. Its index is opened when it is first used, and may be exchanged."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from collections.abc import Collection as Some
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope

from ... import plugins, threads, tracing
from ...access.names import missing
from ...errors import BackendError, Conflict, LLMBackendError
from ...inference.cache import CachedEmbedder
from ...inference.fingerprint import AGREE, Fingerprint
from ..chunks.own_parser import OwnParser
from ..engines.filters import Condition
from ..engines.indexes import FieldType, Indexes, needed
from ..engines.interface import (
    Chunk,
    Found,
    Ids,
    List,
    Mode,
    Page,
    Scored,
    Stored,
    VectorIndex,
    damaged,
    gone,
)
from .manifests import Manifest, Manifests, exchanged, made_otherwise
from .open_indexes import OpenIndexes
from .physical import PhysicalCollections
from .stored import NOTHING, Require, Size, StorageLimits, size
from .written import Written

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

Version = tuple[str, str]
"""A document's id, and the hash of its content."""

GRAPH = "indexed"

THREADS_EACH = 16
"""Engine threads that one collection may use: if its calls hang, the others still have threads."""

SAMPLE = 8
"""Chunks that are read to find one whose vector is not all zeros (a text without words has such a vector)."""

TRIED_AGAIN = 60.0
"""Seconds until a damaged collection is opened again: it may have been restored."""


@dataclass(frozen=True)
class CollectionServices:
    """What the collections of a data directory share."""

    manifests: Manifests
    physical: PhysicalCollections
    embedder: CachedEmbedder
    open: OpenIndexes
    written: Written[Collection]
    plugin_seconds: float = plugins.SECONDS
    """Seconds that one call of a project's own parser may take."""
    limits: StorageLimits | None = None
    measure: Callable[[str], Awaitable[None]] | None = None
    """Have what a project has stored be known."""


class _Rebuilding:
    def __init__(self, what: str) -> None:
        self.what = what
        self.scope = CancelScope()
        self.ended = asyncio.Event()

    async def end(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


@dataclass
class _Damage:
    """Why a collection is set aside, and until when (`time.monotonic`) it is not opened again."""

    until: float
    error: BackendError


class Collection:
    """One collection, whichever physical collection it is in, open or not.

    Each method that asks the index raises NotFound if the collection was deleted meanwhile, and BackendError, of which
    `damaged` is true, if its index is.
    """

    def __init__(
        self, manifest: Manifest, services: CollectionServices, counts: tuple[int, int] | None = None
    ) -> None:
        """`counts` come from the database, and are valid until something is written."""
        self.manifest = manifest
        self.closed = False
        self.opening_seconds = 0.0
        self.changed: set[str] | None = None
        """Ids of the documents written since this was set to an empty set."""
        self._services = services
        self._index: VectorIndex | None = None
        self._opening: asyncio.Task[None] | None = None
        self._retired: set[asyncio.Task[None]] = set()
        """Tasks that close damaged indexes."""
        self._damage: _Damage | None = None
        self._stale = self._frozen = False
        """Whether another process has exchanged or deleted it, and whether one is about to."""
        self._exchanges = 0
        self._counts, self._counts_kept = counts, counts is not None
        self._measured = False
        """Whether what the database has of its size is right."""
        self._unflushed = False
        self._flushing = asyncio.Lock()
        self._writers = self._writes = 0
        self._changing = asyncio.Lock()
        """Held while the index is opened, closed or exchanged."""
        self._writing = asyncio.Lock()
        self._rebuilding: _Rebuilding | None = None
        self._accepted: tuple[Manifest, Fingerprint] | None = None
        self._at_work: set[asyncio.Future[None]] = set()
        self._share = asyncio.Semaphore(THREADS_EACH)

    @property
    def name(self) -> str:
        """Its name as the current caller writes it."""
        return self.manifest.called

    @property
    def chunking(self) -> tuple[int, int]:
        """Size and overlap of its chunks, in tokens."""
        return self.manifest.chunk_size, self.manifest.chunk_overlap

    @property
    def parser(self) -> OwnParser | None:
        """The project's own that splits its documents. Raises Conflict if it is not installed (any more)."""
        name = self.manifest.parser
        if name is None:
            return None
        if lacks := self.lacks_parser:
            raise Conflict(lacks, details={"collection": self.name, "parser": name})
        return OwnParser(plugins.NODE_PARSERS[name], self._services.plugin_seconds, *self.chunking)

    @property
    def lacks_parser(self) -> str | None:
        """Why its documents cannot be split: searching goes on."""
        name = self.manifest.parser
        if name is None or name in plugins.NODE_PARSERS:
            return None
        return (
            f"collection {self.name!r} is split by the node parser {name!r}, which is not here. {plugins.HOW}"
        )

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it, exchange it and delete it."""
        return self._services.physical.shared(self.manifest)

    @property
    def is_open(self) -> bool:
        return self._index is not None

    @property
    def counts(self) -> tuple[int, int] | None:
        """The numbers of documents and chunks, if known without asking the index."""
        return self._counts

    @property
    def in_use(self) -> bool:
        busy = self._at_work or self._writers or self._rebuilding or self._unflushed
        return bool(busy) or self._writing.locked() or self._changing.locked()

    # Reading

    async def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        mode: Mode,
        top_k: int,
        conditions: Sequence[Condition] = (),
        weight: float = 1.0,
    ) -> list[Found]:
        """The best chunks for a query, best first; see `VectorIndex.search`."""
        return await self._call(
            lambda index: index.search(
                text, vector, mode=mode, top_k=top_k, conditions=conditions, weight=weight
            ),
            lambda index: index.at_once(text, top_k, conditions),
        )

    async def lists(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        which: Sequence[List],
        limit: int,
        conditions: Sequence[Condition] = (),
        *,
        current: bool = False,
    ) -> dict[List, list[Scored]]:
        return await self._call(
            lambda index: index.lists(text, vector, which, limit, conditions, current=current)
        )

    async def chunks(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Chunk]:
        return await self._call(lambda index: index.chunks(ids))

    async def documents(self, limit: int, cursor: str | None) -> Page:
        return await self._call(lambda index: index.documents(limit, cursor))

    async def passages(
        self,
        limit: int,
        cursor: str | None,
        document_ids: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Page:
        return await self._call(lambda index: index.passages(limit, cursor, document_ids, conditions))

    async def read(self, limit: int, cursor: str | None, document_ids: Sequence[str] | None = None) -> Stored:
        return await self._call(lambda index: index.read(limit, cursor, document_ids))

    async def ids(self, limit: int, cursor: str | None) -> Ids:
        return await self._call(lambda index: index.ids(limit, cursor))

    async def there(self, ids: Some[uuid.UUID]) -> set[uuid.UUID]:
        return await self._call(lambda index: index.there(ids))

    async def known(self, document_ids: Sequence[str]) -> set[str]:
        return await self._call(lambda index: index.known(document_ids))

    async def stored(self, versions: Sequence[Version]) -> set[str]:
        return await self._call(lambda index: index.stored(versions))

    async def lacks(self, indexes: Indexes) -> bool:
        return await self._call(lambda index: index.lacks(indexes))

    async def count(self) -> tuple[int, int]:
        """The numbers of documents and chunks. They are known of a closed collection, too, unless the process was
        killed.
        """
        if self.closed:
            raise missing(self.name)
        if self._counts is not None:
            return self._counts
        writes = self._writes
        counts = await self._call(lambda index: index.count())
        if not (self.shared or self._writers) and writes == self._writes:
            self._counts = counts
        return counts

    async def counted(self) -> tuple[int, int] | None:
        """As `count`; None where that would open an index in this process, or where it is damaged."""
        if self._counts is None and not self.is_open and not self.shared:
            return None
        try:
            return await self.count()
        except BackendError as error:
            if damaged(error) or gone(error):
                return None
            raise

    # Writing

    async def require_room(self, characters: int) -> None:
        """Raise InsufficientStorage, before anything is embedded, if chunks with so much text could not be written."""
        await self._call(lambda index: index.require_room(characters))

    async def upsert(
        self,
        versions: Sequence[Version],
        chunks: Sequence[Chunk],
        vectors: NDArray[np.float32],
        made_by: Fingerprint | None = None,
    ) -> int:
        """Store versions of documents in place of older ones; returns how many documents had such.

        `chunks` are those of all versions; a document's first one, its head, makes its version count and comes last.
        A failure leaves nothing of them, and a cancelled call ends when all is written. Raises Conflict if another
        model than `made_by` made the collection's vectors, and Overloaded if its project has stored what it may.
        """
        require = self._storage_limits
        if require is not None and self._services.measure is not None:
            await self._services.measure(self.manifest.project)
        async with self.writing():
            if made_by is not None:
                await self.accept(made_by, to_write=True)
            names = [name for name, _ in versions]
            note = partial(self._note_size, require)
            return await _to_its_end(
                self._write(names, lambda index: _store(index, versions, chunks, vectors, note))
            )

    async def delete(self, document_ids: Sequence[str], *, flush: bool = False) -> int:
        """Remove documents; returns how many there were. A cancelled call ends when all are removed."""
        async with self.writing():
            work = partial(_removed, document_ids=document_ids, note=self._note_size)
            deleted = await _to_its_end(self._write(document_ids, work))
            if flush:
                await self.flush()
        return deleted

    async def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        async with self._flushing:  # else a second call would return before the first has ended
            if not self._unflushed:
                return
            self._unflushed = False
            try:
                await self._call(lambda index: index.flush())
            except BaseException:
                self._unflushed = True
                raise
        self._services.written.put(self)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Held while a batch is written.

        Raises Conflict, before or after, if another process has exchanged it, or is about to: what was written may be
        lost then.
        """
        async with self._writing:
            if self.closed:
                raise missing(self.name)
            await self._require_unfrozen()
            before = self._exchanges
            yield
            await self._require_unfrozen()
            if self._exchanges != before:
                raise exchanged(self.name)

    def note(self, document_ids: Iterable[str]) -> None:
        """Remember documents that may have been written."""
        if self.changed is not None:
            self.changed.update(document_ids)

    async def _write(self, document_ids: Sequence[str], work: Callable[[VectorIndex], _Result]) -> _Result:
        self.note(document_ids)
        self._writers += 1
        try:
            await self._ready()
            await self._measure()
            if self._counts_kept:
                await threads.database(self._services.manifests.note_counts, self.manifest, None)
                self._counts_kept = False
            self._counts = None
            self._writes += 1
            return await self._call(work)
        finally:
            self._writers -= 1
            self._counts, self._unflushed = None, True

    # What it takes

    @property
    def _storage_limits(self) -> Require | None:
        """What keeps whoever calls now from storing more in its project."""
        limits = self._services.limits
        return limits.of(tracing.current().caller, self.manifest.project) if limits is not None else None

    async def measure(self) -> None:
        """See to it that the database has how much it has stored."""
        async with self.writing():
            await self._ready()
            await self._measure()

    async def _measure(self) -> None:
        """While nobody else in this process writes to it."""
        if self._measured:
            return
        known = await threads.database(self._services.manifests.size, self.manifest)
        # What other processes have written, and not noted yet, is none of our business.
        if known is None or (not self.shared and known.chunks != (await self.count())[1]):
            await self._count_anew()
        self._measured = True

    async def _count_anew(self) -> None:
        total, cursor = NOTHING, None
        while True:
            page = await self.passages(1000, cursor)
            total, cursor = total.more(size(page.heads)), page.cursor
            if cursor is None:
                break
        await threads.database(self._services.manifests.measured, self.manifest, total)

    def _note_size(self, require: Require | None, more: Size) -> None:
        """Blocks."""
        self._services.manifests.grow(self.manifest, more, require)

    async def _require_unfrozen(self) -> None:
        if self.shared:
            await self.refresh()
            if self._frozen:
                raise exchanged(self.name)

    # Models and indexes of metadata fields

    async def accept(self, made_by: Fingerprint, *, to_write: bool = False) -> None:
        """Raise Conflict if the collection's vectors are another model's than these."""
        known = self._accepted
        if known is None or known[0] is not self.manifest or known[1] is not made_by:
            await self._require_made_alike(made_by, to_write)
            if self.manifest.made_by is not None:
                self._accepted = self.manifest, made_by

    async def _require_made_alike(self, made_by: Fingerprint, to_write: bool) -> None:
        manifest, manifests = self.manifest, self._services.manifests
        if manifest.made_by is not None:
            was = await threads.database(manifests.model, manifest.made_by)
            if not was.agrees(made_by):
                raise made_otherwise(manifest, was, made_by)
            if manifest.embedding_model != made_by.model:
                log.warning(
                    "the embedding model of collection %r is called %r now, and was %r: its vectors are the same",
                    *(manifest.called, made_by.model, manifest.embedding_model),
                )
                await self._note_model(replace(manifest, embedding_model=made_by.model))
        elif manifest.embedding_model not in {made_by.model, *self._services.embedder.names}:
            raise made_otherwise(manifest, None, made_by)
        elif to_write:
            if not await self._made_by(made_by):
                raise made_otherwise(manifest, None, made_by)
            known = await threads.database(manifests.model_id, made_by)
            await self._note_model(replace(manifest, embedding_model=made_by.model, made_by=known))

    async def _made_by(self, model: Fingerprint) -> bool:
        """Whether a stored chunk gets the same vector when it is embedded again; for a collection without a
        fingerprint.
        """
        stored = await self.read(SAMPLE, None)
        for chunk, vector in zip(stored.chunks, stored.vectors, strict=True):
            if vector.any():
                again = await self._services.embedder.uncached.embed([chunk.in_context], role="passage")
                same = len(again.values[0]) == len(vector) and again.values[0] @ vector >= AGREE
                return bool(same) and again.made_by is not None and again.made_by.agrees(model)
        return True

    async def _note_model(self, manifest: Manifest) -> None:
        before = self.manifest
        await threads.database(self._services.manifests.note_model, manifest)
        if self.manifest is before:  # else it was exchanged meanwhile
            self.manifest = manifest

    async def prepare(self, where: Sequence[Condition]) -> None:
        """Called before a search by a filter: the index is told of fields that are not declared."""
        declared = self.manifest.indexes
        if others := {name: kind for name, kind in needed(where).items() if name not in declared}:
            await self._call(lambda index: index.prepare(others, declared))

    async def set_indexes(self, changes: Mapping[str, FieldType | None]) -> None:
        """Make, change or (None) remove indexes of metadata fields.

        In Edge they are built in the background: filters find the same without them.
        """
        now = {**self.manifest.indexes, **changes}
        declared = {field: kind for field, kind in now.items() if kind is not None}
        await self._call(lambda index: index.set_indexes(changes, declared))
        async with self._changing:
            note = partial(self._services.manifests.index, self.manifest, changes)
            self.manifest = replace(self.manifest, indexes=await threads.database(note))
        self._services.written.put(self)  # it may have to be rebuilt for them

    # The index

    async def _call(
        self,
        work: Callable[[VectorIndex], _Result],
        at_once: Callable[[VectorIndex], bool] = lambda index: False,
    ) -> _Result:
        """`work(index)`, in a thread, or `at_once`; again with the new index where another process has exchanged it."""
        while True:
            index = await self._ready()
            try:
                # Nothing can close it meanwhile: closing begins on this loop.
                return work(index) if at_once(index) else await self._in_thread(index, work)
            except BackendError as error:
                if damaged(error):
                    raise self._set_aside(index, error) from error
                if not self.shared or not gone(error):
                    raise
                await self.refresh()
                if self._index is index:
                    raise

    async def _ready(self) -> VectorIndex:
        """The index as it is now, opened if need be."""
        if self._stale:
            await self.refresh()
        while (index := self._index) is None:
            if self.closed:
                raise missing(self.name)
            if self._opening is None:
                # In a task, so that opening goes on for others if the first caller is cancelled.
                self._opening = asyncio.create_task(self._open())
                self._opening.add_done_callback(_looked_at)
            await asyncio.shield(self._opening)
        if self.closed:
            raise missing(self.name)
        if not self.shared:
            self._services.open.used(self)
        return index

    async def _open(self) -> None:
        try:
            async with self._changing:
                if self.closed:
                    raise missing(self.name)
                # Finding out that it is damaged may take long.
                if self._damage is not None and time.monotonic() < self._damage.until:
                    raise _again(self._damage.error)
                if self._retired:
                    await asyncio.wait(self._retired)
                began = time.monotonic()
                try:
                    self.manifest, self._index = await self._services.physical.open_current(self.manifest)
                except BackendError as error:
                    if damaged(error):
                        raise self._note_damage(error) from error
                    raise
                self.opening_seconds = time.monotonic() - began
                self._damage = None
                self._services.written.put(self)  # the process may have ended before the graph was built
        finally:
            self._opening = None

    async def _in_thread(self, index: VectorIndex, work: Callable[[VectorIndex], _Result]) -> _Result:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._at_work.add(ended)
        begun = through = given_up = False

        def run() -> _Result:
            nonlocal begun, through
            begun = True
            try:
                return work(index)
            finally:
                through = True
                if given_up:
                    loop.call_soon_threadsafe(self._end, ended)

        try:
            async with self._share:
                return await index.threads(run)
        finally:
            given_up = True
            if through or not begun:  # else the call was cancelled, and its thread goes on
                self._end(ended)

    def _end(self, ended: asyncio.Future[None]) -> None:
        self._at_work.discard(ended)
        if not ended.done():
            ended.set_result(None)

    async def _idle(self) -> None:
        """Wait for the calls that are running now."""
        if self._at_work:
            await asyncio.wait(set(self._at_work))

    def _set_aside(self, index: VectorIndex, error: BackendError) -> BackendError:
        """Put a damaged index aside; it is opened again after a while."""
        if self._index is not index:
            return _again(self._damage.error) if self._damage is not None else error
        self._index = None
        closing = asyncio.create_task(self._retire(index))
        self._retired.add(closing)
        closing.add_done_callback(self._retired.discard)
        return self._note_damage(error)

    async def _retire(self, index: VectorIndex) -> None:
        self._services.open.closed(self)
        await self._idle()
        with suppress(LLMBackendError):
            await index.threads(index.close)

    def _note_damage(self, error: BackendError) -> BackendError:
        name = self.name
        told = BackendError(
            f"collection {name!r} is damaged ({error}): delete it by delete_collection({name!r}) and ingest or import "
            f"it again, or put the folder of {self.manifest.physical_collection.id} back from a backup; it is tried "
            f"again in {TRIED_AGAIN:.0f} s",
            details={**error.details, "collection": name, "damaged": True},
        )
        self._damage = _Damage(time.monotonic() + TRIED_AGAIN, told)
        self._counts, self._measured = None, False
        log.error("collection %r is set aside as damaged: %s", name, error)
        return _again(told)

    async def release(self) -> None:
        """Close the index, if nobody uses it; it is opened again when somebody does."""
        if self.in_use or self._index is None:
            return
        async with self._changing:
            index, self._index = self._index, None
            try:
                await self._close(index)
            except BackendError as error:
                log.warning("closing collection %r failed: %s", self.name, error)

    async def _close(self, index: VectorIndex) -> None:
        """The counts are kept, so that counting does not open it again."""
        self._services.open.closed(self)
        counts: tuple[int, int] | None = None
        try:
            if not self.shared:
                counts = self._counts = self._counts or await index.threads(index.count)
        finally:
            await index.threads(index.close)
            self._unflushed = False
        if counts is not None and not self._counts_kept:
            await threads.database(self._services.manifests.note_counts, self.manifest, counts)
            self._counts_kept = True

    async def close(self) -> None:
        """Stop what is going on, and close the index for good."""
        if self._rebuilding is not None:
            await self._rebuilding.end()
        async with self._writing:
            self.closed = True
            async with self._changing:
                index, self._index = self._index, None
                await self._idle()  # who still reads
                if index is not None:
                    await self._close(index)
                if self._retired:
                    await asyncio.wait(self._retired)

    # Exchange of the physical collection

    def told(self, now: Manifest) -> None:
        """Take note of the database's manifest; if another process has exchanged the collection, it is opened anew
        when used next.
        """
        if now.physical_collection == self.manifest.physical_collection:
            self.manifest = now
        elif self.shared:
            self._stale = True

    async def refresh(self) -> None:
        """Look whether another process has exchanged or deleted it; open what has taken its place.

        Raises NotFound if it was deleted, and Conflict if another model made its vectors now.
        """
        async with self._changing:
            was, before = self.manifest, self._index
            now, self._frozen = await threads.database(self._services.manifests.find, was.qualified)
            if now is not None and now.physical_collection == was.physical_collection:
                self.manifest, self._stale = now, False
                return
            if now is None:
                self.closed, self._index = True, None
            elif before is not None:
                now, self._index = await self._services.physical.open_current(now)
            if now is not None:
                self.manifest, self._stale, self._damage = now, False, None
                self._exchanges += 1
            if before is not None:
                await before.threads(before.close)
            if now is None:
                raise missing(was.called)
            if now.embedding_model != was.embedding_model:
                raise exchanged(was.called)

    async def exchange(self, new: Manifest, index: VectorIndex) -> None:
        """Put another physical collection in the place of its own, while `writing` is held; the old one goes.

        Raises Conflict if another process was faster.
        """
        with CancelScope(shield=True):
            async with self._changing:
                old, before = self.manifest, self._index
                await threads.database(partial(self._services.manifests.swap, old, new, frozen=self.shared))
                # The declared indexes may have changed meanwhile.
                if before is not None:
                    index.take_over(before)
                self.manifest, self._index = replace(new, indexes=old.indexes), index
                self._counts, self._counts_kept, self._damage = None, False, None
                self._services.open.closed(self)
            if old.indexes != new.indexes:
                await index.threads(index.set_indexes, old.indexes, old.indexes)
            await self._idle()  # readers of the old one
            if before is not None:
                await before.threads(before.close)
            await self._services.physical.drop(old)
        self._services.written.put(self)  # it may have no graph yet

    @asynccontextmanager
    async def settled(self) -> AsyncIterator[None]:
        """Its index is neither opened, closed nor exchanged meanwhile: the manifest is what the database has."""
        async with self._changing:
            yield

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Other processes do not write to it meanwhile, as long as what this gives is called now and then.

        Raises Conflict if one of them was faster.
        """
        manifest, manifests = self.manifest, self._services.manifests
        if not self.shared:
            yield partial(asyncio.sleep, 0)
            return
        await threads.database(manifests.freeze, manifest)
        try:
            yield partial(threads.database, partial(manifests.freeze, manifest, longer=True))
        finally:
            with CancelScope(shield=True):
                await threads.database(manifests.thaw, manifest)

    @asynccontextmanager
    async def rebuilding(self, what: str) -> AsyncIterator[None]:
        """Held while a new physical collection is made to take the place of this one's.

        Building the graph gives way to a rebuild that a caller asked for. Raises Conflict if another rebuild is under
        way, or if this one is stopped by a deletion.
        """
        if self._rebuilding is not None and self._rebuilding.what == GRAPH != what:
            await self._rebuilding.end()
        if self._rebuilding is not None:
            raise Conflict(
                f"collection {self.name!r} is being {self._rebuilding.what}: wait until that is done",
                details={"collection": self.name},
            )
        rebuilding = self._rebuilding = _Rebuilding(what)
        try:
            with rebuilding.scope:
                yield
        finally:
            self._rebuilding = None
            rebuilding.ended.set()
        if rebuilding.scope.cancelled_caught:
            raise Conflict(
                f"collection {self.name!r} was closed or deleted while it was being {what}",
                details={"collection": self.name},
            )


def _again(error: BackendError) -> BackendError:
    """A copy, since each caller gets an exception object of its own."""
    return BackendError(error.message, details=dict(error.details))


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Mark the exception as seen: the callers may all have been cancelled."""
    if not task.cancelled():
        task.exception()


async def _to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Let the work end even if the caller is cancelled, or documents would stay half written."""
    task = asyncio.create_task(work)
    try:
        with CancelScope(shield=True):
            await asyncio.wait([task])
    except asyncio.CancelledError:  # by the task's own cancel(), which does not heed the scope
        with CancelScope(shield=True):
            await asyncio.wait([task])
        raise
    return task.result()


def _sizes(index: VectorIndex, document_ids: Sequence[str]) -> Size:
    """What these documents take, in whatever versions. Blocks."""
    total, cursor = NOTHING, None
    while document_ids:
        page = index.passages(1000, cursor, document_ids)
        total, cursor = total.more(size(page.heads)), page.cursor
        if cursor is None:
            break
    return total


def _removed(
    index: VectorIndex, *, document_ids: Sequence[str], note: Callable[[Require | None, Size], None]
) -> int:
    """Remove documents; returns how many there were. Blocks."""
    gone = _sizes(index, document_ids)
    deleted = index.delete(document_ids)
    note(None, NOTHING.less(gone))
    return deleted


def _store(
    index: VectorIndex,
    versions: Sequence[Version],
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    note: Callable[[Size], None],
) -> int:
    """Write versions, then remove the older ones; returns how many documents had such. Blocks.

    What is `note`d before it is written is too much, where the process is killed meanwhile, and never too little.
    """
    older = index.known([name for name, _ in versions])
    more = size(chunks).less(_sizes(index, sorted(older)))
    note(more)
    replaced = [version for version in versions if version[0] in older]
    # Since the versions were looked up, others may have written the same documents.
    stored = index.stored(replaced) if replaced else set()
    try:
        index.upsert(chunks, vectors)
        index.keep_only(versions, older)
    except BaseException:
        index.discard([version for version in versions if version[0] not in stored])
        note(NOTHING.less(more))
        raise
    return len(replaced)
