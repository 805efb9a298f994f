"""What one key can do to another: each attack in a process of its own, and a third process that measures meanwhile.

    [SECONDS=12] [NICE=0] pytest tests/benchmarks/test_hostile_callers.py -m benchmark -s [-k bodies]

Prints a row for each attack: `/health/live` with its stalls, another key's `rag_query` beside the same alone, and the
server's peak memory above idle. The attackers and their model server, which are on other machines in life, share this
one's processors: with NICE=10 they leave them to the server, and what differs between both figures is the machine's part.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohttp
import psutil
import pytest
import requests

from llmbackend import LLMBackendClient
from tests.server import Server, serving
from tests.upstream.fake import KEY as MODEL_KEY
from tests.upstream.fake import running

SECONDS = float(os.environ.get("SECONDS", "12"))
NICE = int(os.environ.get("NICE", "0"))
HOSTILE, OTHER = "key-of-hostile", "key-of-other"
WITH_KEY = {"X-API-Key": HOSTILE}
QUICK = "quick"
"""The attackers' model that answers at once."""
MB = 2**20

Attack = Callable[[str, Event], None]


def _post(url: str, path: str, body: Any, timeout: float = 30) -> None:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with suppress(requests.RequestException):
        requests.post(url + path, data=data, headers=WITH_KEY, timeout=timeout)


def _side_by_side(threads: int, work: Callable[[], None], stop: Event) -> None:
    """Do it again and again, so many at once."""

    def run() -> None:
        while not stop.is_set():
            work()

    running_ = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running_:
        thread.start()
    stop.wait()


def _connect(url: str) -> socket.socket:
    where = urlsplit(url)
    return socket.create_connection((where.hostname, where.port), timeout=10)


def regular_expressions(url: str, stop: Event) -> None:
    """Item 3: a pattern that backtracks, on a reply that the caller dictates."""
    body = {
        "model": QUICK,
        "messages": [{"role": "user", "content": "a" * 40 + "!"}],
        "schema": {"type": "string", "pattern": "^(a+)+$"},
    }
    _side_by_side(4, lambda: _post(url, "/v1/chat/completions", body), stop)


def filters(url: str, stop: Event) -> None:
    """Item 4: as many terms as are taken, or are refused."""
    terms = [{"n": number} for number in range(1000)]
    some = terms[:50]
    for _ in _until(stop):
        for chosen in (terms, some):
            body = {"query": "word", "collection": "big", "filters": {"or": chosen}, "top_k": 1000}
            _post(url, "/v1/rag/search", body)


def searches(url: str, stop: Event) -> None:
    """Item 4: the largest search that is taken."""
    body = {
        "query": "word",
        "collection": "big",
        "filters": {"or": [{"n": number} for number in range(32)]},
        "top_k": 1000,
    }
    _side_by_side(2, lambda: _post(url, "/v1/rag/search", body), stop)


def values(url: str, stop: Event) -> None:
    """Item 4: whatever was found to hold the interpreter's lock, or the event loop, as large as it is sent."""
    word, text = {"role": "user", "content": "a"}, {"type": "text", "text": "a"}
    deep = json.loads('{"a":' * 90 + "1" + "}" * 90)
    patterns = {f"p{n}": {"pattern": "|".join(f"w{n}x{k}[a-z]+" for k in range(120))} for n in range(100)}
    asked: list[tuple[str, dict[str, Any]]] = [
        ("/v1/chat/completions", {"messages": [word], "schema": {"properties": patterns}}),
        ("/v1/chat/completions", {"messages": [word], "schema": {"enum": [str(n) for n in range(25_000)]}}),
        ("/v1/chat/completions", {"messages": [word], "schema": {"a": [deep] * 2000}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [text] * 1000}] * 60}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "annotations": [[]] * 50_000}, word]}),
        ("/v1/jobs", {"job_type": "batch_embed", "params": {"texts": ["a"], "a": [deep] * 2000}}),
        ("/v1/jobs", {"job_type": "run_agent", "params": {"task": "a", "input": {"a": [deep] * 2000}}}),
        ("/v1/jobs", {"job_type": "batch_embed", "params": {"texts": ["word " * 4_000_000]}}),
        ("/v1/rag/search", {"query": "a", "collection": "big", "filters": {"n": [1] * 900_000}}),
        ("/v1/rag/search", {"query": "a", "collection": "big", "filters": {"a.b" * 1_000_000: 1}}),
        ("/v1/responses", {"input": [{"role": "system", "content": "word " * 400}] * 10_000}),
        ("/v1/responses", {"input": "word " * 2_000_000}),
        ("/v1/rag/ingest", {"documents": ["\n" * 3_000_000 + "a"], "collection": "split", "plan": True}),
    ]
    models = {"/v1/chat/completions": {"model": QUICK}, "/v1/responses": {"model": QUICK}}
    bodies = [(path, json.dumps(models.get(path, {}) | body).encode()) for path, body in asked]
    for _ in _until(stop):
        for path, body in bodies:
            if not stop.is_set():
                _post(url, path, body)


