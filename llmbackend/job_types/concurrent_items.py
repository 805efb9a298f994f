"""Runs a job's items several at a time; results come in order, each with whether to save."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from typing import TypeVar

from ..jobs.context import Context
from ..pipeline import side_by_side

SAVED_TOGETHER = 32
"""After this many results, or SAVE_SECONDS, results are saved."""
SAVE_SECONDS = 1.0
WINDOW = 8
"""For each concurrent item, this many results may wait for a slow one before them."""

_Made = TypeVar("_Made")


@asynccontextmanager
async def each(
    context: Context,
    total: int,
    stage: str,
    work: Callable[[int], Awaitable[_Made]],
    first: int | None = None,
) -> AsyncIterator[AsyncIterator[tuple[_Made, bool]]]:
    """Yield the results of `work` for each number below `total`, in order, each with whether to save now.

    CHATS_AT_ONCE run at a time. It starts at `first`, or else at the first number without a row in the
    result.
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
