"""Jobs: how soon they start, how many there can be, and what handing work over costs."""

from __future__ import annotations

import os
import sqlite3
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from huey import SqliteHuey
from huey.consumer import Consumer
from sqlalchemy import Engine, event

from llmbackend import LLMBackendClient
from llmbackend.job_types.built_in import EMBED_BATCH
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.benchmarks.corpus import passages
from tests.benchmarks.test_embeddings import _embedding_server
from tests.server import serving, working

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(1800)]

Table = Callable[..., None]

IDLE = float(os.environ.get("BENCH_IDLE", "10"))
"""Seconds without a job before each of some."""
ROUNDS = 3


@contextmanager
def _local(folder: Path, **settings: Any) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **settings))) as client:
        yield client


def _starts(client: LLMBackendClient, folder: Path) -> list[float]:
    """Milliseconds from submit to the first line of work, after a long rest and after short ones."""
    found = []
    for number, idle in enumerate([1.0, IDLE, *[1.0] * 15]):
        time.sleep(idle)
        file = folder / f"start-{number}"
        began = time.time()
        client.wait_for_job(client.submit_job("note", {"file": str(file), "text": "x"}), 30)
        found.append((float(file.read_text().split()[2]) - began) * 1000)
    return found[1:]


def test_jobs_start_at_once(tmp_path: Path, table: Table) -> None:
    with _local(tmp_path) as client:
        local = _starts(client, tmp_path)
    folder = tmp_path / "server"
    with (
        serving(folder, warm=False, workers=0) as server,
        working(folder, warm=False),
        LLMBackendClient(server.url) as client,
    ):
        worker = _starts(client, folder)
    rows = [
        (name, found[0], statistics.median(found))
        for name, found in (("in process", local), ("worker", worker))
    ]
    table("submit to start, ms", ("", f"after {IDLE:g} s", "p50"), *rows)
    # Whoever polls would take a second now and then.
    assert statistics.median(local) <= 100
    assert statistics.median(worker) <= 200


def test_accepting_a_job_is_one_durable_commit(tmp_path: Path, table: Table) -> None:
    commits: list[str] = []

    def count(connection: Any) -> None:
        commits.append(connection.get_execution_options().get("llmbackend_write", "read"))

    event.listen(Engine, "commit", count)
    try:
        with _local(tmp_path, workers=0) as client:
            commits.clear()
            for _ in range(100):
                client.submit_job("vectors", {"count": 1, "dimension": 2})
            durable = commits.count("durable") / 100
    finally:
        event.remove(Engine, "commit", count)
    table("durable commits to accept a job", ("llmbackend", durable))
    assert durable <= 2


JOBS = 1000


def _small_jobs(folder: Path, clients: int) -> float:
    """Seconds for JOBS jobs of no work, accepted and finished, with their results."""
    with _local(folder) as client:
        client.wait_for_job(client.submit_job("product", {"count": 1, "dimension": 2}), 30)
        with (
            closing(sqlite3.connect(folder / "state.db")) as connection,
            ThreadPoolExecutor(clients) as threads,
        ):
            began = time.perf_counter()
            submitted = threads.map(
                lambda _: client.submit_job("product", {"count": 1, "dimension": 2}), range(JOBS)
            )
            assert len(set(submitted)) == JOBS
            query = "SELECT count(*) FROM jobs WHERE status = 'completed'"
            while connection.execute(query).fetchone()[0] <= JOBS:
                time.sleep(0.01)
            return time.perf_counter() - began


class _Quiet(Consumer):  # type: ignore[misc]
    def _set_signal_handlers(self) -> None:
        pass