def splitter(url: str, stop: Event) -> None:
    """Item 5: texts that cost the splitter most."""
    body = {"documents": ["[!" * 2500], "collection": "split", "plan": True}
    _side_by_side(45, lambda: _post(url, "/v1/rag/ingest", body), stop)


def bodies(url: str, stop: Event) -> None:
    """Item 9: large bodies of many small messages, and others that are never finished."""
    body = b'{"messages":[' + b",".join([b'{"role":"user","content":"a"}'] * 2_000_000) + b"]}"
    open_: list[socket.socket] = []
    head = f"POST /v1/rag/ingest HTTP/1.1\r\nHost: x\r\nX-API-Key: {HOSTILE}\r\nContent-Length: {60 * MB}\r\n\r\n"
    for _ in range(60):
        with suppress(OSError):
            open_.append(_connect(url))
            open_[-1].sendall(head.encode() + b"x" * MB)
    _side_by_side(2, lambda: _post(url, "/v1/chat/completions", body), stop)


def documents(url: str, stop: Event) -> None:
    """Item 9: a large request that is legitimate."""
    texts = [f"{number} " + "the quick brown fox " * 30 for number in range(95_000)]
    body = json.dumps(
        {"documents": texts, "collection": "none", "plan": True, "chunk_overlap": 5000}
    ).encode()
    _side_by_side(1, lambda: _post(url, "/v1/rag/ingest", body), stop)


def ingest(url: str, stop: Event) -> None:
    """Item 9: 40 MB of documents that are taken in."""
    for number, _ in enumerate(_until(stop)):
        texts = [f"{number} {line} " + "the quick brown fox " * 20 for line in range(95_000)]
        body = json.dumps({"documents": texts, "collection": f"large-{number}"}).encode()
        _post(url, "/v1/rag/ingest", body, timeout=120)


def connections(url: str, stop: Event) -> None:
    """Item 10: idle connections, slow heads and endless headers."""
    idle: list[socket.socket] = []
    for number in range(1450):
        with suppress(OSError):
            idle.append(_connect(url))
            if number % 10 == 0:
                idle[-1].sendall(b"GET /v1/models HTTP/1.1\r\nHost: x\r\nX-Slow: ")
    for _ in _until(stop):
        with suppress(OSError):
            flood = _connect(url)
            flood.sendall(b"GET /v1/models HTTP/1.1\r\nX: ")
            for _ in range(100):
                flood.sendall(b"a" * 65536)
        time.sleep(0.05)


def watchers(url: str, stop: Event) -> None:
    """Item 14: many who watch a job that does not change."""
    with LLMBackendClient(url, HOSTILE) as client:
        job = client.submit_job("batch_embed", {"texts": ["a"]}, run_at="2035-01-01T00:00:00Z")
    open_: list[socket.socket] = []
    ask = f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: x\r\nX-API-Key: {HOSTILE}\r\n\r\n".encode()
    for _ in range(400):
        with suppress(OSError):
            open_.append(_connect(url))
            open_[-1].sendall(ask)
    stop.wait()


