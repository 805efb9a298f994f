"""Stages that run concurrently, with short queues between them; and pages, read one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Generic, NamedTuple, Protocol, TypeVar

from anyio import CancelScope

from .errors import BackendError

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")

AHEAD = 2


class _HasCursor(Protocol):
    @property
    def cursor(self) -> str | None: ...


_Page = TypeVar("_Page", bound=_HasCursor)


async def paged(read: Callable[[str | None], Awaitable[_Page]]) -> AsyncGenerator[_Page, None]:
    """Yield all pages; `read` returns the page that begins at a cursor."""
    cursor: str | None = None
    while True:
        page = await read(cursor)
        yield page
        if (cursor := page.cursor) is None:
            return


class _Put(NamedTuple, Generic[_Item]):
    items: list[_Item]
    """One item, or none at the end."""

    failure: Exception | None = None


@asynccontextmanager
async def ahead(
    items: AsyncGenerator[_Item, None], depth: int = AHEAD
) -> AsyncIterator[AsyncIterator[_Item]]:
    """Yield an iterator of the same items, which a task produces up to `depth` ahead of the consumer.

    The producer's errors are raised to the consumer. Leaving the block stops and closes the producer.
    """
    waiting: asyncio.Queue[_Put[_Item]] = asyncio.Queue(depth)

    scope = CancelScope()

    async def make() -> None:
        with scope:
            try:
                async for item in items:
                    await waiting.put(_Put([item]))
                await waiting.put(_Put([]))
            except Exception as error:
                await waiting.put(_Put([], error))

    def ended(task: asyncio.Task[None]) -> None:
        # If the task was cancelled from elsewhere, it has put nothing: wake the consumer.
        if waiting.empty():
            waiting.put_nowait(_Put([], _stopped()))

    async def use() -> AsyncGenerator[_Item, None]:
        while True:
            if making.done() and waiting.empty():
                raise _stopped()
            put = await waiting.get()
            if put.failure is not None:
                raise put.failure
            if not put.items:
                return
            yield put.items[0]

    making = asyncio.create_task(make())
    making.add_done_callback(ended)
    used = use()
    try:
        yield used
    finally:
        # Cancel by the scope, because task.cancel() ignores shields: what a thread has begun must end before the block is
        # left.
        scope.cancel()
        with CancelScope(shield=True):
            await used.aclose()
            await asyncio.wait([making])
            await items.aclose()


def _stopped() -> BackendError:
    return BackendError("the work was stopped before it ended: try again", details={})


@asynccontextmanager
async def side_by_side(
    items: AsyncIterator[_Item],
    work: Callable[[_Item], Awaitable[_Made]],
    at_once: int,
    window: int | None = None,
) -> AsyncIterator[AsyncIterator[_Made]]:
    """Yield an iterator of the results of `work` for each item, in order, from up to `at_once` tasks at the same time.

    While one item takes long, up to `window` items after it (`at_once` by default) are started. An item's error is raised
    in its place. Leaving the block cancels the tasks.
    """
    turns = asyncio.Semaphore(at_once)
    under_way: dict[asyncio.Task[_Made], CancelScope] = {}

    async def make(item: _Item, scope: CancelScope) -> _Made:
        try:
            with scope:
                return await work(item)
        finally:
            turns.release()
        raise asyncio.CancelledError

    def ended(task: asyncio.Task[_Made]) -> None:
        del under_way[task]
        if not task.cancelled():
            task.exception()  # marks it as retrieved, since nobody may await the task

    async def begun() -> AsyncGenerator[asyncio.Task[_Made], None]:
        async for item in items:
            await turns.acquire()
            scope = CancelScope()
            task = asyncio.create_task(make(item, scope))
            under_way[task] = scope
            task.add_done_callback(ended)
            yield task

    async def made(tasks: AsyncIterator[asyncio.Task[_Made]]) -> AsyncGenerator[_Made, None]:
        async for task in tasks:
            # Awaiting the task itself would cancel it directly, not by its scope.
            await asyncio.wait([task])
            yield task.result()

    try:
        async with ahead(begun(), window or at_once) as tasks, aclosing(made(tasks)) as all_made:
            yield all_made
    finally:
        with CancelScope(shield=True):
            for scope in under_way.values():
                scope.cancel()
            if under_way:
                await asyncio.wait(set(under_way))
