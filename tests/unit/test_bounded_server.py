"""Many callers and somebody with questions, before servers that work off texts in their order: on a clock that is made up.

It goes on by as much as everybody waits, so that nothing depends on how fast a machine is.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from random import Random
from statistics import quantiles
from typing import Any

import pytest

from llmbackend.inference import budget
from llmbackend.inference.batches import Limits, ask_in_batches
from llmbackend.inference.budget import Budget, in_bulk

PERMITS, BATCH = 128, 32
CALLERS, TEXTS = 16, 256
SECONDS = 6.0
ON_THE_WAY = 0.0015
"""Seconds of a request, and of its reply."""
MACHINES = {"a quiet machine": (0.0, 0.0), "a busy machine": (0.2, 0.05), "a fitful machine": (0.03, 0.1)}
"""The share of them that take longer, and by how many seconds at most."""


class _Waiting(selectors.SelectSelector):
    """Waits by setting the clock forward."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        self.now += timeout or 0.0
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._waiting = _Waiting()
        super().__init__(self._waiting)

    def time(self) -> float:
        return self._waiting.now


class _Server:
    """Has `together` texts in hand at a time, which take `a_batch` seconds and `a_text` more each."""

    def __init__(self, together: int, a_batch: float, a_text: float, machine: str) -> None:
        self.together, self.a_batch, self.a_text = together, a_batch, a_text
        self._stalled, self._late = MACHINES[machine]
        self._random = Random(1)
        self.done = self.most = 0
        self._under_way = 0
        self._queue: deque[tuple[float, list[float], asyncio.Event]] = deque()
        self._come = asyncio.Event()

    async def work(self) -> None:
        now = asyncio.get_running_loop().time
        while True:
            if not self._queue:
                self._come.clear()
                await self._come.wait()
            some = [self._queue.popleft() for _ in range(min(self.together, len(self._queue)))]
            for since, waited, _ in some:
                waited.append(now() - since)
            await asyncio.sleep(self.a_batch + self.a_text * len(some))
            self.done += len(some)
            for _, _, ended in some:
                ended.set()

    async def embed(self, texts: int) -> tuple[float, float]:
        """For how long they waited, and were here, in whole milliseconds, as TEI tells."""
        await self._on_the_way()
        came = asyncio.get_running_loop().time()
        self._under_way += texts
        self.most = max(self.most, self._under_way)
        assert self._under_way <= PERMITS
        waited: list[float] = []
        each = [asyncio.Event() for _ in range(texts)]
        self._queue += [(came, waited, ended) for ended in each]
        self._come.set()
        for ended in each:
            await ended.wait()
        self._under_way -= texts
        took = asyncio.get_running_loop().time() - came
        await self._on_the_way()
        return int(1000 * sum(waited) / texts) / 1000, int(1000 * took) / 1000

    async def _on_the_way(self) -> None:
        stalled = self._random.random() < self._stalled
        await asyncio.sleep(ON_THE_WAY + stalled * self._random.uniform(0, self._late))


async def _shared(server: _Server) -> tuple[float, float, float]:
    """Texts a second of callers together; p99 of a question's seconds, alone and beside them."""
    now = asyncio.get_running_loop().time
    working = asyncio.create_task(server.work())
    room = Budget(512)
    room.tell(PERMITS)

    async def ask(batch: list[str]) -> list[str]:
        turn = await room.take(len(batch), 1e9, 1e9)
        waited, worked = await server.embed(len(batch))
        room.went_well(turn)
        room.answered(turn, waited, worked)
        turn.end()
        return batch

    async def embed(texts: list[str]) -> None:
        with in_bulk(len(texts) > 1):
            await ask_in_batches(texts, lambda: Limits(room.batch(BATCH)), ask)

    async def questions(until: float) -> float:
        times = []
        while (began := now()) < until:
            await embed([f"question {began}"])
            times.append(now() - began)
            await asyncio.sleep(0.011 + 0.009 * (len(times) % 3))
        return quantiles(times, n=100)[98]

    quiet = await questions(SECONDS / 4)
    began, before, until = now(), server.done, now() + SECONDS

    async def call(number: int) -> None:
        while now() < until:
            await embed([f"text {number}.{text}" for text in range(TEXTS)])

    callers = [asyncio.create_task(call(number)) for number in range(CALLERS)]
    busy = await questions(until)
    rate = (server.done - before) / (now() - began)
    await asyncio.gather(*callers)
    working.cancel()
    return rate, quiet, busy


async def _alone(server: _Server) -> float:
    """Texts a second of whoever has all permits under way."""
    now, working = asyncio.get_running_loop().time, asyncio.create_task(server.work())

    async def call() -> None:
        while now() < SECONDS:
            await server.embed(BATCH)

    await asyncio.gather(*(call() for _ in range(PERMITS // BATCH)))
    working.cancel()
    return server.done / now()


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("together", "a_batch", "a_text", "share"),
    [
        pytest.param(4, 0, 0.0002, 0.95, id="5,000 texts a second"),
        pytest.param(4, 0, 0.0005, 0.95, id="2,000 texts a second"),
        pytest.param(4, 0, 0.003, 0.95, id="330 texts a second"),
        pytest.param(4, 0, 0.01, 0.95, id="100 texts a second"),
        pytest.param(4, 0.002, 0.001, 0.95, id="a processor with batches"),
        # Two full batches of its take all permits, of which questions' are kept free.
        pytest.param(64, 0.012, 0.0003, 0.93, id="a GPU"),
    ],
)
def test_a_question_waits_for_little_and_the_server_is_used_well(
    monkeypatch: pytest.MonkeyPatch, together: int, a_batch: float, a_text: float, share: float, machine: str
) -> None:
    def run(what: Any) -> Any:
        with asyncio.Runner(loop_factory=_Loop) as runner:
            clock = type("Clock", (), {"monotonic": staticmethod(runner.get_loop().time)})
            monkeypatch.setattr(budget, "time", clock)
            return runner.run(what(_Server(together, a_batch, a_text, machine)))

    alone = run(_alone)
    rate, quiet, busy = run(_shared)
    assert rate >= share * alone, (rate, alone)
    assert busy <= 5 * quiet, (busy, quiet)
