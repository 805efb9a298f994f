"""Runs blocking work in threads, separate for each thing that it waits for, so that one cannot use up the threads of another.

Nothing else in the package uses a shared pool of threads; a test checks the sources.
"""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, ClassVar, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

from anyio import CancelScope
from anyio.lowlevel import checkpoint_if_cancelled

from . import panics, precedence, tracing
from .errors import Overloaded
from .turns import Places

CORES = os.cpu_count() or 2

_Args = TypeVarTuple("_Args")
_Result = TypeVar("_Result")

_PlacesOfLoop = WeakKeyDictionary[asyncio.AbstractEventLoop, Places]


class Threads:
    """At most so many threads at a time on each event loop; if none is free, projects take turns (turns.py)."""

    def __init__(self, most: int, *, gives_way: bool = False) -> None:
        """With `gives_way`, no large work begins while small requests are at work, which have as many threads of their own."""
        self.most = most
        self._gives_way = gives_way
        self._places: _PlacesOfLoop = WeakKeyDictionary()
        self._of_small: _PlacesOfLoop = WeakKeyDictionary()  # of small requests

    async def __call__(
        self,
        work: Callable[[*_Args], _Result],
        *args: *_Args,
        abandon_on_cancel: bool = False,
    ) -> _Result:
        """What `work(*args)` returns or raises. It goes on in its thread even if the caller is cancelled.

        A cancelled caller waits for its end, unless `abandon_on_cancel`.
        """
        of_loop = self._places
        if self._gives_way:
            if tracing.goes_first():  # and waits for no thread of those that wait for it
                of_loop = self._of_small
            else:
                await precedence.pause()
        await tracing.turn()
        await checkpoint_if_cancelled()
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[_Result] = loop.create_future()
        places = self._on(loop, of_loop)
        await places.take(tracing.project())
        try:
            with CancelScope(shield=not abandon_on_cancel):
                _Worker.begin(partial(_tell_loop, loop, answer), work, args)
                await answer
            return answer.result()
        finally:
            places.give_back()

    @property
    def free(self) -> int:
        """The number of free threads on the current event loop."""
        return self._on(asyncio.get_running_loop(), self._places).free

    def _on(self, loop: asyncio.AbstractEventLoop, of_loop: _PlacesOfLoop) -> Places:
        if (places := of_loop.get(loop)) is None:
            places = of_loop[loop] = Places(self.most)
        return places


