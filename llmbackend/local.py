"""The transport in this process: a Backend on an event loop in a background thread, shared by clients with equal settings."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import ExitStack, aclosing, suppress
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from anyio import CancelScope, move_on_after
from anyio.from_thread import BlockingPortal, start_blocking_portal

from llm_client import encoded

from . import operations, settings, sse
from .agents import tooling
from .backend import Backend
from .errors import Conflict, TransportError
from .operations import Body
from .settings import Settings
from .tracing import Trace

_Result = TypeVar("_Result")

Stop = Callable[[], object]

# The caller's program may show all INFO lines, of which ours would be one for each call.
if (log := logging.getLogger("llmbackend")).level == logging.NOTSET:
    log.setLevel(logging.WARNING)


class LocalTransport:
    """Calls the core without HTTP. Clients of one data directory share one core; the last to close ends it."""

    def __init__(self, options: Settings | None = None) -> None:
        self._core: Core | None = Core.acquire(options or settings.load())

    def __repr__(self) -> str:
        where = self._core.settings.data_dir if self._core else "closed"
        return f"LocalTransport({str(where)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        raise stays_here()

    def call(self, operation: str, given: dict[str, Any]) -> bytes:
        return self.begin(operation, given).result()

    def read(self, operation: str, given: dict[str, Any]) -> bytes | dict[str, Any]:
        """Return the result as `call` does, or as objects if that takes no parsing."""
        core = self._require()
        plain = is_plain(given, core.settings.max_body_bytes)
        body = given if plain else encoded(operation, given)
        return core.begin(operations.read, Trace(operation), body).result()

    def begin(self, operation: str, given: dict[str, Any]) -> UnderWay[bytes]:
        """Start a call, for callers who do something else before they wait for its result."""
        core = self._require()
        plain = is_plain(given, core.settings.max_body_bytes)
        return core.begin(operations.call, Trace(operation), given if plain else encoded(operation, given))

    def stream(self, operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        core = self._require()
        stream = Stream(core, Trace(operation), encoded(operation, given))
        stream.begin()
        return stream

    def offer_tool(self, function: Any) -> str:
        """Register a function as a tool of this process's agents, and return its name. Raises InvalidRequest."""
        return tooling.offer(function)

    def close(self) -> None:
        core, self._core = self._core, None
        if core is not None:
            core.release()

    def _require(self) -> Core:
        if self._core is None:
            raise TransportError("this client is closed: make a new one", details={"closed": True})
        self._core.check()
        return self._core


def is_plain(given: dict[str, Any], limit: int) -> bool:
    """Return whether arguments can be passed without JSON: texts, lists of texts and small numbers, within `limit` bytes.

    Writing and reading the JSON of many texts would take longer than finding their vectors in the cache.
    """
    texts = list(given)
    for value in given.values():
        if type(value) is list:
            texts += value
        elif type(value) is str:
            texts.append(value)
        elif type(value) is not bool and not (type(value) is int and abs(value) < 2**31):
            return False
    if not set(map(type, texts)) <= {str} or 6 * sum(map(len, texts)) + 20 * len(texts) > limit:
        return False
    try:
        return all(map(str.isascii, texts)) or bool("".join(texts).encode())
    except UnicodeEncodeError:  # half a surrogate pair
        return False


