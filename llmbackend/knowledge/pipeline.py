"""Stages that work at the same time: what one makes, the next takes, a few at a time in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Generic, NamedTuple, TypeVar

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

    async def make() -> None:
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

    async with AsyncExitStack() as stack:
        stack.push_async_callback(items.aclose)
        making = asyncio.create_task(make())
        stack.push_async_callback(asyncio.wait, [making])
        stack.callback(making.cancel)
        used = use()
        stack.push_async_callback(used.aclose)
        yield used
