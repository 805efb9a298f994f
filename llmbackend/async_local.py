"""The asynchronous transport in this process: a Backend on the caller's own loop, or on that of a synchronous client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from llm_client import encoded

from . import operations, settings, threads
from .agents import tooling
from .async_transports import Pieces, other_loop
from .backend import Backend
from .errors import TransportError
from .local import END, Core, Room, Stream, is_plain, other_settings, pump, require_begun, stays_here
from .operations import Body
from .settings import Settings
from .tracing import Trace

_Result = TypeVar("_Result")


class AsyncLocalTransport:
    """Calls the core on the loop that first uses it. Clients of one data directory share a core.

    If this process already has a synchronous client of that data directory, they share that one's core, on its own loop.
    """

    def __init__(self, options: Settings | None = None) -> None:
        self._options = options or settings.load()
        self._core: LoopCore | ThreadCore | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"AsyncLocalTransport({'closed' if self._closed else str(self._options.data_dir)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise stays_here()

    async def call(self, operation: str, given: dict[str, Any]) -> bytes:
        core = await self._require()
        plain = is_plain(given, self._options.max_body_bytes)
        body = given if plain else encoded(operation, given)
        return await core.run(operations.call, Trace(operation), body)

    async def read(self, operation: str, given: dict[str, Any]) -> bytes | dict[str, Any]:
        """Return the result as `call` does, or as objects if that takes no parsing."""
        core = await self._require()
        plain = is_plain(given, self._options.max_body_bytes)
        body = given if plain else encoded(operation, given)
        return await core.run(operations.read, Trace(operation), body)

    async def stream(self, operation: str, given: dict[str, Any]) -> AsyncIterator[bytes]:
        core = await self._require()
        return await core.stream(Trace(operation), encoded(operation, given))

    def offer_tool(self, function: Any) -> str:
        """Register a function as a tool of this process's agents, and return its name. Raises InvalidRequest."""
        return tooling.offer(function)

    async def close(self) -> None:
        core, self._core, self._closed = self._core, None, True
        if core is not None:
            await core.release()

    async def _require(self) -> LoopCore | ThreadCore:
        if self._closed:
            raise TransportError("this client is closed: make a new one", details={"closed": True})
        if self._core is None:
            core = await _acquired(self._options)
            if self._core is None and not self._closed:
                self._core = core
            else:  # another task has acquired one, or the client was closed meanwhile
                await core.release()
                return await self._require()
        self._core.check()
        return self._core


async def _acquired(options: Settings) -> LoopCore | ThreadCore:
    if options.data_dir not in LoopCore.all and (shared := Core.joined(options)) is not None:
        return ThreadCore(shared)
    return await LoopCore.acquire(options)


class ThreadCore:
    """The core of a synchronous client, on its own loop in a thread."""

    def __init__(self, core: Core) -> None:
        self._core = core

    def check(self) -> None:
        self._core.check()

    async def run(self, work: Callable[..., Awaitable[_Result]], trace: Trace, body: Body) -> _Result:
        started = self._core.start(trace.leave, work, self._core.backend, trace, body)
        return await asyncio.wrap_future(started)

    async def stream(self, trace: Trace, body: bytes) -> Pieces:
        events = Stream(self._core, trace, body)
        try:
            await threads.calls(events.begin, abandon_on_cancel=True)
        except asyncio.CancelledError:
            events.close()
            raise

        async def pieces() -> AsyncIterator[bytes]:
            while (piece := await threads.calls(next, events, None)) is not None:
                yield piece

        async def end() -> None:
            events.close()

        return Pieces(pieces(), end)

    async def release(self) -> None:
        await threads.calls(self._core.release)


