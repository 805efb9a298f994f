"""Stages that work at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

import pytest
from anyio import to_thread

from llmbackend.knowledge.pipeline import ahead


class Source:
    """Numbers, noting how many were made and whether the making was ended."""

    def __init__(self, count: int, fails_at: int | None = None) -> None:
        self.made = 0
        self.closed = False
        self.count = count
        self.fails_at = fails_at

    async def numbers(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self.count):
                if number == self.fails_at:
                    raise ValueError(f"number {number}")
                self.made += 1
                yield number
        finally:
            self.closed = True


async def _settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_items_come_in_their_order() -> None:
    async def run() -> list[int]:
        async with ahead(Source(100).numbers()) as items:
            return [item async for item in items]

    assert asyncio.run(run()) == list(range(100))


def test_items_are_made_while_earlier_ones_are_used_but_not_many() -> None:
    async def run() -> None:
        source = Source(100)
        async with ahead(source.numbers(), depth=3) as items:
            async for item in items:
                await _settled()
                # Those that wait, and one for which there is no place yet.
                assert source.made == min(item + 1 + 3 + 1, 100)

    asyncio.run(run())


def test_a_failure_comes_after_what_was_made_before_it() -> None:
    source = Source(10, fails_at=5)
    used: list[int] = []

    async def run() -> None:
        async with ahead(source.numbers()) as items:
            async for item in items:
                used.append(item)

    with pytest.raises(ValueError, match="number 5"):
        asyncio.run(run())
    assert used == [0, 1, 2, 3, 4]


def test_leaving_early_ends_the_making() -> None:
    async def run() -> None:
        source = Source(100)
        async with ahead(source.numbers()) as items:
            async for item in items:
                if item == 3:
                    break
        assert source.closed
        assert source.made < 10
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_cancelling_ends_every_stage() -> None:
    async def run() -> None:
        source = Source(10**6)

        async def doubled(items: AsyncGenerator[int, None]) -> AsyncGenerator[int, None]:
            async with ahead(items) as earlier:
                async for item in earlier:
                    yield 2 * item

        async def use() -> None:
            async with ahead(doubled(source.numbers())) as items:
                async for _ in items:
                    await asyncio.sleep(3600)

        using = asyncio.create_task(use())
        await _settled()
        using.cancel()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert source.closed
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_what_a_thread_has_begun_has_ended_when_the_block_is_left() -> None:
    async def run() -> None:
        begun, may_end = threading.Event(), threading.Event()
        ended: list[int] = []

        def work(number: int) -> int:
            begun.set()
            assert may_end.wait(10)
            ended.append(number)
            return number

        async def written() -> AsyncGenerator[int, None]:
            for number in range(100):
                yield await to_thread.run_sync(work, number)

        async def use() -> None:
            async with ahead(written()) as items:
                async for _ in items:
                    pass

        using = asyncio.create_task(use())
        assert await asyncio.to_thread(begun.wait, 10)
        using.cancel()
        await _settled()
        assert not using.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert ended == [0]

    asyncio.run(run())