class _Worker(threading.Thread):
    """A thread that runs one piece of work after the other, from any loop, and ends after idling for a while.

    anyio's go twice around the loop before they begin, which takes longer than what most are begun for.
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
        """Run `work(*args)` in this context, and `tell` its result or exception."""
        try:
            worker, _ = cls._idle.popitem()  # the last: the others may end
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
                continue  # work is on its way
            work()
            del work  # and what it holds

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
    os.register_at_fork(after_in_child=_Worker._idle.clear)  # threads stay behind


def _tell_loop(
    loop: asyncio.AbstractEventLoop,
    answer: asyncio.Future[_Result],
    result: _Result | None,
    failure: BaseException | None,
) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(_tell, answer, result, failure)


def _tell(answer: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if answer.done():  # given up meanwhile
        return
    if failure is None:
        answer.set_result(result)
    elif isinstance(failure, StopIteration):  # a future takes none
        answer.set_exception(RuntimeError("it raised StopIteration"))
    else:
        answer.set_exception(failure)


def side_by_side(*works: Callable[[], _Result]) -> list[_Result]:
    """What each of these returns: the last runs in this thread, the others beside it. For work that waits, as for a server.

    When all have ended, raises what the first of those that failed did.
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
        """The result of `work(*args)`. It goes on if the caller is cancelled, which does not wait for it.

        Raises Overloaded if all threads are busy or hang.
        """
        with self._counting:
            if self._at_work >= self.most:
                raise Overloaded(
                    f"{self.most} {self._name} are at work, or hang: try again later",
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
        """The result of `work()`. If the caller is cancelled, so is the work, and its end is awaited."""
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


_slice = threading.local()


def _without_panic(work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
    with in_slices(), panics.caught():
        return work(*args)


@contextmanager
def in_slices() -> Iterator[None]:
    """In this block, a thread's work gives way where it calls `give_way`, and its time is charged to its call."""
    _slice.began, _slice.granted, _slice.charged = time.monotonic(), False, time.thread_time()
    try:
        yield
    finally:
        _charge()
        del _slice.began


def _charge() -> None:
    before, _slice.charged = _slice.charged, time.thread_time()
    tracing.worked(_slice.charged - before)


def background(name: str, work: Callable[[], None]) -> threading.Thread:
    """Begin large background work of this process; the caller also ends it."""
    thread = threading.Thread(target=_without_panic, args=(work,), name=f"llmbackend {name}", daemon=True)
    thread.start()
    return thread


def give_way() -> None:
    """To be called by long work in a thread, between its slices: lets small requests go first.

    On the event loop it does nothing.
    """
    began: float | None = getattr(_slice, "began", None)
    if began is None:
        return
    worked = time.monotonic() - began
    if worked < precedence.SLICE and (_slice.granted or not precedence.wanted()):
        return
    # No sleep if no small request is at work: another thread gets the interpreter's lock by asking for it.
    _charge()
    if not tracing.goes_first():
        _slice.granted = precedence.wait(worked)
        _slice.began = time.monotonic()


INLINE_CHARACTERS = 2**14
"""Characters that are processed without a thread, since starting one takes longer."""


async def by_length(characters: int, work: Callable[[*_Args], _Result], *args: *_Args) -> _Result:
    """The result of `work(*args)`: computed at once for a short text, in a processor thread for a long one."""
    return work(*args) if characters <= INLINE_CHARACTERS else await processor(work, *args)


# A large call gives its thread back now and then (work goes by document or batch), so that others get their turn, and
# gives way between slices.
processor = Threads(max(2, CORES), gives_way=True)
"""Parsing, validating, splitting and serializing: more threads than cores would only take memory."""

bodies = Threads(1, gives_way=True)
"""Parsing of large requests, one at a time: two would delay each other and take twice the memory."""

splitting = Threads(max(8, CORES), gives_way=True)
"""Splitting documents into chunks. A long one takes seconds, so these threads are separate."""

embedding = Threads(max(2, CORES), gives_way=True)
"""The embedded embedding model."""

database = Threads(16)
"""The SQL database; with the writer and the heartbeats fewer than the connections of its pool."""

heartbeats = Threads(2)
"""Heartbeats of jobs' leases, which must not wait behind requests."""

files = Threads(16)
"""The disk, except for the engine: the cache of vectors, and lazy imports."""

engine = Threads(64)
"""The vector engine in this process. No collection gets more than its share (collection.py)."""

network = Threads(64)
"""Servers that are called by clients that block: Qdrant. Shared out as `engine`."""

names = Threads(64)
"""Resolving hosts named in requests."""

webhooks = Threads(64)
"""Resolving hosts of webhooks, so that slow ones do not delay requests. aiohttp resolves those of model servers."""

plugins = OwnThreads("calls of a project's own parts", 64)
"""A project's own parts, which may hang: a caller waits PLUGIN_SECONDS at most."""

agents = OwnThreads("agents of projects", 256)
"""A loop each: what they do may block or hang, for as long as their run may take."""

orchestration = OwnLoop("llmbackend orchestration")
"""LlamaIndex's part in the agents that come along: some milliseconds of the processor a step, and runs come in dozens."""

calls = Threads(64)
"""A client's operations, for those who await them: LlamaIndex's asynchronous methods (llamaindex/calling.py), and the
client for `await` where its core runs on another loop."""
