"""Stages that work at the same time: what one makes, the next takes, a few at a time in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

from anyio import CancelScope

_Item = TypeVar("_Item")

DEPTH = 2


class _Put(NamedTuple, Generic[_Item]):
    items: list[_Item]
    """One, or none at the end."""

    failure: Exception | None = None


@asynccontextmanager
async def ahead(
    items: AsyncGenerator[_Item, None], depth: int = DEPTH
) -> AsyncIterator[AsyncIterator[_Item]]:
    """The same items, made in a task of their own while earlier ones are being used, at most `depth` in advance.

    What making them raises is raised where they are used; leaving the block stops the making.
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

    async def use() -> AsyncGenerator[_Item, None]:
        while True:
            put = await waiting.get()
            if put.failure is not None:
                raise put.failure
            if not put.items:
                return
            yield put.items[0]

    making = asyncio.create_task(make())
    used = use()
    try:
        yield used
    finally:
        # By its scope, and not by the task's own cancel(), which does not heed what is shielded: what a thread has begun
        # has ended when this block is left.
        scope.cancel()
        with CancelScope(shield=True):
            await used.aclose()
            await asyncio.wait([making])
            await items.aclose()
