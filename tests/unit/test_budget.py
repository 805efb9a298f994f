"""Texts under way on a server: how many, whose turn comes first, and what a busy server changes."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable, Callable

import pytest

from llmbackend.access.caller import of_project
from llmbackend.inference import budget
from llmbackend.inference.budget import UNTOLD, Budget, Turn, in_bulk, of_server
from llmbackend.tracing import Trace, tracing


async def _take(budget: Budget, texts: int, patience: float = 30) -> Turn:
    return await budget.take(texts, patience, math.inf)


async def _soon() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def _running(test: Callable[[], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(asyncio.wait_for(test(), 30))  # type: ignore[arg-type]

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@_running
async def test_no_more_is_under_way_than_there_is_room_for() -> None:
    budget = Budget(64)
    first, second = await _take(budget, 32), await _take(budget, 32)
    third = asyncio.create_task(_take(budget, 1))
    await _soon()
    assert not third.done()
    second.end()
    second.end()  # once is enough
    (await third).end()
    first.end()
    (await _take(budget, 100)).end()  # more than there ever is room for goes alone


@_running
async def test_a_server_that_has_done_its_part_has_room_while_its_reply_is_read() -> None:
    budget = Budget(32)
    first = await _take(budget, 32)
    second = asyncio.create_task(_take(budget, 32))
    await _soon()
    assert not second.done()
    first.leave()
    held = await second
    first.end()  # gives nothing back a second time
    third = asyncio.create_task(_take(budget, 32))
    await _soon()
    assert not third.done()
    held.end()
    (await third).end()


@_running
async def test_questions_come_before_what_is_done_in_bulk_and_find_room() -> None:
    budget, order = Budget(64), list[str]()

    async def ask(name: str, texts: int) -> None:
        turn = await _take(budget, texts)
        order.append(name)
        await _soon()
        turn.end()

    with in_bulk():
        held = [await _take(budget, 31), await _take(budget, 31)]
    free = await _take(budget, 2)  # kept free of what is done in bulk
    with in_bulk():
        bulk = [asyncio.create_task(ask("bulk", 31)) for _ in range(3)]
    await _soon()
    question = asyncio.create_task(ask("question", 1))
    await _soon()
    for turn in (*held, free):
        turn.end()
    await asyncio.gather(question, *bulk)
    assert order == ["question", "bulk", "bulk", "bulk"]


@_running
async def test_owners_get_equal_shares() -> None:
    budget, order = Budget(10), list[str]()

    async def ask(owner: str) -> None:
        with tracing(Trace("embed", caller=of_project(owner))):
            turn = await _take(budget, 5)
        order.append(owner)
        await _soon()
        turn.end()

    held = await _take(budget, 10)
    asking = [asyncio.create_task(ask("many")) for _ in range(8)]
    await _soon()
    asking += [asyncio.create_task(ask("few")) for _ in range(2)]
    await _soon()
    held.end()
    await asyncio.gather(*asking)
    assert sorted(order[:2]) == sorted(order[2:4]) == ["few", "many"]


@_running
async def test_a_busy_server_gets_half_and_slowly_more_again() -> None:
    budget = Budget(64)
    turns = [await _take(budget, 16) for _ in range(4)]
    for turn in turns:  # all of them refused: that is told once
        budget.was_busy(turn)
        turn.end()
    assert budget.limit == 32
    later = await _take(budget, 16)
    budget.was_busy(later)
    later.end()
    assert budget.limit == 8
    rounds = 0
    while budget.limit < 64:
        turn = await _take(budget, int(budget.limit))
        budget.went_well(turn)
        turn.end()
        rounds += 1
    assert rounds == 56
    budget.tell(16)
    assert budget.limit == 16


def test_however_long_requests_are_on_their_way_a_question_has_little_in_front_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A busy machine between: 32 texts take the server .1 s, and are back after .6 s."""

    async def work() -> None:
        now = 0.0
        monkeypatch.setattr(budget, "time", type("Clock", (), {"monotonic": staticmethod(lambda: now)}))
        room = Budget(512)
        room.tell(128)
        for bulk, texts, waited, worked, took in [
            (False, 1, 0.0, 0.003, 0.006),
            *30 * [(True, 32, 0.05, 0.1, 0.6)],
        ]:
            with in_bulk(bulk):
                turn = await room.take(texts, math.inf, math.inf)
            now += took
            room.answered(turn, waited, worked)
            turn.end()
        with in_bulk():
            held = [await room.take(16, math.inf, math.inf) for _ in range(2)]
            third = asyncio.create_task(room.take(16, math.inf, math.inf))
        await _soon()
        assert not third.done()
        for turn in held:
            turn.end()
        (await third).end()

    asyncio.run(asyncio.wait_for(work(), 30))