class Core:
    """A Backend with the thread of its loop. It counts its clients, and closes with the last one."""

    _all: ClassVar[dict[Path, Core]] = {}
    _changing: ClassVar[threading.Lock] = threading.Lock()
    _watch: ClassVar[threading.Thread | None] = None

    def __init__(self, options: Settings) -> None:
        self.settings = options
        self.users = 0
        self.pid = os.getpid()
        self._under_way: set[Future[Any]] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        with ExitStack() as stack:
            self.portal: BlockingPortal = stack.enter_context(start_blocking_portal(name="llmbackend"))
            self.loop: asyncio.AbstractEventLoop = self.portal.call(asyncio.get_running_loop)
            self.backend: Backend = self.portal.call(Backend.open, options)
            self._stack = stack.pop_all()

    def check(self) -> None:
        """Raise TransportError in a forked child: the core is its parent's."""
        if self.pid != os.getpid():
            raise TransportError(
                "this client was made before the process was forked: make one in the child, "
                "or start processes by 'spawn'"
            )

    def begin(self, work: Callable[..., Awaitable[_Result]], trace: Trace, given: Body) -> UnderWay[_Result]:
        """Start an operation on the loop."""
        return UnderWay(self.loop, self.start(trace.leave, work, self.backend, trace, given))

    def start(
        self, leave: Callable[[Stop], None], work: Callable[..., Awaitable[_Result]], *args: Any
    ) -> Future[_Result]:
        """Start `work(*args)` on the loop, without waiting until it has begun, as anyio's portal does.

        If the future is cancelled, `leave` is called on the loop with a function that cancels the work.
        """
        future: Future[_Result] = Future()
        try:
            self.loop.call_soon_threadsafe(self._begin, future, leave, work, args)
        except RuntimeError:
            raise TransportError("this process is ending: the client is closed") from None
        self._under_way.add(future)
        future.add_done_callback(self._under_way.discard)
        return future

    def _begin(self, future: Future[Any], *given: Any) -> None:
        task = self.loop.create_task(self._answer(future, *given))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(
        self,
        future: Future[_Result],
        leave: Callable[[Stop], None],
        work: Callable[..., Awaitable[_Result]],
        args: tuple[Any, ...],
    ) -> None:
        with CancelScope() as scope:

            def cancel(future: Future[_Result]) -> None:
                if future.cancelled():
                    with suppress(RuntimeError):  # the loop has ended, and with it the work
                        self.loop.call_soon_threadsafe(leave, scope.cancel)

            future.add_done_callback(cancel)
            try:
                result = await work(*args)
            except asyncio.CancelledError:
                future.cancel()
                raise
            except BaseException as error:
                if future.set_running_or_notify_cancel():
                    future.set_exception(error)
                if not isinstance(error, Exception):
                    raise
            else:
                if future.set_running_or_notify_cancel():
                    future.set_result(result)

    async def _ended(self, timeout: float | None = None) -> None:
        with move_on_after(timeout):
            while self._tasks:
                await asyncio.wait(set(self._tasks))

    @classmethod
    def acquire(cls, options: Settings) -> Core:
        folder = options.data_dir
        with cls._changing:
            core = cls._all.get(folder)
            if core is None:
                core = cls._all[folder] = cls(options)
                cls._close_at_exit()
            elif core.settings != options:
                raise other_settings(folder)
            core.users += 1
        return core

    @classmethod
    def joined(cls, options: Settings) -> Core | None:
        """Return the core of that data directory with one more client, or None if this process has none."""
        return cls.acquire(options) if options.data_dir in cls._all else None

    def release(self) -> None:
        with self._changing:
            self.users -= 1
            if self.users == 0:
                self._close()

    def _close(self) -> None:
        if self._all.pop(self.settings.data_dir, None) is not self:
            return  # closed already, when the main thread ended; or made before a fork
        for future in list(self._under_way):
            future.cancel()
        self.portal.call(self._ended, self.settings.hang_up_seconds)
        self.portal.call(self.backend.close)
        self.portal.call(self._ended)
        self._stack.close()
        for future in list(self._under_way):  # those that have not begun
            future.cancel()

    @classmethod
    def _close_at_exit(cls) -> None:
        """Close what is still open when the main thread ends: `atexit` would be too late to use threads."""

        def wait() -> None:
            threading.main_thread().join()
            for thread in threading.enumerate():  # others may still be using their clients
                if not thread.daemon and thread is not threading.current_thread():
                    thread.join()
            with cls._changing:
                for core in list(cls._all.values()):
                    core._close()

        if cls._watch is None:
            cls._watch = threading.Thread(target=wait, name="llmbackend-exit", daemon=False)
            cls._watch.start()


class UnderWay(Generic[_Result]):
    """Work on the core's loop, whose result another thread waits for."""

    __slots__ = ("_future", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, future: Future[_Result]) -> None:
        self._loop, self._future = loop, future

    def result(self) -> _Result:
        """Wait for the result, and return or raise it. Interrupting this cancels the work."""
        try:
            if _on(self._loop):
                _run_on(self._loop, self._future.done)
            return self._future.result()
        except CancelledError:
            raise closed_early() from None
        except BaseException:
            self._future.cancel()
            raise

    def cancel(self) -> None:
        self._future.cancel()


def stays_here() -> TransportError:
    return TransportError(
        "this client works in this process, and cannot be sent to another: start a server (llmbackend serve) and send "
        "LLMBackendClient(api_url=…), or make LLMBackendClient() in the other process, with a DATA_DIR of its own"
    )


def other_settings(folder: Path) -> Conflict:
    return Conflict(
        f"this process already uses {folder} with other settings: close that client first, "
        "or set DATA_DIR to another folder",
        details={"data_dir": str(folder)},
    )


