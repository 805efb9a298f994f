"""Processes that end in the middle of a job: what was accepted is done all the same, once."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from llmbackend import Conflict, LLMBackendClient, LLMBackendError, TransportError
from llmbackend.jobs import leases
from llmbackend.jobs.wakeups import Wakeups
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import Server, serving
from tests.upstream.fake import KEY, Upstream, running

DOCUMENTS = 60
SMALL_BATCHES = "from llmbackend.knowledge.ingest import ingest\ningest.BATCH_DOCUMENTS = 6"
"""So that there are many moments between two of them."""


@pytest.fixture
def model() -> Iterator[Upstream]:
    """An embedding model that takes its time, so that an ingest is seen, and killed, half way."""
    with running() as upstream:
        upstream.work = 0.2
        yield upstream


@pytest.fixture
def slow(model: Upstream) -> dict[str, Any]:
    """Settings of a server with that model."""
    return {"tei_url": f"{model.url}/ok", "tei_api_key": KEY, "embedding_cache_mb": 0, "first": SMALL_BATCHES}


def _documents(version: int = 1) -> list[dict[str, Any]]:
    """Documents of one to about ten chunks."""
    return [
        {
            "id": f"document-{number}",
            "text": " ".join(
                f"Section {section} of report {number}, edition {version}, is about case {number * 31 + section}."
                for section in range(1 + (number * version) % 89)
            ),
            "metadata": {"number": number, "version": version},
        }
        for number in range(DOCUMENTS)
    ]


def _until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.01)


def _until_under_way(client: LLMBackendClient, job_id: str, done: int = 1) -> None:
    """Wait until a job has done something, and see that it is not through yet."""
    _until(lambda: client.get_job_status(job_id).progress.done >= done)
    assert client.get_job_status(job_id).status == "running"


def _kill(server: Server, model: Upstream | None = None) -> None:
    server.process.kill()
    server.process.wait()
    if model is not None:
        model.work = 0  # what comes after that need not be caught half way


def _change_ledger(data_dir: Path, statement: str, *values: Any) -> list[Any]:
    """Run SQL on the ledger while no process does."""
    with closing(sqlite3.connect(data_dir / "state.db")) as connection, connection:
        return connection.execute(statement, values).fetchall()


def _assert_whole(client: LLMBackendClient, collection: str, documents: list[dict[str, Any]]) -> None:
    """The collection is what an undisturbed ingest of the documents makes."""
    report = client.rag_ingest(documents, "undisturbed")
    assert report.added == len(documents)

    def contents(name: str) -> list[tuple[str, int, Any]]:
        return sorted((one.id, one.chunks, one.metadata) for one in client.list_documents(name))

    assert contents(collection) == contents("undisturbed")
    # Counted by points, not by what heads say: no chunk too many, none too few.
    for name in (collection, "undisturbed"):
        info = client.get_collection(name)
        assert (info.documents, info.chunks) == (len(documents), report.chunks)
    for document in documents[:: DOCUMENTS // 8]:
        number = document["metadata"]["number"]
        query = f"report {number}"
        passages = [
            sorted(
                (hit.chunk, hit.text)
                for hit in client.rag_search(
                    query, name, top_k=1000, filters={"number": number}, mode="dense"
                )
            )
            for name in (collection, "undisturbed")
        ]
        assert passages[0] == passages[1]
        assert [chunk for chunk, _ in passages[0]] == list(range(len(passages[0])))


@pytest.mark.parametrize("done", [pytest.param(1, marks=pytest.mark.long), DOCUMENTS // 3])
def test_a_killed_ingest_job_runs_again_and_leaves_each_document_once(
    tmp_path: Path, slow: dict[str, Any], model: Upstream, done: int
) -> None:
    documents = _documents()
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("rag_ingest", {"documents": documents, "collection": "reports"})
        _until_under_way(client, job_id, done)
        _kill(server, model)
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        report = client.wait_for_job(job_id, timeout=60)
        assert report["added"] + report["unchanged"] == DOCUMENTS
        assert report["unchanged"] > 0  # what the first attempt wrote was not done again
        job = client.get_job_status(job_id)
        assert (job.status, job.attempts) == ("completed", 2)
        assert (job.progress.done, job.progress.total) == (DOCUMENTS, DOCUMENTS)
        _assert_whole(client, "reports", documents)
        [best, *_] = client.rag_search("report 50, edition 1", "reports", filters={"number": 50})
        assert best.document_id == "document-50"


def test_a_kill_while_documents_are_replaced_leaves_the_new_ones_only(
    tmp_path: Path, slow: dict[str, Any], model: Upstream
) -> None:
    documents = _documents(version=2)
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(_documents(version=1), "reports")
        job_id = client.submit_job("rag_ingest", {"documents": documents, "collection": "reports"})
        _until_under_way(client, job_id, DOCUMENTS // 3)
        _kill(server, model)
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        client.wait_for_job(job_id, timeout=60)
        assert client.rag_search("edition 1", "reports", filters={"version": 1}) == []
        _assert_whole(client, "reports", documents)


def test_a_collection_is_whole_before_the_job_runs_again(
    tmp_path: Path, slow: dict[str, Any], model: Upstream
) -> None:
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        job = {"documents": _documents(), "collection": "reports"}
        job_id = client.submit_job("rag_ingest", job)
        _until_under_way(client, job_id, DOCUMENTS // 4)
        _kill(server, model)
    _change_ledger(tmp_path, "UPDATE jobs SET status = 'cancelled'")
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        stored = client.list_documents("reports")
        assert DOCUMENTS // 4 <= len(stored) < DOCUMENTS
        assert len({one.id for one in stored}) == len(stored)
        info = client.get_collection("reports")
        assert (info.documents, info.chunks) == (len(stored), sum(one.chunks for one in stored))


def test_a_killed_embedding_job_runs_again_and_has_the_right_vectors(tmp_path: Path) -> None:
    texts = [
        f"Report {number} is about case {number * 31} of the year {number % 97}." for number in range(40_000)
    ]
    with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("batch_embed", {"texts": texts})
        _until_under_way(client, job_id)
        _kill(server)
    with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
        vectors = client.wait_for_job(job_id, timeout=60)["embeddings"]
        assert client.get_job_status(job_id).attempts == 2
        assert len(vectors) == len(texts)
        sample = range(0, len(texts), 101)
        expected = client.embed([texts[number] for number in sample])
        assert [vectors[number] for number in sample] == list(expected)


def test_a_job_that_was_lost_three_times_fails_and_the_others_go_on(
    tmp_path: Path, slow: dict[str, Any], model: Upstream
) -> None:
    documents = _documents()
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        lost = client.submit_job("rag_ingest", {"documents": documents, "collection": "lost"})
        other = client.submit_job("rag_ingest", {"documents": documents, "collection": "other"})
        waiting = client.submit_job("batch_embed", {"texts": ["a text"]})
        _until_under_way(client, lost)
        _until_under_way(client, other)
        _kill(server, model)
    _change_ledger(tmp_path, "UPDATE jobs SET attempts = 5, tries = 5 WHERE id = ?", lost)
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        with pytest.raises(LLMBackendError, match="killed") as caught:
            client.wait_for_job(lost, timeout=60)
        assert caught.value.details["reason"] == "lost"
        job = client.get_job_status(lost)
        assert (job.status, job.attempts) == ("failed", 5)
        assert job.finished_at is not None
        assert client.wait_for_job(waiting, timeout=60)["count"] == 1
        report = client.wait_for_job(other, timeout=60)
        assert report["added"] + report["unchanged"] == DOCUMENTS
        assert client.get_job_status(other).attempts == 2
        # What the lost job wrote before is whole, and its collection usable.
        stored = client.list_documents("lost")
        assert client.get_collection("lost").chunks == sum(one.chunks for one in stored)
        assert client.rag_ingest(documents, "lost").failed == []


def test_who_waits_for_a_job_waits_through_a_restart(
    tmp_path: Path, slow: dict[str, Any], model: Upstream
) -> None:
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("rag_ingest", {"documents": _documents(), "collection": "reports"})
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.wait_for_job, job_id, timeout=60)
            _until_under_way(client, job_id)
            server.process.terminate()
            server.process.wait(timeout=60)
            model.work = 0
            with serving(tmp_path, **slow, port=urlsplit(server.url).port):
                assert waiting.result()["added"] > 0


@pytest.mark.parametrize("stop", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.long)])
def test_a_stopped_server_gives_its_jobs_back(
    tmp_path: Path, slow: dict[str, Any], model: Upstream, stop: signal.Signals
) -> None:
    documents = _documents()
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("rag_ingest", {"documents": documents, "collection": "reports"})
        _until_under_way(client, job_id)
        server.process.send_signal(stop)
        server.process.wait(timeout=60)
        model.work = 0
    [row] = _change_ledger(tmp_path, "SELECT status, attempts FROM jobs WHERE id = ?", job_id)
    assert row == ("queued", 0)
    assert not (tmp_path / "holder.json").exists()  # it closed what it had open
    with serving(tmp_path, **slow) as server, LLMBackendClient(server.url) as client:
        client.wait_for_job(job_id, timeout=60)
        assert client.get_job_status(job_id).attempts == 1
        _assert_whole(client, "reports", documents)


def _slow(monkeypatch: pytest.MonkeyPatch, way: str) -> threading.Event:
    """Have a job's claim take half a second, as on a busy disk; set once one has begun."""
    begun = threading.Event()
    claim = getattr(leases, way)

    def slowly(*args: Any) -> Any:
        claimed = claim(*args)
        if claimed.claims:
            begun.set()
            time.sleep(0.5)
        return claimed

    monkeypatch.setattr(leases, way, slowly)
    return begun