def _bare_huey(folder: Path, clients: int) -> float:
    """The same by huey on SQLite with results, which waits for the disk as the ledger does."""
    folder.mkdir()
    huey = SqliteHuey(filename=str(folder / "huey.db"), fsync=True, timeout=30)

    @huey.task()  # type: ignore[untyped-decorator]
    def product(count: int, dimension: int) -> dict[str, int]:
        return {"product": count * dimension}

    consumer = _Quiet(huey, workers=2, periodic=False, initial_delay=0.001, max_delay=0.01)
    consumer.start()
    try:
        with ThreadPoolExecutor(clients) as threads:
            began = time.perf_counter()
            list(threads.map(lambda _: product(1, 2), range(JOBS)))
            while huey.result_count() < JOBS:
                time.sleep(0.01)
            return time.perf_counter() - began
    finally:
        consumer.stop(graceful=True)


@pytest.mark.parametrize("clients", [1, 10])
def test_small_jobs_against_bare_huey(tmp_path: Path, table: Table, clients: int) -> None:
    times: dict[str, list[float]] = {"llmbackend": [], "huey": []}
    for lap in range(ROUNDS + 1):
        for name, run in (("llmbackend", _small_jobs), ("huey", _bare_huey)):
            took = run(tmp_path / f"{name}-{lap}", clients)
            if lap:  # the first is a warm-up
                times[name].append(took)
    speeds = {name: JOBS / statistics.median(found) for name, found in times.items()}
    pairs = [huey / ours for ours, huey in zip(times["llmbackend"], times["huey"], strict=True)]
    ratio = statistics.median(pairs)
    table(f"{JOBS} small jobs by {clients} threads, jobs/s", *speeds.items(), ("ratio", ratio))


TEXTS = 50_000


def _texts() -> list[str]:
    some = passages(1500)
    return [f"{number} {some[number % len(some)]}" for number in range(TEXTS)]


@pytest.mark.parametrize("transport", ["local", "http"])
def test_batch_embed_costs_nothing_beside_embedding(tmp_path: Path, table: Table, transport: str) -> None:
    """Against `embed` in the same batches, by a server that takes 50 ms for a request; the cache is off."""
    texts = _texts()
    with _embedding_server() as url:
        options = {"tei_url": url, "embedding_cache_mb": 0}
        ratios = []
        for lap in range(2):
            folder = tmp_path / str(lap)
            with _local(folder, **options) as client:
                began = time.perf_counter()
                for start in range(0, TEXTS, EMBED_BATCH):
                    client.embed(texts[start : start + EMBED_BATCH]).numpy()
                by_calls = time.perf_counter() - began
            with _on(transport, folder / "jobs", options) as client:
                began = time.perf_counter()
                job_id = client.submit_job("batch_embed", {"texts": texts})
                submitted = time.perf_counter() - began
                while (job := client.list_jobs(limit=1)[0]).status != "completed":
                    assert 0 <= job.progress.done <= job.progress.total
                    time.sleep(0.2)
                took = datetime.fromisoformat(job.finished_at) - datetime.fromisoformat(job.started_at)
                ratios.append(by_calls / took.total_seconds())
                began = time.perf_counter()
                page = client.get_job_result(job_id, offset=TEXTS - 10, limit=10)
                one_page = time.perf_counter() - began
                assert (page.total, len(page.rows)) == (TEXTS, 10)
                began = time.perf_counter()
                assert len(client.wait_for_job(job_id).embeddings) == TEXTS
                whole = time.perf_counter() - began
    table(
        f"batch_embed of {TEXTS} texts, {transport}",
        ("embed in the same batches, s", by_calls),
        ("the job, s", took.total_seconds()),
        ("ratio", max(ratios)),
        ("submit, s", submitted),
        ("a page of its result, s", one_page),
        ("the whole result, s", whole),
    )
    assert max(ratios) >= 0.95


@contextmanager
def _on(transport: str, folder: Path, options: dict[str, Any]) -> Iterator[LLMBackendClient]:
    if transport == "local":
        with _local(folder, **options) as client:
            yield client
    else:
        with serving(folder, warm=False, **options) as server, LLMBackendClient(server.url) as client:
            yield client


