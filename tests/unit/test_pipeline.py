"""Stages that work at the same time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable

import pytest
from anyio import to_thread

from llmbackend import BackendError, schemas
from llmbackend.pipeline import ahead, side_by_side
from llmbackend.progress import items as progress_items


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


def test_side_by_side_several_are_worked_on_and_come_in_their_order() -> None:
    async def run() -> None:
        at_work, most = 0, 0

        async def work(number: int) -> int:
            nonlocal at_work, most
            at_work += 1
            most = max(most, at_work)
            await asyncio.sleep(0 if number % 3 else 0.001)  # some overtake others
            at_work -= 1
            return 2 * number

        async with side_by_side(Source(100).numbers(), work, at_once=3) as made:
            assert [item async for item in made] == list(range(0, 200, 2))
        assert most == 3

    asyncio.run(run())


def test_side_by_side_a_failure_comes_in_its_turn_and_ends_the_others() -> None:
    async def run() -> None:
        source = Source(100)
        made: list[int] = []
        cancelled: list[int] = []

        async def work(number: int) -> int:
            if number == 3:
                raise ValueError("number 3")
            if number < 3:
                await asyncio.sleep(0.01)  # so that 3 fails before they are through
                return number
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                cancelled.append(number)
                raise
            return number

        async def use() -> None:
            async with (
                ahead(source.numbers()) as numbers,
                side_by_side(numbers, work, at_once=4) as items,
            ):
                async for item in items:
                    made.append(item)

        with pytest.raises(ValueError, match="number 3"):
            await use()
        assert made == [0, 1, 2]
        assert cancelled != []
        assert source.made < 20
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


def test_side_by_side_a_failure_of_the_source_comes_after_what_was_made_before_it() -> None:
    made: list[int] = []

    async def work(number: int) -> int:
        await asyncio.sleep(0.001)
        return number

    async def run() -> None:
        async with side_by_side(Source(10, fails_at=5).numbers(), work, at_once=2) as items:
            async for item in items:
                made.append(item)

    with pytest.raises(ValueError, match="number 5"):
        asyncio.run(run())
    assert made == [0, 1, 2, 3, 4]


def test_side_by_side_what_threads_have_begun_has_ended_when_it_is_left() -> None:
    async def run() -> None:
        begun, may_end = threading.Semaphore(0), threading.Event()
        ended: list[int] = []

        def work(number: int) -> int:
            begun.release()
            assert may_end.wait(10)
            ended.append(number)
            return number

        async def use() -> None:
            def in_thread(number: int) -> Awaitable[int]:
                return to_thread.run_sync(work, number)

            async with (
                ahead(Source(100).numbers()) as numbers,
                side_by_side(numbers, in_thread, at_once=2) as items,
            ):
                async for _ in items:
                    pass

        using = asyncio.create_task(use())
        for _ in range(2):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        using.cancel()
        await _settled()
        assert not using.done()
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await using
        assert sorted(ended) == [0, 1]
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(run())


async def _cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


def test_work_that_is_cancelled_from_elsewhere_is_an_error_where_it_is_used() -> None:
    async def numbers() -> AsyncGenerator[int, None]:
        yield 1
        await _cancels_itself()

    async def used() -> list[int]:
        found = []
        async with ahead(numbers()) as items, asyncio.timeout(20):
            found.append(await anext(items))
            with pytest.raises(BackendError, match="stopped before it ended"):
                await anext(items)
        return found

    assert asyncio.run(used()) == [1]


def test_progress_of_work_that_is_cancelled_from_elsewhere_ends_with_an_error() -> None:
    async def work(progress: Callable[..., None]) -> schemas.Response:
        progress(1, 2, "half")
        await _cancels_itself()
        raise AssertionError

    async def run() -> None:
        items = progress_items(work)
        async with asyncio.timeout(20):
            assert await anext(items) == {"progress": {"done": 1, "total": 2, "stage": "half"}}
            with pytest.raises(BackendError, match="stopped before it ended"):
                await anext(items)

    asyncio.run(run())
