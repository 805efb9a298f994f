"""Large work gives way to small requests: by order and count, whatever the machine's speed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec

import pytest
from starlette.requests import Request

from llmbackend import LLMBackendClient, precedence, slices, threads
from llmbackend.inference.cache import Cache, Entry
from llmbackend.server import bodies
from llmbackend.server.reservations import Reservation, Shares
from llmbackend.tracing import Trace, tracing

PATIENCE = 20.0  # seconds

_Args = ParamSpec("_Args")


def on_a_loop(test: Callable[_Args, Coroutine[Any, Any, None]]) -> Callable[_Args, None]:
    @wraps(test)
    def run(*args: _Args.args, **given: _Args.kwargs) -> None:
        asyncio.run(test(*args, **given))

    return run


@pytest.fixture(autouse=True)
def _nobody_else() -> Iterator[None]:
    precedence._small.clear()
    yield
    precedence._small.clear()


def _small(monkeypatch: pytest.MonkeyPatch) -> Trace:
    """A small request that is at work, and stays small."""
    monkeypatch.setattr(precedence, "SMALL", PATIENCE)
    trace = Trace("rag_query")
    trace.go_first()
    return trace


async def _until(true: Any) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def _slices(done: list[int], number: int) -> None:
    for one in range(number):
        slices.give_way()
        done.append(one)


@on_a_loop
async def test_large_work_waits_until_the_small_request_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    done: list[int] = []
    working = asyncio.create_task(threads.files(_slices, done, 1000))
    await _until(lambda: precedence._waiting)
    assert not done
    small.finish("ok")
    await working
    assert len(done) == 1000


@on_a_loop
async def test_it_goes_on_while_the_small_request_waits_for_a_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    done: list[int] = []
    working = asyncio.create_task(threads.files(_slices, done, 1000))
    await _until(lambda: precedence._waiting)
    with small.waiting():
        await working
        assert len(done) == 1000
    working = asyncio.create_task(threads.files(_slices, done, 1))
    await _until(lambda: precedence._waiting)
    small.finish("ok")
    await working


@on_a_loop
async def test_all_large_work_together_gets_its_share_where_small_requests_never_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _small(monkeypatch)
    began = time.monotonic()
    waits = 0

    def work() -> None:
        nonlocal waits
        for _ in range(5):
            precedence.wait(0.01)
            waits += 1

    working = [threading.Thread(target=work) for _ in range(4)]
    for thread in working:
        thread.start()
    for thread in working:
        thread.join(PATIENCE)
    assert waits == 20, "it is not kept waiting for ever"
    assert time.monotonic() - began >= 20 * 0.01 * precedence.WAIT_PER_WORK * 0.95
    assert not precedence._waiting


@on_a_loop
async def test_a_small_request_does_not_wait_for_itself_nor_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    other, own = _small(monkeypatch), _small(monkeypatch)
    done: list[int] = []
    with tracing(own):
        await threads.processor(_slices, done, 1000)
    assert len(done) == 1000
    other.finish("ok")
    own.finish("ok")


@on_a_loop
async def test_a_request_that_has_been_at_work_for_long_is_small_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "SMALL", 0.05)
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 0.001)
    trace = Trace("rag_search")
    trace.go_first()
    assert trace.goes_first
    await asyncio.sleep(0.06)
    assert not trace.goes_first
    await precedence.pause()
    assert not precedence.wanted()
    with trace.waiting():
        pass
    assert not precedence.wanted(), "a model in between does not make it small again"


@on_a_loop
async def test_a_request_that_has_had_the_processor_for_long_is_small_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "SMALL", PATIENCE)
    monkeypatch.setattr(precedence, "LIGHT", 0.02)
    trace = Trace("rag_search")
    trace.go_first()

    def work() -> None:
        before = time.thread_time()
        while time.thread_time() < before + 0.03:
            slices.give_way()

    with tracing(trace), trace.waiting():
        await threads.embedding(work)
    assert trace.goes_first, "that was a model"
    with tracing(trace):
        await threads.engine(work)
    assert not trace.goes_first
    assert not precedence.wanted()


@on_a_loop
async def test_a_small_request_waits_for_no_thread_of_those_that_wait_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    pools = [threads.processor, threads.splitting, threads.embedding]
    large = [asyncio.create_task(pool(_slow, 100)) for pool in pools for _ in range(2 * pool.most)]
    await _until(lambda: all(pool.free == 0 for pool in pools))
    small = _small(monkeypatch)
    with tracing(small):
        async with asyncio.timeout(PATIENCE):
            for pool in pools:
                assert await pool(int, 7) == 7
    assert precedence._waiting
    small.finish("ok")
    await asyncio.gather(*large)


def _slow(number: int) -> None:
    for _ in range(number):
        slices.give_way()
        time.sleep(0.001)


def test_what_is_kept_of_vectors_gives_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    cache = Cache(tmp_path / "embeddings.db", 16)
    cache.keep({bytes([number]) * 32: Entry(bytes(8), 1, "") for number in range(100)})
    asyncio.run(_until(lambda: precedence._waiting))
    small.finish("ok")
    cache.close()
    assert not precedence._waiting


@on_a_loop
async def test_the_loop_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    _small(monkeypatch)
    _slices([], 1000)
    assert not precedence._waiting


@on_a_loop
async def test_those_that_wait_are_woken_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small request that comes meanwhile holds the rest up again."""
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    again: list[Trace] = []
    through: list[int] = []

    async def large(number: int) -> None:
        await precedence.pause()
        if not through:
            again.append(_small(monkeypatch))
        through.append(number)

    working = [asyncio.create_task(large(number)) for number in range(10)]
    await _until(lambda: len(precedence._waiting) == 10)
    small.finish("ok")
    await _until(lambda: again)
    await asyncio.sleep(0.01)
    assert through[0] == 0
    assert len(through) <= 2, "no more than had been woken before it came"
    again[0].finish("ok")
    await asyncio.gather(*working)
    assert through == list(range(10))


