"""An open collection: what runs on its index, who writes to it, and what may take its place meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from anyio import CancelScope

from ...errors import BackendError, Conflict, NotFound
from ...inference.fingerprint import Fingerprint
from ..engines.filters import Condition
from ..engines.indexes import needed
from ..engines.interface import damaged, gone
from .live_index import LiveIndex
from .manifests import Manifest, exchanged

_Result = TypeVar("_Result")

GRAPH = "indexed"

THREADS_EACH = 16
"""Threads that one collection may take of its engine's: where its calls hang, others go on."""


class _Rebuilding:
    def __init__(self, what: str) -> None:
        self.what = what
        self.scope = CancelScope()
        self.ended = asyncio.Event()

    async def end(self) -> None:
        self.scope.cancel()
        await self.ended.wait()


async def _any(collection: Collection, made_by: Fingerprint, to_write: bool) -> None:
    """No model is another."""


@dataclass
class Collection:
    """An open collection."""

    manifest: Manifest
    index: LiveIndex
    broken: Callable[[BackendError], BackendError] = lambda error: error
    """Called when its index turns out to be damaged: sets it aside, and tells so."""
    look: Callable[[Collection], Awaitable[None]] | None = None
    """Where other processes may exchange or delete it: see what they have made of it."""
    fits: Callable[[Collection, Fingerprint, bool], Awaitable[None]] = _any
    """Raises Conflict unless vectors by a model may be compared with those here; the last is whether to write them."""
    closed: bool = False
    frozen: bool = False
    """Whether another process is about to exchange it."""
    reopened: int = 0
    """How often another physical collection was found in its place."""
    looking: asyncio.Lock = field(default_factory=asyncio.Lock)
    _rebuilding: _Rebuilding | None = None
    _accepted: tuple[Manifest, Fingerprint] | None = None
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _at_work: set[asyncio.Future[None]] = field(default_factory=set)
    _share: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(THREADS_EACH))

    @property
    def chunking(self) -> tuple[int, int]:
        """Size and overlap of its chunks, in tokens."""
        return self.manifest.chunk_size, self.manifest.chunk_overlap

    async def accept(self, made_by: Fingerprint, *, to_write: bool = False) -> None:
        """Raises Conflict unless vectors by that model may be compared with those that are here, and stored."""
        known = self._accepted
        if known is None or known[0] is not self.manifest or known[1] is not made_by:
            await self.fits(self, made_by, to_write)
            if self.manifest.made_by is not None:
                self._accepted = self.manifest, made_by

    async def run(self, method: Callable[..., _Result], *args: Any) -> _Result:
        """One of the index's methods, in a thread; raises NotFound if the collection was deleted meanwhile."""
        while True:
            used = self.index.now
            try:
                return await self._run(method, *args)
            except BackendError as error:
                if damaged(error):
                    raise self.broken(error) from error
                if self.look is None or not gone(error):
                    raise
                await self.look(self)
                if self.index.now is used:
                    raise

    async def _run(self, method: Callable[..., _Result], *args: Any) -> _Result:
        if self.closed:
            raise missing(self.manifest.name)
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[None] = loop.create_future()
        self._at_work.add(ended)
        begun = through = given_up = False

        def work() -> _Result:
            nonlocal begun, through
            begun = True
            try:
                return method(*args)
            finally:
                through = True
                if given_up:
                    loop.call_soon_threadsafe(self._end, ended)

        try:
            async with self._share:
                return await self.index.threads(work)
        finally:
            given_up = True
            if through or not begun:  # else nobody waits for the thread any more, which goes on all the same
                self._end(ended)

    def _end(self, ended: asyncio.Future[None]) -> None:
        self._at_work.discard(ended)
        if not ended.done():
            ended.set_result(None)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Held while a batch is written; raises NotFound if the collection was deleted meanwhile.

        Raises Conflict, before or after, if another process has exchanged it, or is about to: what was written may be
        lost then.
        """
        async with self._writing:
            if self.closed:
                raise missing(self.manifest.name)
            await self._look_before_writing()
            before = self.reopened
            yield
            await self._look_before_writing()
            if self.reopened != before:
                raise exchanged(self.manifest.name)

    async def _look_before_writing(self) -> None:
        if self.look is not None:
            await self.look(self)
            if self.frozen:
                raise exchanged(self.manifest.name)

    async def prepare(self, where: Sequence[Condition]) -> None:
        """Called before a search by a filter: the index is told of fields that are not declared."""
        declared = self.manifest.indexes
        if others := {name: kind for name, kind in needed(where).items() if name not in declared}:
            await self.run(self.index.prepare, others, declared)

    async def idle(self) -> None:
        """Return when those who are at work now have ended."""
        if self._at_work:
            await asyncio.wait(set(self._at_work))

    @asynccontextmanager
    async def rebuilding(self, what: str) -> AsyncIterator[None]:
        """Held by the one who makes a physical collection to take the place of this one's.

        Building the graph gives way to what somebody asked for. Raises Conflict if another is at it, or if it is ended
        from elsewhere.
        """
        if self._rebuilding is not None and self._rebuilding.what == GRAPH != what:
            await self._rebuilding.end()
        if self._rebuilding is not None:
            raise Conflict(
                f"collection {self.manifest.name!r} is being {self._rebuilding.what}: wait until that is done",
                details={"collection": self.manifest.name},
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
                f"collection {self.manifest.name!r} was closed or deleted while it was being {what}",
                details={"collection": self.manifest.name},
            )

    async def close(self) -> None:
        if self._rebuilding is not None:
            await self._rebuilding.end()
        async with self._writing:
            if self.closed:
                raise missing(self.manifest.name)
            self.closed = True
            await self.idle()  # an engine is not closed under the hands of those who still read
            await self.index.threads(self.index.close)


def missing(name: str) -> NotFound:
    return NotFound(
        f"no collection {name!r}: ingest documents into it, or create it", details={"collection": name}
    )
