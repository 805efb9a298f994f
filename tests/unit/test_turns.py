"""Projects take turns at the event loop and at places, so that one's question is not behind hundreds of another's."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest

from llmbackend import llamaindex_import, precedence, threads, tracing
from llmbackend.access.caller import of_project
from llmbackend.inference.upstream import Upstream
from llmbackend.threads import Threads
from llmbackend.tracing import Trace
from llmbackend.turns import STEPS, Places, in_turns, turn

CROWD = 200
HOPS = 10
PATIENCE = 60  # seconds


_Step = Callable[[], None]


async def _own(step: _Step) -> None:
    for _ in range(HOPS):
        await turn("flooding")
        step()


async def _of_a_library(step: _Step) -> None:
    """Work that knows of no turns."""
    for _ in range(HOPS):
        step()
        await asyncio.sleep(0)


async def _at_a_server(step: _Step) -> None:
    with tracing.tracing(Trace("", caller=of_project("flooding"))):
        server = Upstream("a server", "http://127.0.0.1:9/v1", None, PATIENCE)
        await server.persist(lambda: _of_a_library(step), texts=1)


@pytest.mark.parametrize(
    "work",
    [_own, lambda step: in_turns("flooding", _of_a_library(step)), _at_a_server],
    ids=["own", "library", "server"],
)
def test_a_newcomer_is_not_behind_those_of_another_project(work: Callable[[_Step], Awaitable[None]]) -> None:
    """Each time that it waits, a step or two of the crowd's are done, where it would be all."""
    steps = 0

    def step() -> None:
        nonlocal steps
        steps += 1

    async def one() -> None:
        await work(step)

    async def newcomer() -> int:
        before = steps
        for _ in range(HOPS):
            await turn("other")
            await asyncio.sleep(0)  # whatever it waits for
        return steps - before

    async def both() -> int:
        await turn("other")  # it has been here
        flood = [asyncio.create_task(one()) for _ in range(CROWD)]
        await asyncio.sleep(0)
        meanwhile = await newcomer()
        await asyncio.gather(*flood)
        return meanwhile

    assert asyncio.run(both()) <= 2 * HOPS * STEPS
    assert steps == CROWD * HOPS, "none was forgotten"


def test_work_in_turns_returns_raises_and_is_cancelled_as_any() -> None:
    seen = list[str]()

    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("its own")

    async def goes_on() -> str:
        try:
            await asyncio.sleep(PATIENCE)
        except asyncio.CancelledError:
            seen.append("cancelled")
            await asyncio.sleep(0)  # it may take its time
            seen.append("ended")
            raise
        return "too late"

    async def held_up() -> None:
        """One that waits for its turn."""
        await asyncio.sleep(0)
        seen.append("began its second step")

    async def all_three() -> None:
        assert await in_turns("one", asyncio.sleep(0, "a result")) == "a result"
        with pytest.raises(KeyError, match="its own"):
            await in_turns("one", fails())
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await in_turns("one", goes_on())
        await turn("other")
        task = asyncio.create_task(in_turns("one", held_up()))
        for _ in range(STEPS):
            await turn("one")
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(all_three())
    assert seen == ["cancelled", "ended"]


def test_who_leaves_takes_no_turn() -> None:
    async def leave() -> None:
        waiting = [asyncio.create_task(_turns("one", 3)) for _ in range(20)]
        await asyncio.sleep(0)
        for task in waiting[::2]:
            task.cancel()
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*waiting[1::2])

    asyncio.run(leave())
    asyncio.run(leave())  # on a loop of its own


async def _turns(project: str, count: int) -> None:
    for _ in range(count):
        await turn(project)


def test_places_are_given_to_projects_by_turns() -> None:
    async def work() -> list[str]:
        places, order = Places(2), list[str]()

        async def stay(project: str) -> None:
            async with places.held(project):
                order.append(project)
                await asyncio.sleep(0)

        tasks = [asyncio.create_task(stay(name)) for name in ["a"] * 20 + ["b", "c", "b"]]
        await asyncio.sleep(0)
        for gone in tasks[4:8]:
            gone.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        assert places.free == 2
        return order

    order = asyncio.run(work())
    assert len(order) == 19
    assert order[:7] == ["a", "a", "a", "b", "c", "a", "b"]


def test_who_leaves_with_a_place_on_its_way_gives_it_back() -> None:
    async def work() -> None:
        places = Places(1)
        await places.take("a")
        waiting = asyncio.create_task(places.take("a"))
        await asyncio.sleep(0)
        places.give_back()
        waiting.cancel()
        with suppress(asyncio.CancelledError):
            await waiting
        assert places.free == 1

    asyncio.run(work())


def test_threads_are_given_to_projects_by_turns() -> None:
    async def work() -> list[str]:
        some, order, go_on = Threads(1), list[str](), threading.Event()

        def one(project: str) -> None:
            go_on.wait(PATIENCE)
            order.append(project)

        async def call(project: str) -> None:
            with tracing.tracing(Trace("", caller=of_project(project))):
                await some(one, project)

        tasks = [asyncio.create_task(call("flooding")) for _ in range(CROWD)]
        for _ in range(3 * CROWD):
            await asyncio.sleep(0)
        assert not some.free
        tasks.append(asyncio.create_task(call("other")))
        for _ in range(3 * CROWD):  # until all wait
            await asyncio.sleep(0)
        go_on.set()
        await asyncio.gather(*tasks)
        return order

    assert asyncio.run(work()).index("other") <= 2


def test_imports_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """LlamaIndex is hundreds of modules: whoever needs them first holds nobody up for all of them together."""
    waits = list[float]()
    monkeypatch.setattr(precedence, "wait", waits.append)
    monkeypatch.setattr(precedence, "SLICE", 0.0)
    small = Trace("rag_search")
    small.go_first()
    modules = ["colorsys", "rlcompleter"]
    for name in modules:
        monkeypatch.delitem(sys.modules, name, raising=False)

    def load() -> None:
        with llamaindex_import.giving_way():
            for name in modules:
                __import__(name)

    try:
        asyncio.run(threads.engine(load))
        assert len(waits) >= len(modules)
    finally:
        small.finish("ok")
    assert not any(isinstance(finder, llamaindex_import.GivesWay) for finder in sys.meta_path)