@on_a_loop
async def test_a_large_body_is_read_no_further_while_a_small_request_is_at_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    sent = 0

    async def receive() -> dict[str, Any]:
        nonlocal sent
        sent += 1
        return {"type": "http.request", "body": bytes(2**16), "more_body": sent < 100}

    async def read() -> int:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        reserved = Reservation(Shares(10**9, lambda: 10**9, "", ""), "a")
        return sum([len(part) async for part in bodies.Body(request, 10**9, reserved)])

    reading = asyncio.create_task(read())
    await _until(lambda: precedence._waiting)
    assert sent * 2**16 <= bodies.SLICE + 2**17
    small.finish("ok")
    assert await reading == 100 * 2**16


@on_a_loop
async def test_what_waits_and_is_cancelled_holds_up_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precedence, "WAIT_PER_WORK", 10_000.0)
    small = _small(monkeypatch)
    first, second = (asyncio.create_task(precedence.pause()) for _ in range(2))
    await _until(lambda: len(precedence._waiting) == 2)
    first.cancel()
    await _until(first.done)
    small.finish("ok")
    await second
    assert not precedence._waiting


def test_an_ingest_leaves_the_processor_to_small_requests(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    client: LLMBackendClient = request.getfixturevalue("_local")
    texts = [f"{number} " + "The quick brown fox jumps over the lazy dog. " * 20 for number in range(2000)]
    client.rag_ingest(texts[:10], "given-way")  # what is loaded for the first one is loaded
    ingesting = threading.Thread(target=client.rag_ingest, args=(texts, "given-way"))
    ingesting.start()
    try:
        time.sleep(0.2)
        small = _small(monkeypatch)
        time.sleep(0.1)  # what had begun is through
        began, used = time.monotonic(), time.process_time()
        while time.monotonic() < began + 0.5 and ingesting.is_alive():
            time.sleep(0.01)
        share = (time.process_time() - used) / (time.monotonic() - began)
        assert ingesting.is_alive(), "this machine is too fast for the test: give it more texts"
        assert share < 0.5, "alone, an ingest takes more than a whole core"
        small.finish("ok")
    finally:
        ingesting.join(60)
        client.delete_collection("given-way")
