"""Runs blocking work in threads, with a limit for each resource, so that one that hangs does not use up all threads.

Nothing else in the package uses a shared pool of threads; a test checks that.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

from . import panics, precedence, slices, tracing
from .errors import Overloaded
from .turns import Places

CORES = os.cpu_count() or 2

REST = 0.1
"""The longest rest, in seconds: enough for others to get their turns on the event loop."""

LATE = 0.25
"""Seconds after which work that should rest delays the next no longer: it waits for something, or repairs an index."""

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")


class _Rest:
    """Gives a place back after LATE, or when work has ended and rested."""

    def __init__(self, loop: asyncio.AbstractEventLoop, places: Places) -> None:
        self._loop, self._places = loop, places
        self._began: float | None = loop.time()
        self._late = loop.call_later(LATE, self._give_back)

    def begin(self) -> None:
        """The work has ended."""
        if self._began is not None:
            self._late.cancel()
            self._loop.call_later(min(self._loop.time() - self._began, REST), self._give_back)

    def _give_back(self) -> None:
        self._began = None
        self._places.give_back()


_PlacesOfLoop = WeakKeyDictionary[asyncio.AbstractEventLoop, Places]


class Threads:
    """At most `most` threads at a time on each event loop; if none is free, projects take turns (turns.py)."""

    def __init__(
        self, most: int, *, gives_way: bool = False, releases: bool = False, rests: bool = False
    ) -> None:
        """With `gives_way`, large work does not begin while small requests are at work; these have `most` threads more.

        `releases` tells that the work releases the interpreter's lock most of the time. With `rests`, a thread is free
        again only after as long as it was at work, at most REST: such work holds the lock for long, and others need it in
        between. Work that is not done after LATE counts no longer.
        """
        self.most = most
        self._releases = releases
        self._rests = rests
        self._gives_way = gives_way
        self._places: _PlacesOfLoop = WeakKeyDictionary()
        self._of_small: _PlacesOfLoop = WeakKeyDictionary()  # of small requests

    async def __call__(
        self,
        work: Callable[[*_Args], _Result],
        *args: *_Args,
        abandon_on_cancel: bool = False,
    ) -> _Result:
        """Run `work(*args)` in a thread; return or raise what it does.

        Work that has begun runs to its end. A cancelled caller waits for that, unless `abandon_on_cancel`.
        """
        of_loop = self._places
        if self._gives_way:
            if (
                tracing.goes_first()
            ):  # a small request has its own threads: large work may be waiting for it in the others
                of_loop = self._of_small
            else:
                await precedence.pause()
        await tracing.turn()
        await checkpoint_if_cancelled()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Result] = loop.create_future()
        places = self._on(loop, of_loop)
        await places.take(tracing.project())
        rest = _Rest(loop, places) if self._rests else None
        try:
            with CancelScope(shield=not abandon_on_cancel):
                _Worker.begin(partial(_tell_loop, loop, answer), self._run, (work, *args))
                await answer
            return answer.result()
        finally:
            if rest is not None:
                rest.begin()
            else:
                places.give_back()

    def _run(self, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        if self._releases:
            slices.lock_released()
        return work(*args)

    @property
    def free(self) -> int:
        """The number of free threads on the current event loop."""
        return self._on(asyncio.get_running_loop(), self._places).free

    def _on(self, loop: asyncio.AbstractEventLoop, of_loop: _PlacesOfLoop) -> Places:
        if (places := of_loop.get(loop)) is None:
            places = of_loop[loop] = Places(self.most)
        return places


class _Worker(threading.Thread):
    """A thread that runs one piece of work after the other, from any loop, and ends after idling for IDLE seconds.

    anyio's threads take two rounds of the loop to begin, which is longer than most of our work.
    """

    IDLE = 10.0  # seconds

    _idle: ClassVar[dict[_Worker, None]] = {}

    def __init__(self) -> None:
        super().__init__(name="llmbackend worker", daemon=True)
        self._given: SimpleQueue[Callable[[], None]] = SimpleQueue()

    @classmethod
    def begin(
        cls,
        tell: Callable[[_Result | None, BaseException | None], object],
        work: Callable[[*_Args], _Result],
        args: tuple[*_Args],
    ) -> None:
        """Run `work(*args)` in a copy of this context, and call `tell(result, exception)` in the thread."""
        try:
            worker, _ = cls._idle.popitem()  # the one used last, so that others can end
        except KeyError:
            worker = cls()
            worker.start()
        worker._given.put(partial(worker._answer, tell, contextvars.copy_context(), work, args))

    def run(self) -> None:
        while True:
            try:
                work = self._given.get(timeout=self.IDLE)
            except Empty:
                if self._idle.pop(self, self) is None:
                    return
                continue  # somebody has just taken this worker: work is coming
            work()
            del work  # frees what it refers to

    def _answer(
        self,
        tell: Callable[[_Result | None, BaseException | None], object],
        context: contextvars.Context,
        work: Callable[[*_Args], _Result],
        args: tuple[*_Args],
    ) -> None:
        result, failure = None, None
        try:
            result = context.run(partial(_without_panic, work, *args))
        except BaseException as error:
            failure = error
        self._idle[self] = None
        tell(result, failure)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_Worker._idle.clear)  # a forked child has no threads


def _tell_loop(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[_Result],
    result: _Result | None,
    failure: BaseException | None,
) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(_tell, answer, result, failure)


def _tell(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():  # the caller was cancelled
        return
    if failure is None:
        answer.set_result(result)
    elif isinstance(failure, StopIteration):  # futures do not accept it
        answer.set_exception(RuntimeError("it raised StopIteration"))
    else:
        answer.set_exception(failure)


def side_by_side(*works: Callable[[], _Result]) -> list[_Result]:
    """Run these at the same time, the last in this thread; return their results in order.

    For work that waits, say for a server. If some fail, raises the first one's exception once all have ended.
    """
    ended = [SimpleQueue[tuple[Any, BaseException | None]]() for _ in works]
    for work, end in zip(works[:-1], ended, strict=False):
        _Worker.begin(lambda *told, end=end: end.put(told), work, ())
    try:
        ended[-1].put((works[-1](), None))
    except BaseException as error:
        ended[-1].put((None, error))
    results = [end.get() for end in ended]
    for _, failure in results:
        if failure is not None:
            raise failure
    return [result for result, _ in results]


class OwnThreads:
    """A daemon thread per call, for work that may never return; limited in number."""

    def __init__(self, name: str, most: int) -> None:
        self.most = most
        self._name = name
        self._at_work = 0
        self._counting = threading.Lock()

    async def __call__(self, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
        """Run `work(*args)` in a new thread; return or raise what it does.

        A cancelled caller does not wait for it. Raises Overloaded if all threads are busy or hang.
        """
        with self._counting:
            if self._at_work >= self.most:
                raise Overloaded(
                    f"{self.most} {self._name} are running or hang: try again later",
                    details={"retry_after": 5},
                )
            self._at_work += 1
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Result] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            result, failure = None, None
            try:
                result = context.run(partial(_without_panic, work, *args))
            except BaseException as error:
                failure = error
            with self._counting:
                self._at_work -= 1
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(_tell, answer, result, failure)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        return await answer


class OwnLoop:
    """An event loop in its own thread, for work of many small steps that would block the main loop."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting = threading.Lock()

    async def __call__(self, work: Callable[[], Awaitable[_Result]]) -> _Result:
        """Await `work()` on that loop; return or raise what it does. Cancelling the caller cancels the work and waits for its end."""
        here, ended = asyncio.get_running_loop(), asyncio.Event()
        begun: list[asyncio.Task[Any] | None] = []

        async def main() -> _Result:
            begun.append(asyncio.current_task())
            try:
                with panics.caught():
                    return await work()
            finally:
                with suppress(RuntimeError):  # the loop has ended
                    here.call_soon_threadsafe(ended.set)

        there = self._started()
        answer = asyncio.wrap_future(asyncio.run_coroutine_threadsafe(main(), there))
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            there.call_soon_threadsafe(lambda: begun[0].cancel() if begun and begun[0] else None)
            with CancelScope(shield=True):
                await ended.wait()
            raise

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._loop.run_forever, name=self._name, daemon=True).start()
            return self._loop