def flood(url: str, stop: Event) -> None:
    """500 chats at once with a slow model, 1,000 jobs that wait or are at work, and bodies of 5 MB."""
    chat = {"model": "slow", "messages": [{"role": "user", "content": "hello"}]}
    large = json.dumps({"collection": "flood", "plan": True, "documents": ["the quick brown fox " * 250_000]})

    async def ask(session: aiohttp.ClientSession, path: str, body: str) -> None:
        while not stop.is_set():
            with suppress(aiohttp.ClientError, asyncio.TimeoutError):
                async with session.post(url + path, data=body) as reply:
                    await reply.read()
                    if reply.status == 429:
                        await asyncio.sleep(1)

    async def all_at_once() -> None:
        headers = {**WITH_KEY, "Content-Type": "application/json"}
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            await asyncio.gather(
                *(ask(session, "/v1/chat/completions", json.dumps(chat)) for _ in range(500)),
                *(ask(session, "/v1/rag/ingest", large) for _ in range(2)),
            )

    with LLMBackendClient(url, HOSTILE) as client:
        for number in range(1000):
            client.submit_job("batch_embed", {"texts": [f"{number} {line}" for line in range(50)]})
    asyncio.run(all_at_once())


def _until(stop: Event) -> Iterator[None]:
    while not stop.is_set():
        yield


ATTACKS: list[Attack] = [
    regular_expressions,
    filters,
    searches,
    values,
    splitter,
    bodies,
    documents,
    ingest,
    connections,
    watchers,
    flood,
]