class LoopCore:
    """A Backend on its clients' loop. It counts its clients, and closes with the last one."""

    all: ClassVar[dict[Path, LoopCore]] = {}
    _closing: ClassVar[dict[Path, LoopCore]] = {}
    """Cores without clients that have not yet released their data directories."""

    def __init__(self, options: Settings) -> None:
        self.settings = options
        self.users = 0
        self._loop = asyncio.get_running_loop()
        self._closed = asyncio.Event()
        self._given_up: set[asyncio.Task[Any]] = set()
        self._before = self._closing.get(options.data_dir)
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> Backend:
        await self._turn()
        return await Backend.open(self.settings)

    async def _turn(self) -> None:
        """Wait until the previous core has released the data directory, unless it is on another loop."""
        if self._before is not None and self._before._loop is self._loop:
            await self._before._closed.wait()
        self._before = None

    @classmethod
    async def acquire(cls, options: Settings) -> LoopCore:
        folder = options.data_dir
        core = cls.all.get(folder)
        if core is None:
            core = cls.all[folder] = cls(options)
        elif core.settings != options:
            raise other_settings(folder)
        core.check()
        core.users += 1
        try:
            await asyncio.shield(core._opening)
        except BaseException:
            await core.release()
            raise
        return core

    def check(self) -> None:
        if asyncio.get_running_loop() is not self._loop:
            raise other_loop(self._loop, {"data_dir": str(self.settings.data_dir)})

    async def run(
        self, work: Callable[..., Coroutine[Any, Any, _Result]], trace: Trace, body: Body
    ) -> _Result:
        """Return `work`'s result. A task of its own, because replies under way outlast a cancelled caller."""
        ended = self._loop.create_future()

        async def told() -> _Result:
            try:
                return await work(self._opening.result(), trace, body)
            finally:  # a round of the loop before the task's own callbacks
                if not ended.done():
                    ended.set_result(None)

        task = self._loop.create_task(told())
        try:
            await ended
        except asyncio.CancelledError:
            self.give_up(trace, task)
            raise
        return task.result()

    async def stream(self, trace: Trace, body: bytes) -> LoopStream:
        stream = LoopStream(self, self._opening.result(), trace, body)
        await stream.begin()
        return stream

    def give_up(self, trace: Trace, task: asyncio.Task[Any]) -> None:
        """End a call that nobody waits for, once replies under way are counted."""
        if not task.done():
            self._given_up.add(task)
            task.add_done_callback(self._forget)
            trace.leave(lambda: task.cancelling() or task.cancel())

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._given_up.discard(task)
        if not task.cancelled():
            task.exception()  # read, or asyncio would report it as lost

    async def release(self) -> None:
        self.users -= 1
        if self.users == 0:
            folder = self.settings.data_dir
            del self.all[folder]
            self._closing[folder] = self
            try:
                if not self._opening.done():
                    self._opening.cancel()
                    await asyncio.wait([self._opening])
                    await self._turn()
                elif self._opening.exception() is None:
                    if self._given_up:
                        await asyncio.wait(self._given_up, timeout=self.settings.hang_up_seconds)
                    await self._opening.result().close()
            finally:
                self._closed.set()
                if self._closing.get(folder) is self:
                    del self._closing[folder]


class LoopStream(AsyncIterator[bytes]):
    """A stream of a core on the caller's loop."""

    def __init__(self, core: LoopCore, backend: Backend, trace: Trace, given: Body) -> None:
        self._items: asyncio.Queue[object] = asyncio.Queue()
        self._room = room = Room()
        self._loop = asyncio.get_running_loop()
        # Without a reference to this object, so that a stream that nobody holds any more is ended.
        pumping = self._loop.create_task(pump(backend, trace, given, self._items.put_nowait, room, None))

        def give_up() -> None:
            room.open()
            core.give_up(trace, pumping)

        self._give_up = give_up

    async def begin(self) -> None:
        """Wait until the operation has begun. Raises what it raises until then; cancelling this cancels it."""
        try:
            require_begun(await self._items.get())
        except BaseException:
            self._give_up()
            raise

    async def __anext__(self) -> bytes:
        item = await self._items.get()
        if isinstance(item, bytes):
            self._room.leave(len(item))
            return item
        self._items.put_nowait(END)  # for later calls
        raise StopAsyncIteration

    async def close(self) -> None:
        self._give_up()

    def __del__(self) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it the work
            self._loop.call_soon_threadsafe(self._give_up)


def local_transport() -> AsyncLocalTransport:
    return AsyncLocalTransport()