def _forget_cores() -> None:
    """Forget the parent's cores in a forked child, which does not have their threads."""
    Core._all.clear()
    Core._changing = threading.Lock()
    Core._watch = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_cores)


# A blocking call on the loop's own thread, such as one by a job or a LlamaIndex tool, would wait for itself.


def _on(loop: asyncio.AbstractEventLoop) -> bool:
    """Return whether this code runs on that loop."""
    return asyncio._get_running_loop() is loop


def _run_on(loop: Any, done: Callable[[], bool]) -> None:
    """Run a loop from within one of its own tasks until `done()`.

    Everything else on the loop goes on; only the task that called this waits. asyncio has no public way to do this.
    """
    task = asyncio.current_task(loop)
    waiting = len(loop._ready)
    if task is not None:
        asyncio.tasks._leave_task(loop, task)
    try:
        while not done():
            loop._run_once()
    finally:
        if task is not None:
            asyncio.tasks._enter_task(loop, task)
        for _ in range(
            waiting - len(loop._ready)
        ):  # the current round expects as many callbacks as it began with
            loop.call_soon(_nothing)


def _nothing() -> None:
    pass


BEGUN, END = object(), object()
"""Precedes the first event; follows the last one."""

AHEAD = 2**20
"""Most bytes of a stream that are produced before its caller has read them."""


class Stream(Iterator[bytes]):
    """A streaming operation's events, carried from the loop's thread to the caller's."""

    def __init__(self, core: Core, trace: Trace, given: Body) -> None:
        self._items: queue.SimpleQueue[object] = queue.SimpleQueue()
        self._room = room = Room()
        self._loop = core.loop

        def leave(stop: Stop) -> None:
            room.open()
            trace.leave(stop)

        # Functions without a reference to this object, so that a stream that nobody holds any more is ended.
        self._pumping: Future[None] = core.start(
            leave, pump, core.backend, trace, given, self._items.put, room, _heartbeat(core, trace.operation)
        )

    def begin(self) -> None:
        """Wait until the operation has begun. Raises what it raises until then; interrupting this cancels it."""
        try:
            require_begun(self._next())
        except BaseException:
            self.close()
            raise

    def _next(self) -> object:
        if _on(self._loop):
            _run_on(self._loop, lambda: not self._items.empty())
        return self._items.get()

    def __next__(self) -> bytes:
        item = self._next()
        if isinstance(item, bytes):
            with suppress(RuntimeError):  # the loop has ended: no producer waits
                self._loop.call_soon_threadsafe(self._room.leave, len(item))
            return item
        self._items.put(END)  # for later calls
        raise StopIteration

    def close(self) -> None:
        """Give the operation up."""
        self._pumping.cancel()

    def __del__(self) -> None:
        self.close()


class Room:
    """Makes the producer wait while too much is unread. Used on the loop."""

    def __init__(self) -> None:
        self._taken = 0
        self._left = asyncio.Event()

    def open(self) -> None:
        """Let the producer go on whatever is unread, because nobody reads any more."""
        self.leave(sys.maxsize)

    async def take(self, size: int) -> None:
        self._taken += size
        while self._taken > AHEAD:
            self._left.clear()
            await self._left.wait()

    def leave(self, size: int) -> None:
        self._taken -= size
        self._left.set()


def _heartbeat(core: Core, operation: str) -> float | None:
    """Return the seconds between heartbeats; None if the stream does not consist of events."""
    events = operations.OPERATIONS[operation].media == "text/event-stream"
    return core.settings.heartbeat_seconds if events else None


async def pump(
    backend: Backend,
    trace: Trace,
    given: Body,
    give: Callable[[object], None],
    room: Room,
    heartbeat: float | None,
) -> None:
    """Carry out a streaming operation for a reader who makes room by reading.

    Gives BEGUN, or the error that kept it from beginning, then each event, and END.
    """

    async def put(event: bytes) -> None:
        give(event)
        await room.take(len(event))

    try:
        try:
            events = await operations.stream(backend, trace, given)
        except Exception as error:
            give(error)
            return
        give(BEGUN)
        async with aclosing(events):  # type: ignore[type-var]
            await sse.send(events, put, heartbeat)
    finally:
        give(END)


def require_begun(first: object) -> None:
    """Raise what kept an operation from beginning, by the first item that `pump` gave."""
    if isinstance(first, Exception):
        raise first
    if first is not BEGUN:
        raise closed_early()


def closed_early() -> TransportError:
    return TransportError("the client was closed before the answer came")
