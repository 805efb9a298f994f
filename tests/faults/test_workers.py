"""Workers that are killed, stopped and brought back: each job is done once, and visibly."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest

from llmbackend import LLMBackendClient
from llmbackend.job_types.built_in import FIRST_BATCH
from llmbackend.jobs.leases import MAX_ATTEMPTS
from tests.server import Process, Server, serving, start, working
from tests.upstream.fake import KEY, Upstream, running

TEXTS = [f"text number {number}" for number in range(40)]


def _until(condition: Callable[[], Any], timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def _kill(process: Process) -> None:
    process.kill()
    process.wait()


def _stop(process: Process, data_dir: Path) -> None:
    """At a moment at which it is not writing: it would keep all others from it."""
    with closing(sqlite3.connect(data_dir / "state.db", timeout=0.5, isolation_level=None)) as connection:
        while True:
            process.send_signal(signal.SIGSTOP)
            try:
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("ROLLBACK")
                return
            except sqlite3.OperationalError:
                process.send_signal(signal.SIGCONT)


def _rows(data_dir: Path, query: str) -> list[Any]:
    with closing(sqlite3.connect(data_dir / "state.db")) as connection:
        return connection.execute(query).fetchall()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """One that leaves the work to others."""
    with serving(tmp_path, workers=0) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(server.url) as client:
        yield client


def test_a_worker_does_what_the_server_accepted(client: LLMBackendClient, tmp_path: Path) -> None:
    waiting = client.submit_job("count_words", {"texts": TEXTS})
    with working(tmp_path, workers=3), working(tmp_path, workers=3):
        assert [one.text for one in client.wait_for_job(waiting, 60).words] == TEXTS
        many = [client.submit_job("count_words", {"texts": TEXTS[:number]}) for number in range(1, 40)]
        for number, job_id in enumerate(many, 1):
            assert len(client.wait_for_job(job_id, 60).words) == number
            assert client.get_job_status(job_id).attempts == 1
        # Collections are in the server's data directory, out of their reach.
        elsewhere = client.submit_job("rag_ingest", {"documents": ["a"], "collection": "c"})
        client.wait_for_job(client.submit_job("count_words", {"texts": TEXTS}), 60)
        assert client.get_job_status(elsewhere).status == "queued"


def test_a_job_of_a_worker_is_cancelled_and_watched_from_the_server(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    file = tmp_path / "notes"
    with working(tmp_path):
        job_id = client.submit_job("note", {"file": str(file), "seconds": 60})
        _until(lambda: file.exists() and "began" in file.read_text())
        asked = time.time()
        assert client.cancel_job(job_id).status == "cancelled"
        _until(lambda: "cancelled" in file.read_text())
        assert float(file.read_text().split()[-1]) - asked < 10
        job_id = client.submit_job("count_words", {"texts": TEXTS, "pause": 0.3})
        assert [event.job.status for event in client.job_events(job_id)][-1] == "completed"


def test_a_stopped_worker_hands_back_what_it_is_at(client: LLMBackendClient, tmp_path: Path) -> None:
    with working(tmp_path):
        job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.1})
        _until(lambda: client.get_job_status(job_id).progress.done > 3)
    job = client.get_job_status(job_id)
    assert (job.status, job.attempts) == ("queued", 0)
    with working(tmp_path):
        result = client.wait_for_job(job_id, 60)
    assert result.attempt == 1
    assert result.resumed_from > 3
    assert [one.text for one in result.words] == TEXTS


def test_a_killed_workers_job_is_done_by_another(tmp_path: Path) -> None:
    with (
        serving(tmp_path, workers=0, job_lease=4) as server,
        LLMBackendClient(server.url) as client,
        working(tmp_path, job_lease=4) as first,
    ):
        # It takes longer than another worker takes to start.
        job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.2})
        _until(lambda: client.get_job_status(job_id).progress.done > 3)
        with working(tmp_path, job_lease=4):  # it may not take the job from one who lives
            assert client.get_job_status(job_id).attempts == 1
            _kill(first)
            result = client.wait_for_job(job_id, 60)
    assert (result.attempt, [one.text for one in result.words]) == (2, TEXTS)


def test_one_who_comes_back_too_late_is_refused(tmp_path: Path) -> None:
    with (
        serving(tmp_path, workers=0, job_lease=1) as server,
        LLMBackendClient(server.url) as client,
        working(tmp_path, job_lease=1, workers=1) as first,
    ):
        job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.1})
        _until(lambda: client.get_job_status(job_id).progress.done > 3)
        _stop(first, tmp_path)
        try:
            with working(tmp_path, job_lease=1, workers=1):
                client.wait_for_job(job_id, 60)
        finally:
            first.send_signal(signal.SIGCONT)
        done = client.get_job_status(job_id)
        # It lives, and works on, though not on that job.
        other = client.submit_job("count_words", {"texts": TEXTS})
        assert len(client.wait_for_job(other, 60).words) == len(TEXTS)
        assert client.get_job_status(job_id) == done
        assert (done.attempts, [one.text for one in done.result.words]) == (2, TEXTS)


def test_what_always_kills_its_process_is_lost_and_the_others_go_on(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    fatal = client.submit_job("kill", {})
    # Those that die with it are not to blame.
    others = [client.submit_job("count_words", {"texts": TEXTS, "pause": 0.2}) for _ in range(3)]
    deaths = 0
    while client.get_job_status(fatal).status != "failed":
        process = start(tmp_path, "worker", warm=True, workers=3)
        try:
            _until(lambda p=process: p.poll() is not None or client.get_job_status(fatal).status == "failed")
            deaths += process.poll() == -signal.SIGKILL
        finally:
            process.terminate()
            process.wait(30)
    assert deaths == MAX_ATTEMPTS
    job = client.get_job_status(fatal)
    assert (job.attempts, job.error.details.reason) == (MAX_ATTEMPTS, "lost")
    with working(tmp_path):
        for job_id in others:
            assert len(client.wait_for_job(job_id, 60).words) == len(TEXTS)


@pytest.mark.parametrize("workers", [0, 2], ids=["accepted", "begun"])
def test_a_reply_that_was_lost_is_asked_for_again(tmp_path: Path, workers: int) -> None:
    job = {"job_type": "count_words", "params": {"texts": TEXTS, "batch": 1}, "idempotency_key": "once"}
    body = json.dumps(job).encode()
    head = f"POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with serving(tmp_path, workers=workers) as server:
        address = urlsplit(server.url)
        with socket.create_connection((str(address.hostname), int(address.port or 0))) as connection:
            connection.sendall(head.encode() + body)
            _until(lambda: _rows(tmp_path, "SELECT id FROM jobs"))
            _kill(server.process)
    with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("count_words", job["params"], idempotency_key="once")
        assert [one.text for one in client.wait_for_job(job_id, 60).words] == TEXTS
    assert _rows(tmp_path, "SELECT id, status FROM jobs") == [(job_id, "completed")]


def test_a_pickle_in_the_queue_is_never_loaded(client: LLMBackendClient, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    code = b"cposix\nsystem\n(S'touch " + os.fsencode(trap) + b"'\ntR."
    with closing(sqlite3.connect(tmp_path / "queue.db")) as connection, connection:
        connection.execute("INSERT INTO task (queue, data) VALUES ('llmbackend', ?)", (code,))
    with working(tmp_path):
        job_id = client.submit_job("count_words", {"texts": TEXTS})
        assert len(client.wait_for_job(job_id, 60).words) == len(TEXTS)
        _until(lambda: _in_queue(tmp_path) == 0)
    assert not trap.exists()


def _in_queue(data_dir: Path) -> int:
    with closing(sqlite3.connect(data_dir / "queue.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM task").fetchone()[0])


def test_a_lost_waking_is_made_up_for(client: LLMBackendClient, tmp_path: Path) -> None:
    with working(tmp_path):
        _until(lambda: _in_queue(tmp_path) == 0)
        # A job that nobody is woken for.
        with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
            later = client.submit_job("count_words", {"texts": TEXTS}, run_at="2999-01-01T00:00:00+00:00")
            connection.execute("UPDATE jobs SET run_at = 0 WHERE id = ?", (later,))
        assert len(client.wait_for_job(later, 60).words) == len(TEXTS)


KILLS = 20


@pytest.mark.long
@pytest.mark.timeout(600)
def test_jobs_outlive_twenty_kills(tmp_path: Path) -> None:
    """An embedding job of 5,000 texts and an ingest, killed together at random moments, with an upstream that counts."""
    texts = [f"text {number:05d}" for number in range(5000)]
    documents = [{"id": f"d{number}", "text": f"document {number:05d}"} for number in range(1500)]
    random.seed(5)
    with running() as upstream:
        upstream.work = 0.5  # so slow that neither is through before the last kill
        options = {"tei_url": f"{upstream.url}/ok", "tei_api_key": KEY, "embedding_cache_mb": 0}
        with serving(tmp_path, **options) as server, LLMBackendClient(server.url) as client:
            embed = client.submit_job("batch_embed", {"texts": texts})
            ingest = client.submit_job("rag_ingest", {"documents": documents, "collection": "c"})
        for _ in range(KILLS):
            before = len(upstream.seen)
            with serving(tmp_path, **options) as server:
                _until(lambda n=before: len(upstream.seen) > n)
                time.sleep(random.uniform(0, 1.5))
                _kill(server.process)
        with serving(tmp_path, **options) as server, LLMBackendClient(server.url) as client:
            vectors = client.wait_for_job(embed, 300).embeddings
            report = client.wait_for_job(ingest, 300)
            assert report.failed == []
            assert client.get_collection("c").documents == len(documents)
            assert {one.chunks for one in client.list_documents("c")} == {1}
            times = _times_embedded(upstream)
            expected = client.embed(texts).numpy()
            assert np.allclose(vectors.numpy(), expected)
            attempts = [client.get_job_status(job).attempts for job in (embed, ingest)]
    print(f"attempts {attempts}, embedded {sum(times.values())} for {len(texts) + len(documents)} needed")
    assert max(times[text] for text in texts) <= 1 + KILLS
    assert (
        sum(times[text] for text in texts) <= len(texts) + KILLS * 5 * FIRST_BATCH
    )  # it is too slow for more
    again = sum(times[document["text"]] for document in documents) - len(documents)
    assert again <= KILLS * 5 * 64  # batches on their way at a kill, as the pipeline holds them


def _times_embedded(upstream: Upstream) -> Counter[str]:
    seen = (text for body in upstream.seen for text in body["inputs"])
    return Counter(text for text in seen if re.match(r"(text|document) \d{5}$", text))


def test_a_worker_says_in_one_line_why_it_cannot_start(tmp_path: Path) -> None:
    process = start(tmp_path, "worker", warm=True, database_url="nonsense://x")
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    assert said.startswith("backend: DATABASE_URL")
