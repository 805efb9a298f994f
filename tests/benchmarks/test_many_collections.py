"""Very many collections: what listing them takes, and the memory they hold; and whether one of them delays another.

    pytest tests/benchmarks/test_many_collections.py -m benchmark -s

`BENCH_COLLECTIONS` is how many (1,000), `BENCH_REPAIRED` how many chunks one has that is repaired beside a search of another
(200,000); `BENCH_FOLDER` keeps all of them for the next run.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import psutil
import pytest

from llmbackend import LLMBackendClient
from llmbackend.engines.qdrant_edge import IN_USE
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.benchmarks.corpus import passages
from tests.server import KEY, serving

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3600)]

Table = Callable[..., None]

COLLECTIONS = int(os.environ.get("BENCH_COLLECTIONS", "1000"))
DOCUMENTS = 10
REPAIRED = int(os.environ.get("BENCH_REPAIRED", "200000"))
ROUNDS = 3


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


def _times(work: Callable[[], object], others: Sequence[threading.Thread], least: int = 0) -> list[float]:
    """Milliseconds of each call, one after the other, while others are at it, and `least` times."""
    times: list[float] = []
    while len(times) < least or any(other.is_alive() for other in others):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times


def test_a_search_beside_a_repair_and_a_deletion(tmp_path: Path, table: Table) -> None:
    """One collection is searched while another is opened as after a kill and a third is deleted."""
    folder = Path(os.environ.get("BENCH_FOLDER", tmp_path)) / "beside"
    settings = Settings(data_dir=folder)
    quiet: list[float] = []
    busy: list[float] = []
    for _ in range(ROUNDS):
        with LLMBackendClient(transport=LocalTransport(settings)) as client:
            there = {one.name for one in client.list_collections()}
            for name, count in (("searched", 2_000), ("deleted", REPAIRED // 10), ("repaired", REPAIRED)):
                if name not in there:
                    client.rag_ingest(passages(count, seed=count), name)
        for physical in (folder / "collections").iterdir():  # as a process that was killed leaves them
            if physical.is_dir():
                (physical / IN_USE).touch()
        with LLMBackendClient(transport=LocalTransport(settings)) as client:
            search = partial(client.rag_search, "Bada bede fan?", "searched")
            search()
            quiet += _times(search, [], 500)
            others = [
                threading.Thread(target=client.list_documents, args=("repaired",), kwargs={"limit": 1}),
                threading.Thread(target=client.delete_collection, args=("deleted",)),
            ]
            for thread in others:
                thread.start()
            busy += _times(search, others)
    table(
        f"a search (ms) beside the repair of {REPAIRED:,} chunks and a deletion",
        ("", "p50", "p99", "worst", "searches"),
        *(
            (name, *(statistics.quantiles(these, n=100)[cut] for cut in (49, 98)), max(these), len(these))
            for name, these in (("quiet", quiet), ("beside", busy))
        ),
    )
