"""Items of a job that are worked at several at a time, and come in their order, with word of when to save."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from ..jobs.context import Context
from ..pipeline import side_by_side

SAVED_TOGETHER = 32
"""Replies or analyses, at most, and all that came within SAVE_SECONDS."""
SAVE_SECONDS = 1.0
WINDOW = 8
"""For each that is asked for at once, so many may be there before one that takes long."""

_Made = TypeVar("_Made")


@asynccontextmanager
async def each(
    context: Context,
    total: int,
    stage: str,
    work: Callable[[int], Awaitable[_Made]],
    first: int | None = None,
) -> AsyncIterator[AsyncIterator[tuple[_Made, bool]]]:
    """What `work` makes of each number up to `total`, in order, CHATS_AT_ONCE at the same time, and whether to save now.

    It begins with `first`, else with the first that has no row in the result yet.
    """
    done = start = context.results.count if first is None else first
    at_once = context.services.chats_at_once

    async def numbers() -> AsyncGenerator[int]:
        for number in range(start, total):
            yield number

    async def make(number: int) -> _Made:
        nonlocal done
        made = await work(number)
        done += 1
        context.progress(done, total, stage)
        return made

    async def saving(items: AsyncIterator[_Made]) -> AsyncGenerator[tuple[_Made, bool]]:
        unsaved, saved, number = 0, time.monotonic(), start
        async for item in items:
            unsaved, number = unsaved + 1, number + 1
            due = unsaved >= SAVED_TOGETHER or time.monotonic() - saved >= SAVE_SECONDS
            yield item, due and number < total
            if due:
                unsaved, saved = 0, time.monotonic()

    context.progress(done, total, stage)
    async with (
        side_by_side(numbers(), make, at_once, window=WINDOW * at_once) as made,
        aclosing(saving(made)) as items,
    ):
        yield items