@_running
async def test_whoever_gives_up_takes_no_room() -> None:
    budget = Budget(4)
    held = await _take(budget, 4)
    waiting = [asyncio.create_task(_take(budget, 4)) for _ in range(2)]
    await _soon()
    waiting[0].cancel()
    await _soon()
    held.end()
    turn = await waiting[1]
    last = asyncio.create_task(_take(budget, 4))
    await _soon()
    del turn, waiting  # a stream that nobody began to read
    (await last).end()


@_running
async def test_waiting_ends_where_the_server_does_nothing() -> None:
    budget = Budget(1)
    held = await _take(budget, 1)
    with pytest.raises(TimeoutError):
        await _take(budget, 1, patience=0.05)
    patient = asyncio.create_task(_take(budget, 1, patience=0.3))
    for _ in range(5):
        await asyncio.sleep(0.1)
        budget.went_well(held)  # it gets on with what others asked
    held.end()
    (await patient).end()


def test_sizes_of_requests_fill_the_room() -> None:
    budget = Budget(math.inf)
    assert budget.batch(1000) == 1000
    budget = Budget(UNTOLD)
    assert budget.batch(64) == 64
    budget.tell(128)
    with in_bulk():
        assert budget.batch(32) == 31
    budget.tell(1)
    assert budget.batch(32) == 1


def test_callers_on_several_loops_share_a_server() -> None:
    budget = of_server("http://shared.example/v1", "embed", 2)
    assert of_server("http://shared.example", "embed", 2) is budget
    assert of_server("http://shared.example", "chat") is not budget
    most, under_way, lock = 0, 0, threading.Lock()

    async def ask() -> None:
        nonlocal most, under_way
        for _ in range(20):
            turn = await of_server("http://shared.example", "embed", 2).take(1, 30, math.inf)
            with lock:
                under_way += 1
                most = max(most, under_way)
            await asyncio.sleep(0.001)
            with lock:
                under_way -= 1
            turn.end()

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert most == 2


@_running
async def test_runs_of_agents_and_other_calls_of_an_owner_get_equal_shares() -> None:
    budget, order = Budget(1), list[str]()

    async def ask(kind: str) -> None:
        trace = Trace("chat", caller=of_project("a"))
        trace.of_run = kind == "run"
        with tracing(trace):
            turn = await _take(budget, 1)
        order.append(kind)
        await _soon()
        turn.end()

    await asyncio.gather(*(ask("run") for _ in range(5)), *(ask("chat") for _ in range(2)))
    assert order == ["run", "run", "chat", "run", "chat", "run", "run"]


@_running
async def test_no_owner_takes_all_the_room() -> None:
    """What one has under way may take minutes: whoever comes next does not wait for its end."""
    budget = Budget(64)

    async def asked(owner: str) -> asyncio.Task[Turn]:
        with tracing(Trace("chat", caller=of_project(owner))):
            return asyncio.create_task(_take(budget, 1))

    flood = [await asked("hr") for _ in range(100)]
    await _soon()
    under_way = [one for one in flood if one.done()]
    assert len(under_way) == 56
    others = [await asked(owner) for owner in ("support", "sales")]
    await _soon()
    assert all(one.done() for one in others)
    under_way[0].result().end()
    await _soon()
    assert sum(one.done() for one in flood) == 57 - len(others) // 2  # the others' part counts, too
    for one in flood:
        if not one.done():
            one.cancel()
