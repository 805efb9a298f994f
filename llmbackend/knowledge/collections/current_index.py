"""A collection's current index: opens it when first used, calls it in threads, sets it aside if it is damaged, exchanges
it for another, and closes it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from anyio import CancelScope

from ... import panics, threads, tracing
from ...access.names import missing
from ...access.room import Require
from ...engines.interface import VectorIndex, damaged, gone
from ...errors import BackendError, Conflict, LLMBackendError
from ...inference.cached_embedder import CachedEmbedder
from ...turns import Places
from .manifests import Manifest, Manifests, exchanged
from .open_indexes import OpenIndexes
from .physical import PhysicalCollections
from .written import Written

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

GRAPH = "indexed"

THREADS_EACH = 16
"""Most engine threads that one collection uses, so that others have threads if its calls hang."""

TRIED_AGAIN = 60.0
"""Seconds until opening a damaged collection is tried again: its folder may have been restored."""


@dataclass(frozen=True)
class CollectionServices:
    """What the collections of a data directory share."""

    manifests: Manifests
    physical: PhysicalCollections
    embedder: CachedEmbedder
    open: OpenIndexes
    written: Written[Any]
    plugin_seconds: float
    """Seconds that one call of a project's own parser may take."""
    storage_limits: Callable[[str], Awaitable[Require | None]]
    """Returns the check that the current caller may store more in a project; None without limits."""


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
    """Why a collection is set aside, and when (`time.monotonic`) opening it is tried again."""

    until: float
    error: BackendError


