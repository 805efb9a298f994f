"""How long others wait for the server while it ingests."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from llmbackend import LLMBackendClient
from tests.server import serving

from .corpus import passages

pytestmark = pytest.mark.benchmark

CHUNKS = 10_000


def test_the_server_answers_while_it_ingests(tmp_path: Path, table: Callable[..., None]) -> None:
    texts = passages(CHUNKS)
    with serving(tmp_path, warm=False) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(passages(200, seed=1), "warm-up")
        idle = _waits(server.url, threading.Event(), limit=500)
        done = threading.Event()
        waits: list[float] = []
        asking = threading.Thread(target=lambda: waits.extend(_waits(server.url, done)))
        asking.start()
        began = time.perf_counter()
        assert client.rag_ingest(texts, "corpus").chunks == CHUNKS
        seconds = time.perf_counter() - began
        done.set()
        asking.join()
    table(
        f"/health/live (ms), every 5 ms while {CHUNKS} chunks come in over HTTP in {seconds:.1f} s",
        ("", "p50", "p99", "worst"),
        *(
            (name, *(1000 * one for one in _spread(these)))
            for name, these in (("idle", idle), ("ingesting", waits))
        ),
    )


def _waits(url: str, done: threading.Event, limit: int = 10**6) -> list[float]:
    """Seconds of each call of /health/live, one every 5 ms."""
    waits: list[float] = []
    with requests.Session() as session:
        while not done.is_set() and len(waits) < limit:
            began = time.perf_counter()
            session.get(f"{url}/health/live").raise_for_status()
            waits.append(time.perf_counter() - began)
            time.sleep(0.005)
    return waits


def _spread(waits: list[float]) -> tuple[float, float, float]:
    cuts = statistics.quantiles(waits, n=100)
    return cuts[49], cuts[98], max(waits)