def _without_panic(work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
    with slices.in_slices(), panics.caught():
        return work(*args)


def background(name: str, work: Callable[[], None]) -> threading.Thread:
    """Start a daemon thread for large background work, and return it. The caller makes it end."""
    thread = threading.Thread(target=_without_panic, args=(work,), name=f"llmbackend {name}", daemon=True)
    thread.start()
    return thread


INLINE_CHARACTERS = 2**14
"""Most characters that are processed on the event loop, because a thread would take longer."""


async def by_length(characters: int, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
    """Return `work(*args)`, run on the event loop for a short text, and in a processor thread for a long one."""
    return work(*args) if characters <= INLINE_CHARACTERS else await processor(work, *args)


# A large call takes a new thread for each document or batch, so that others get their turn, and gives way between slices.
processor = Threads(max(2, CORES), gives_way=True)
"""Parsing, validating, splitting and serializing: more threads than cores would only take memory."""

bodies = Threads(1, gives_way=True)
"""Parsing of large requests, one at a time: two would delay each other and take twice the memory."""

splitting = Threads(max(8, CORES), gives_way=True)
"""Splitting documents into chunks. A long one takes seconds, so these threads are separate."""

embedding = Threads(max(2, CORES), gives_way=True, releases=True)
"""The embedded embedding model."""

database = Threads(16)
"""The SQL database. With the writer and the heartbeats, these are fewer than the connections in its pool."""

heartbeats = Threads(2)
"""Heartbeats of jobs' leases, which must not wait behind requests."""

files = Threads(16)
"""The disk, except for the engine: the cache of vectors, and lazy imports."""

engine = Threads(64)
"""The vector engine in this process. A collection gets at most a share of these (current_index.py)."""

opening = Threads(1, rests=True)
"""Making and opening indexes of the vector engine in this process. Each takes some ten milliseconds, and the disk's time,
with the interpreter's lock held: hundreds at once would leave nothing to others for a minute."""

network = Threads(64)
"""Servers with blocking clients: Qdrant. A collection gets at most a share, as of `engine`."""

names = Threads(64)
"""Resolving host names in requests."""

webhooks = Threads(64)
"""Resolving host names of webhooks, so that slow ones do not delay requests. aiohttp resolves those of model servers."""

plugins = OwnThreads("calls of a project's own parts", 64)
"""A project's own parts, which may hang: a caller waits at most PLUGIN_SECONDS."""

agents = OwnThreads("agents of projects", 256)
"""A project's own agents. Each has a loop in its thread, because it may block or hang for as long as its run may take."""

jobs = OwnThreads("jobs of projects' own types", 256)
"""A project's own job types that are plain functions, for as long as their jobs run."""

orchestration = OwnLoop("llmbackend orchestration")
"""LlamaIndex's part in the built-in agents: a step takes milliseconds of processor time, and dozens may run at once."""

calls = Threads(64)
"""A client's operations that are awaited: LlamaIndex's asynchronous methods (llamaindex/calling.py), and the
AsyncLLMBackend if its core runs on another loop."""