class CurrentIndex:
    """The base class of Collection, with everything about opening, calling, exchanging and closing its index."""

    def __init__(
        self, manifest: Manifest, services: CollectionServices, counts: tuple[int, int] | None
    ) -> None:
        self.manifest = manifest
        self.closed = False
        self.opening_seconds = 0.0
        self._services = services
        self._index: VectorIndex | None = None
        self._opening: asyncio.Task[None] | None = None
        self._preparing = CancelScope()
        """Around the preparation of an opening, which closing and deleting cancel."""
        self._retired: set[asyncio.Task[None]] = set()
        """Tasks that close damaged indexes."""
        self._damage: _Damage | None = None
        self._stale = self._frozen = False
        """`_stale`: another process has exchanged or deleted it; `_frozen`: one is about to exchange it."""
        self._exchanges = 0
        self._counts, self._counts_kept = counts, counts is not None
        self._measured = False
        """Whether the size in the database is known to be right."""
        self._unflushed = False
        self._writers = 0
        self._changing = asyncio.Lock()
        """Held while the index is opened, closed or exchanged."""
        self._writing = asyncio.Lock()
        self._rebuilding: _Rebuilding | None = None
        self._at_work: set[asyncio.Future[None]] = set()
        self._share = Places(THREADS_EACH)

    @property
    def name(self) -> str:
        """Its name as the current caller writes it."""
        return self.manifest.called

    @property
    def shared(self) -> bool:
        """Whether other processes may write to it, exchange it and delete it."""
        return self._services.physical.shared(self.manifest)

    @property
    def is_open(self) -> bool:
        return self._index is not None

    @property
    def in_use(self) -> bool:
        busy = self._at_work or self._writers or self._rebuilding or self._unflushed
        return bool(busy) or self._writing.locked() or self._changing.locked()

    async def _call(
        self,
        work: Callable[[VectorIndex], _Result],
        at_once: Callable[[VectorIndex], bool] = lambda index: False,
    ) -> _Result:
        """Return `work(index)`, run in a thread, or on the loop if `at_once(index)`.

        If another process has exchanged the collection, `work` runs again with the new index.
        """
        while True:
            index = await self._ready()
            try:
                if not at_once(index):
                    return await self._in_thread(index, work)
                with panics.caught():  # as the threads do
                    return work(index)  # nothing can close it meanwhile, since closing begins on this loop
            except BackendError as error:
                if damaged(error):
                    raise self._set_aside(index, error) from error
                if not self.shared or not gone(error):
                    raise
                await self.refresh()
                if self._index is index:
                    raise

    async def _ready(self) -> VectorIndex:
        """Return the current index, opened if needed."""
        if self._stale:
            await self.refresh()
        while (index := self._index) is None:
            if self.closed:
                raise missing(self.name)
            if self._opening is None:
                # In a task, so that opening continues for others if the first caller is cancelled.
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
                # Finding damage may take long, so it is not repeated at once.
                if self._damage is not None and time.monotonic() < self._damage.until:
                    raise _again(self._damage.error)
                if self._retired:
                    await asyncio.wait(self._retired)
                await self._make_quick_to_open()
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

    async def _make_quick_to_open(self) -> None:
        with CancelScope() as self._preparing:
            quick = await self._services.physical.quick_to_open(self.manifest)
            if quick is not self.manifest:
                self.manifest, self._counts_kept = quick, False
        if self._preparing.cancelled_caught:
            raise missing(self.name)

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
            async with self._share.held(tracing.project()):
                return await index.threads(run)
        finally:
            given_up = True
            if through or not begun:  # else the call was cancelled, and its thread is still running
                self._end(ended)

    def _end(self, ended: asyncio.Future[None]) -> None:
        self._at_work.discard(ended)
        if not ended.done():
            ended.set_result(None)

    async def _idle(self) -> None:
        """Wait until the calls that are running now have ended."""
        if self._at_work:
            await asyncio.wait(set(self._at_work))

    def _set_aside(self, index: VectorIndex, error: BackendError) -> BackendError:
        """Close a damaged index, to be opened again after TRIED_AGAIN; return the error to raise."""
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
            f"it again, or restore the folder of {self.manifest.physical_collection.id} from a backup; opening it is "
            f"tried again in {TRIED_AGAIN:.0f} s",
            details={**error.details, "collection": name, "damaged": True},
        )
        self._damage = _Damage(time.monotonic() + TRIED_AGAIN, told)
        self._counts, self._measured = None, False
        log.error("collection %r is set aside as damaged: %s", name, error)
        return _again(told)

    async def release(self) -> None:
        """Close the index if nobody uses it. The next use opens it again."""
        if self.in_use or self._index is None:
            return
        async with self._changing:
            index, self._index = self._index, None
            try:
                await self._close(index)
            except BackendError as error:
                log.warning("closing collection %r failed: %s", self.name, error)

    async def _close(self, index: VectorIndex) -> None:
        """Close the index, and store its counts, so that counting does not open it again."""
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

    def give_up_opening(self) -> None:
        """Stop preparing an opening, because the collection is being closed or deleted; its callers get NotFound."""
        self._preparing.cancel()

    async def close(self) -> None:
        """Stop a rebuild, wait for running calls, and close the index for good."""
        self.give_up_opening()
        if self._rebuilding is not None:
            await self._rebuilding.end()
        async with self._writing:
            self.closed = True
            async with self._changing:
                index, self._index = self._index, None
                await self._idle()  # for running reads
                if index is not None:
                    await self._close(index)
                if self._retired:
                    await asyncio.wait(self._retired)

    # Exchange of the physical collection

    def told(self, now: Manifest) -> None:
        """Take note of the manifest in the database. If another process has exchanged the collection, the next use opens
        the new index.
        """
        if now.physical_collection == self.manifest.physical_collection:
            self.manifest = now
        elif self.shared:
            self._stale = True

    async def refresh(self) -> None:
        """Check whether another process has exchanged or deleted the collection, and if exchanged, open the new index.

        Raises NotFound if it was deleted, and Conflict if its vectors are now by another model.
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
        """Replace the physical collection by another, open one, and remove the old one. Call this with `writing` held.

        Raises Conflict if another process has exchanged or deleted the collection first.
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
        """Keep the index from being opened, closed or exchanged in the block; the manifest is the one in the database."""
        async with self._changing:
            yield

    @asynccontextmanager
    async def frozen(self) -> AsyncIterator[Callable[[], Awaitable[None]]]:
        """Keep other processes from writing in the block. It must await the yielded function at least every FREEZE seconds.

        Raises Conflict if another process has frozen, exchanged or deleted the collection first.
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
        """Hold this while making a new physical collection for this collection.

        A rebuild that a caller asked for stops the building of a graph. Raises Conflict if another rebuild is under way,
        or if this one is stopped because the collection is closed or deleted.
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
    """Return a copy, because each caller needs its own exception object."""
    return BackendError(error.message, details=dict(error.details))


def _looked_at(task: asyncio.Task[Any]) -> None:
    """Mark a task's exception as retrieved, in case all callers were cancelled."""
    if not task.cancelled():
        task.exception()