TEXTS = [f"Report {number} is about case {number * 31}." for number in range(20_000)]


def _takes_turns(folder: Path) -> LLMBackendClient:
    """Its jobs are claimed, for owners have a limit; else, with hands free, one is at work as soon as it is accepted."""
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, jobs_per_owner=2)))


def test_closing_while_a_job_begins_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _slow(monkeypatch, "claim")
    with _takes_turns(tmp_path) as client:
        job_id = client.submit_job("batch_embed", {"texts": TEXTS})
        assert begun.wait(30)
    [row] = _change_ledger(tmp_path, "SELECT status, attempts FROM jobs WHERE id = ?", job_id)
    assert row == ("queued", 0)


def test_closing_while_a_job_is_accepted_gives_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = _slow(monkeypatch, "accept")
    client = LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path)))
    with ThreadPoolExecutor(1) as pool:
        submitting = pool.submit(client.submit_job, "batch_embed", {"texts": TEXTS})
        assert begun.wait(30)
        client.close()
        with pytest.raises(TransportError, match="closed"):
            submitting.result()
    [row] = _change_ledger(tmp_path, "SELECT status, attempts FROM jobs WHERE attempts = ?", 0)
    assert row == ("queued", 0), "there it is all the same"


def test_closing_while_the_queue_is_opened_closes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, opened = threading.Event(), Wakeups.__init__

    def slowly(self: Wakeups, *args: Any) -> None:
        begun.set()
        time.sleep(0.5)
        opened(self, *args)

    monkeypatch.setattr(Wakeups, "__init__", slowly)
    before = set(threading.enumerate())
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path, workers=1))) as client:
        for _ in range(2):  # for the second the worker is not ready, so that others are to be woken
            client.submit_job("batch_embed", {"texts": TEXTS})
        assert begun.wait(30)
    assert (tmp_path / "queue.db").exists()
    assert {one for one in set(threading.enumerate()) - before if one.name.startswith("Worker")} == set()
    files = {os.path.realpath(file) for file in Path("/proc/self/fd").iterdir()}
    assert {file for file in files if file.startswith(str(tmp_path))} == set()


def test_cancelling_while_a_job_begins_stops_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = _slow(monkeypatch, "claim")
    with _takes_turns(tmp_path) as client:
        job_id = client.submit_job("batch_embed", {"texts": TEXTS})
        assert begun.wait(30)
        assert client.cancel_job(job_id).status == "cancelled"
        with pytest.raises(Conflict, match="cancelled"):
            client.wait_for_job(job_id, timeout=30)
