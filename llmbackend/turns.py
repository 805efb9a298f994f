"""Lets projects take turns on the event loop and for limited resources, so that none waits behind hundreds of another's
requests.

A loop runs callbacks first come, first served. If hundreds of one project's requests, or replies to them, arrive at once,
another project's question would queue behind all of them each of the dozen times that it waits. So a request's work on
the loop is cut into steps that begin with `turn`, and in each round of the loop each project begins only STEPS steps. The
others wait here, where they delay nobody. A project that is alone takes no turns.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Generator
from contextlib import asynccontextmanager
from types import coroutine
from typing import Any, TypeVar, cast

_Result = TypeVar("_Result")

STEPS = 1
"""Steps that a project begins in one round of the loop: a question waits for a dozen rounds, and a step takes up to half a
millisecond."""

ALONE = 1.0
"""A project takes turns for so many seconds after another project's last step."""


class _Turns:
    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.last = ""
        """The project whose step began last."""
        self.until = 0.0
        """The loop's time after which that project counts as alone, unless another project has a step."""
        self.begun: dict[str, int] = {}
        """The steps begun in this round of the loop, by project."""
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    def begin(self, project: str) -> None:
        if not self.begun:
            self.loop.call_soon(self._next)
        self.begun[project] = self.begun.get(project, 0) + 1

    def wait(self, project: str) -> asyncio.Future[None]:
        turn: asyncio.Future[None] = self.loop.create_future()
        self._waiting.setdefault(project, deque()).append(turn)
        return turn

    def _next(self) -> None:
        self.begun.clear()
        for project, waiting in list(self._waiting.items()):
            while waiting and self.begun.get(project, 0) < STEPS:
                if not (turn := waiting.popleft()).done():  # else its caller was cancelled
                    turn.set_result(None)
                    self.begin(project)
            if not waiting:
                del self._waiting[project]


class Places:
    """A semaphore for one event loop, for which waiting projects take turns; each project's waiters are served in order."""

    def __init__(self, most: int) -> None:
        self.free = most
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Waiters by project; the project whose turn is next is first."""

    @asynccontextmanager
    async def held(self, project: str) -> AsyncIterator[None]:
        await self.take(project)
        try:
            yield
        finally:
            self.give_back()

    async def take(self, project: str) -> None:
        if self.free:  # then nobody waits
            self.free -= 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(project, deque())
        waiting.append(place)
        try:
            await place
        except BaseException:
            if place.done() and not place.cancelled():  # the place was given at the same moment
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            project, waiting = next(iter(self._waiting.items()))
            del self._waiting[project]
            place = waiting.popleft()
            if waiting:
                self._waiting[project] = waiting
            if not place.done():  # else its waiter was cancelled
                place.set_result(None)
                return
        self.free += 1


class _Here(threading.local):
    turns: _Turns | None = None


_here = _Here()


async def turn(project: str) -> None:
    """Wait until a step of this project may begin."""
    if (waiting := _begun(project)) is not None:
        await waiting


def _begun(project: str) -> asyncio.Future[None] | None:
    """Begin a step of this project and return None, or return a future that is done once the step has begun."""
    loop = asyncio.get_running_loop()
    turns = _here.turns
    if turns is None or turns.loop is not loop:
        turns = _here.turns = _Turns(loop)
    if project != turns.last:
        turns.last = project
        turns.until = loop.time() + ALONE
    elif loop.time() > turns.until:
        return None
    if turns.begun.get(project, 0) >= STEPS:
        return turns.wait(project)
    turns.begin(project)
    return None


@coroutine
def in_turns(project: str, work: Coroutine[Any, None, _Result]) -> Generator[Any, None, _Result]:
    """Await `work` that takes no turns itself, such as a library's: each of its steps begins with a turn."""
    raised: BaseException | None = None
    try:
        if (waiting := _begun(project)) is not None:
            yield from waiting
        while True:
            try:
                awaited = work.send(None) if raised is None else work.throw(raised)
            except StopIteration as end:
                return cast(_Result, end.value)
            finally:
                raised = None  # else its traceback would keep this frame
            try:
                yield awaited
                if (waiting := _begun(project)) is not None:
                    yield from waiting
            except BaseException as error:
                raised = error
    finally:
        work.close()