def test_a_results_size_is_not_held_in_memory(tmp_path: Path, table: Table) -> None:
    """Python's memory at its highest, beyond the texts, for results of one size and of four times that."""
    peaks = {}
    with _local(tmp_path, embedding_cache_mb=0) as client:
        client.wait_for_job(client.submit_job("batch_embed", {"texts": ["a"] * 1000}), 60)
        for count in (20_000, 80_000):
            texts = ["a text"] * count
            job_id = client.submit_job("batch_embed", {"texts": texts, "model": None})
            tracemalloc.start()
            while client.list_jobs(limit=1)[0].status != "completed":
                time.sleep(0.1)
            peaks[count] = tracemalloc.get_traced_memory()[1] / 2**20
            tracemalloc.stop()
            assert client.get_job_result(job_id, offset=count - 1).total == count
    table(
        "peak of Python's memory while batch_embed runs, MB",
        *((str(count), mb) for count, mb in peaks.items()),
    )


CLIENTS, EACH = 5, 100


def _owners_jobs(client: LLMBackendClient, file: Path) -> float:
    """Mean seconds from acceptance to the end, of EACH jobs by each of CLIENTS threads at once."""
    with ThreadPoolExecutor(CLIENTS) as threads:
        ids = list(
            threads.map(
                lambda _: client.submit_job("note", {"file": str(file), "seconds": 0.01}),
                range(CLIENTS * EACH),
            )
        )
    for job_id in ids:
        client.wait_for_job(job_id, 300)
    jobs = [client.get_job_status(job_id) for job_id in ids]
    waits = [
        (datetime.fromisoformat(job.finished_at) - datetime.fromisoformat(job.created_at)).total_seconds()
        for job in jobs
    ]
    return statistics.mean(waits)


def test_a_flood_leaves_the_other_owners_jobs_moving(tmp_path: Path, table: Table) -> None:
    with (
        serving(tmp_path, warm=False, api_keys="loud:key-1,quiet:key-2") as server,
        LLMBackendClient(server.url, "key-1") as loud,
        LLMBackendClient(server.url, "key-2") as quiet,
    ):
        alone = _owners_jobs(quiet, tmp_path / "alone")
        flood = threading.Thread(target=_owners_jobs, args=(loud, tmp_path / "flood"))
        flood.start()
        beside = _owners_jobs(quiet, tmp_path / "beside")
        flood.join()
    for name in ("alone", "flood", "beside"):
        assert (tmp_path / name).read_text().count("ended") == CLIENTS * EACH
    table(
        f"{2 * CLIENTS} clients x {EACH} jobs of two owners, mean s from acceptance to the end",
        ("the quiet owner alone", alone),
        ("beside the flood", beside),
        ("ratio", beside / alone),
    )
    assert beside <= 3 * alone


def test_watchers_hardly_slow_a_query_down(tmp_path: Path, table: Table) -> None:
    with _local(tmp_path) as client:
        client.rag_ingest([f"Text {number}" for number in range(50)], collection="c")
        job_id = client.submit_job("count_words", {"texts": ["a"]}, run_at="2999-01-01T00:00:00+00:00")

        def query() -> float:
            began = time.perf_counter()
            client.rag_search("text", collection="c")
            client.get_job_status(job_id)
            return time.perf_counter() - began

        def typical() -> float:
            return min(statistics.median(query() for _ in range(200)) for _ in range(2))

        quiet = typical()
        with ThreadPoolExecutor(8) as pool:
            streams = [client.job_events(job_id) for _ in range(400)]
            list(pool.map(next, streams))
        watched = typical()
        client.cancel_job(job_id)
        del streams
    quiet, watched = quiet * 1000, watched * 1000
    table(
        "a search and a look at a job, ms",
        ("quiet", quiet),
        ("400 watch it", watched),
        ("ratio", watched / quiet),
    )
    assert watched < 1.5 * quiet