def _probe(url: str, seconds: float, found: Any) -> None:
    """Time health every 20 ms, the other key's question every 50 ms, and until its job is begun, each second."""
    took: dict[str, list[float]] = {"health": [], "query": [], "job": []}
    end = time.monotonic() + seconds
    asked = {"question": "How do I reset the router?", "collection": "small"}

    def health() -> None:
        with requests.Session() as session:
            while time.monotonic() < end:
                began = time.perf_counter()
                good = _good(lambda: session.get(f"{url}/health/live", timeout=30))
                took["health"].append(time.perf_counter() - began if good else math.inf)
                time.sleep(0.02)

    def query() -> None:
        with requests.Session() as session:
            session.headers["X-API-Key"] = OTHER
            _good(
                lambda: session.post(f"{url}/v1/rag/query", json=asked, timeout=60)
            )  # the first loads its models
            while time.monotonic() < end:
                began = time.perf_counter()
                good = _good(lambda: session.post(f"{url}/v1/rag/query", json=asked, timeout=60))
                took["query"].append(time.perf_counter() - began if good else math.inf)
                time.sleep(0.05)

    def jobs() -> None:
        with LLMBackendClient(url, OTHER) as client:
            while time.monotonic() < end:
                began = time.perf_counter()
                job_id = client.submit_job("batch_embed", {"texts": ["a text"]})
                while client.get_job_status(job_id).status == "queued":
                    time.sleep(0.02)
                took["job"].append(time.perf_counter() - began)
                time.sleep(1)

    threads = [threading.Thread(target=work) for work in (health, query, jobs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found.put(took)


def _attack(attack: Attack, url: str, stop: Event) -> None:
    os.nice(NICE)
    attack(url, stop)


def _their_models(url: Any, stop: Event) -> None:
    """The attackers' model server: 500 replies of it that are due at once, or a message of 20 MB, would hold up the other's."""
    os.nice(NICE)
    with running() as upstream:
        upstream.models = ["slow", QUICK]
        url.put(upstream.url)
        stop.wait()


def _at_rest(process: psutil.Process, patience: float = 300) -> None:
    """Wait until what an earlier attack left to do is done, such as the graph of a large collection."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        family = [process, *process.children(recursive=True)]
        before = sum(sum(one.cpu_times()[:2]) for one in family if one.is_running())
        time.sleep(2)
        if sum(sum(one.cpu_times()[:2]) for one in family if one.is_running()) - before < 0.4:
            return


def _good(ask: Callable[[], requests.Response]) -> bool:
    try:
        return ask().status_code == 200
    except requests.RequestException:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With a chat model that answers at once and echoes what it is told, two collections, and two keys."""
    context = multiprocessing.get_context("spawn")
    found, stop = context.Queue(), context.Event()
    theirs = context.Process(target=_their_models, args=(found, stop), daemon=True)
    theirs.start()
    with running() as upstream:
        models = {
            "openai_base_url": upstream.url,
            "openai_api_key": MODEL_KEY,
            "chat_model": "ok",
            "vllm_url": found.get(timeout=60),
        }
        keys = f"hostile:{HOSTILE},other:{OTHER}"
        folder: Path = tmp_path_factory.mktemp("hostile")
        with serving(folder, warm=False, api_keys=keys, log_level="error", **models) as one:
            with LLMBackendClient(one.url, HOSTILE) as client:
                large = [
                    {"id": str(n), "text": f"Ticket {n}: the router is late", "metadata": {"n": n}}
                    for n in range(2000)
                ]
                client.rag_ingest(large, "big")
                # Long, as a server in use has met them, or is ready for after a quiet moment: LlamaIndex is loaded.
                client.rag_ingest(["The quick brown fox jumps over the lazy dog. " * 200], "long")
            with LLMBackendClient(one.url, OTHER) as client:
                client.rag_ingest(["To reset the router, hold the button for ten seconds."] * 1, "small")
            yield one
    stop.set()
    theirs.join(10)


class Spread(NamedTuple):
    """Of times in ms."""

    p50: float
    p99: float
    worst: float
    stalls: int
    """How many took LONG or longer."""


LONG = 100  # ms


def _measured(url: str, seconds: float) -> dict[str, Spread]:
    """Of health, of a question, and until a job is begun, from another process."""
    found: Any = multiprocessing.get_context("spawn").Queue()
    prober = multiprocessing.get_context("spawn").Process(
        target=_probe, args=(url, seconds, found), daemon=True
    )
    prober.start()
    took = found.get(timeout=seconds + 120)
    prober.join()
    found_of = {}
    for name, times in took.items():
        ordered = sorted(1000 * one for one in times)
        p99 = ordered[math.ceil(0.99 * len(ordered)) - 1]
        stalls = sum(one >= LONG for one in ordered)
        found_of[name] = Spread(statistics.median(ordered), p99, ordered[-1], stalls)
    return found_of


@pytest.mark.benchmark
@pytest.mark.timeout(600)
@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_another_key_is_served_meanwhile(server: Server, attack: Attack) -> None:
    process = psutil.Process(server.process.pid)
    _at_rest(process)
    # As long as beside the attack, because the worst of more questions is worse.
    alone = _measured(server.url, SECONDS)
    idle = peak = process.memory_info().rss
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    attacker = context.Process(target=_attack, args=(attack, server.url, stop), daemon=True)
    attacker.start()
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, process.memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        time.sleep(3)  # it has begun
        meanwhile = _measured(server.url, SECONDS)
    finally:
        stop.set()
        done.set()
        watching.join()
        attacker.join(5)
        attacker.kill()
    time.sleep(1)
    health, query = meanwhile["health"], meanwhile["query"]
    ratio = query.p99 / alone["query"].p99
    print(
        f"\n{attack.__name__:20} health p50/p99/worst {health.p50:5.1f} /{health.p99:6.1f} /{health.worst:6.1f} ms, "
        f"{health.stalls} of {LONG} ms or more (alone p99 {alone['health'].p99:.1f}); "
        f"rag_query {query.p50:5.1f} /{query.p99:6.1f} ms (alone {alone['query'].p50:.1f} / {alone['query'].p99:.1f}: "
        f"p99 {ratio:.1f} times); a job begins after {meanwhile['job'].p50:.0f} / {meanwhile['job'].p99:.0f} ms; "
        f"memory {(peak - idle) / MB:.0f} MB above idle"
    )
    assert health.p99 < LONG
    assert ratio <= 3
    assert meanwhile["job"].p99 < 2000
    assert peak - idle < 1024 * MB
