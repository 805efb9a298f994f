"""A server with very many collections: what listing them takes, and how much memory they hold.

    pytest tests/benchmarks/test_many_collections.py -m benchmark -s

`BENCH_COLLECTIONS` is how many (1,000); `BENCH_FOLDER` keeps them for the next run.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

Table = Callable[..., None]

COLLECTIONS = int(os.environ.get("BENCH_COLLECTIONS", "1000"))
DOCUMENTS = 10


def _fill(folder: Path) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder))) as client:
        there = {one.name for one in client.list_collections()}
        for number in range(COLLECTIONS):
            if f"handbook-{number}" not in there:
                client.rag_ingest(
                    [
                        f"Rule {rule} of house {number}: doors are shut at {rule}."
                        for rule in range(DOCUMENTS)
                    ],
                    f"handbook-{number}",
                )


def _measured(folder: Path) -> tuple[float, float, float]:
    """Milliseconds of a listing over HTTP and in process, and the server's megabytes after it."""
    with serving(folder, warm=False, api_key=KEY) as server, LLMBackendClient(server.url, KEY) as client:
        client.list_collections()
        over_http = [_milliseconds(client) for _ in range(21)]
        memory = psutil.Process(server.process.pid).memory_info().rss / 2**20
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder))) as client:
        client.list_collections()
        local = [_milliseconds(client) for _ in range(21)]
    return statistics.median(over_http), statistics.median(local), memory


def _milliseconds(client: LLMBackendClient) -> float:
    began = time.perf_counter()
    client.list_collections()
    return (time.perf_counter() - began) * 1000


def test_many_collections(tmp_path: Path, table: Table) -> None:
    folder = Path(os.environ.get("BENCH_FOLDER", tmp_path / "many"))
    _fill(folder)
    empty_http, empty_local, empty = _measured(tmp_path / "empty")
    http, local, memory = _measured(folder)
    table(
        f"{COLLECTIONS:,} collections of {DOCUMENTS} documents",
        ("", "listing over HTTP, ms", "in process, ms", "server, MB"),
        ("empty", empty_http, empty_local, empty),
        ("full", http, local, memory),
        ("above", "", "", memory - empty),
    )
