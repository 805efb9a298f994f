"""Work in threads: when it begins, who waits for it, and which threads do it."""

from __future__ import annotations

import asyncio
import threading
import time
from contextvars import ContextVar

import pytest
from anyio import CancelScope

from llmbackend import precedence, slices
from llmbackend.text import scanning, sentences
from llmbackend.threads import REST, Threads, side_by_side

PATIENCE = 60  # seconds


def test_work_begins_at_once() -> None:
    """Going round the loop before would take longer than most of it."""

    async def work() -> bool:
        begun = threading.Event()
        call = asyncio.create_task(Threads(1)(begun.set))
        await asyncio.sleep(0)
        at_once = begun.wait(PATIENCE)  # in which the loop does nothing
        await call
        return at_once

    assert asyncio.run(work())


def test_a_thread_is_used_again_and_so_many_at_most() -> None:
    async def work() -> None:
        some = Threads(2)
        assert await some(threading.get_ident) == await some(threading.get_ident)
        at_work, most, counting = 0, 0, threading.Lock()
        together = threading.Barrier(2)

        def count() -> None:
            nonlocal at_work, most
            with counting:
                at_work += 1
                most = max(most, at_work)
            together.wait(PATIENCE)
            with counting:
                at_work -= 1

        await asyncio.gather(*(some(count) for _ in range(6)))
        assert most == 2

    asyncio.run(work())


def test_a_cancelled_caller_waits_for_the_end_unless_it_abandons_it() -> None:
    async def work() -> None:
        some = Threads(1)
        begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

        def slow() -> None:
            begun.set()
            go_on.wait(PATIENCE)
            ended.set()

        async def call(abandon: bool, scope: CancelScope) -> None:
            with scope:
                await some(slow, abandon_on_cancel=abandon)

        waits = CancelScope()
        waiting = asyncio.create_task(call(False, waits))
        await asyncio.to_thread(begun.wait, PATIENCE)
        waits.cancel()
        for _ in range(20):
            await asyncio.sleep(0.001)
        assert not waiting.done()
        go_on.set()
        await waiting
        assert ended.is_set()

        for event in (begun, go_on, ended):
            event.clear()
        leaves = CancelScope()
        leaving = asyncio.create_task(call(True, leaves))
        await asyncio.to_thread(begun.wait, PATIENCE)
        leaves.cancel()
        await leaving
        assert not ended.is_set()
        go_on.set()
        with CancelScope() as cancelled:
            cancelled.cancel()
            await some(pytest.fail, "it was begun")

    asyncio.run(work())


def test_errors_and_the_context_go_along() -> None:
    name: ContextVar[str] = ContextVar("name")

    async def work() -> None:
        some = Threads(1)
        name.set("the caller's")
        assert await some(name.get) == "the caller's"
        with pytest.raises(ZeroDivisionError):
            await some(divmod, 1, 0)
        with pytest.raises(RuntimeError, match="StopIteration"):
            await some(next, iter(()))

    asyncio.run(work())


def test_work_side_by_side_waits_at_the_same_time() -> None:
    together = threading.Barrier(3)
    mine = ContextVar("mine", default="")
    mine.set("a caller's")

    def meet(name: str) -> tuple[str, str]:
        together.wait(PATIENCE)  # none would come alone
        return name, mine.get()

    found = side_by_side(*(lambda name=name: meet(name) for name in "abc"))
    assert found == [("a", "a caller's"), ("b", "a caller's"), ("c", "a caller's")]
    assert side_by_side(threading.get_ident) == [threading.get_ident()]


def test_of_work_side_by_side_the_first_failure_is_raised_when_all_have_ended() -> None:
    ended = threading.Event()

    def fail(number: int) -> None:
        raise ValueError(number)

    with pytest.raises(ValueError, match="1"):
        side_by_side(ended.set, lambda: fail(1), lambda: fail(2))
    assert ended.is_set()


@pytest.mark.parametrize(("releases", "at_once"), [(False, 1), (True, 4)])
def test_large_work_uses_the_interpreter_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, releases: bool, at_once: int
) -> None:
    """Else the event loop, which gets its lock at random, would wait for many slices of many threads."""
    monkeypatch.setattr(precedence, "SLICE", 0)
    monkeypatch.setattr(slices._Line, "PATIENCE", PATIENCE)
    at_work, most, counting = 0, 0, threading.Lock()
    together = threading.Barrier(4)

    def sliced() -> None:
        nonlocal at_work, most
        together.wait(PATIENCE)
        for _ in range(20):
            slices.give_way()
            with counting:
                at_work += 1
                most = max(most, at_work)
            time.sleep(0.002)
            with counting:
                at_work -= 1

    async def work() -> None:
        some = Threads(4, gives_way=True, releases=releases)
        await asyncio.gather(*(some(sliced) for _ in range(4)))

    asyncio.run(work())
    assert most == at_once


def test_who_waits_for_something_else_in_its_turn_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "SLICE", 0)
    has_turn, done = threading.Event(), threading.Event()

    def first() -> bool:
        slices.give_way()
        has_turn.set()
        return done.wait(PATIENCE)

    def second() -> None:
        has_turn.wait(PATIENCE)
        slices.give_way()
        done.set()

    async def work() -> bool:
        some = Threads(2, gives_way=True)
        return (await asyncio.gather(some(first), some(second)))[0]

    assert asyncio.run(work())


def test_sentences_of_a_long_text_are_found_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[None] = []
    monkeypatch.setattr(slices, "give_way", lambda: passed.append(None))
    parts = 10
    sentences.sentences("One word more. " * (parts * scanning.PART // 15))
    assert len(passed) >= parts


def test_work_that_rests_delays_the_next_for_a_moment_only() -> None:
    async def work() -> None:
        some = Threads(1, rests=True)
        go_on = threading.Event()
        slow = [asyncio.create_task(some(go_on.wait, PATIENCE)) for _ in range(2)]
        async with asyncio.timeout(PATIENCE):
            await some(time.sleep, 0)
        assert not any(one.done() for one in slow)
        go_on.set()
        assert [await one for one in slow] == [True, True]
        async with asyncio.timeout(PATIENCE):
            while some.free != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await asyncio.sleep(2 * REST)
        assert some.free == 1, "each place is given back once"

    asyncio.run(work())


def test_work_that_holds_the_interpreter_for_long_rests_as_long() -> None:
    async def work() -> None:
        some = Threads(1, rests=True)
        await some(time.sleep, 0.05)
        assert some.free == 0
        async with asyncio.timeout(PATIENCE):
            while not some.free:  # noqa: ASYNC110
                await asyncio.sleep(0.001)

    asyncio.run(work())
