"""Workers on PostgreSQL and Redis that are killed, or stopped and brought back."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from sqlalchemy import make_url

from llmbackend import LLMBackendClient
from llmbackend.jobs.wakeups import ANSWER_SECONDS, Wakeups
from tests.server import serving, working
from tests.shared import services

TEXTS = [f"text number {number}" for number in range(40)]


@pytest.fixture(params=["postgres", "redis"])
def options(request: pytest.FixtureRequest, postgres: str) -> dict[str, object]:
    """What the processes share: a database, which also wakes them, or leaves that to Redis."""
    shared: dict[str, object] = {"job_lease": 2, "workers": 1}
    shared["database_url"] = services.database(postgres, f"{request.node.name}-{time.time()}")
    if request.param == "redis":
        shared["redis_url"] = request.getfixturevalue("redis")
    return shared


@pytest.fixture
def client(options: dict[str, object], tmp_path: Path) -> Iterator[LLMBackendClient]:
    with (
        serving(tmp_path / "server", **{**options, "workers": 0}) as server,
        LLMBackendClient(server.url) as client,
    ):
        yield client


def _until(condition: Callable[[], bool], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSTOP])
def test_another_worker_goes_on_where_one_ended(
    client: LLMBackendClient, options: dict[str, object], tmp_path: Path, end: signal.Signals
) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(working(tmp_path / "first", **options))
        job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.1})
        _until(lambda: client.get_job_status(job_id).progress.done > 3)
        first.send_signal(end)
        try:
            with working(tmp_path / "second", **options):
                result = client.wait_for_job(job_id, 60)
        finally:
            if end == signal.SIGSTOP:
                first.send_signal(signal.SIGCONT)
        done = client.get_job_status(job_id)
        if end == signal.SIGSTOP:  # its late write is refused, and it works on
            other = client.submit_job("count_words", {"texts": TEXTS})
            client.wait_for_job(other, 60)
    assert client.get_job_status(job_id) == done
    assert (result.attempt, [one.text for one in result.words]) == (2, TEXTS)


def test_several_workers_share_the_work(
    client: LLMBackendClient, options: dict[str, object], tmp_path: Path
) -> None:
    with working(tmp_path / "first", **options), working(tmp_path / "second", **options):
        many = [client.submit_job("count_words", {"texts": TEXTS[:number]}) for number in range(1, 40)]
        for number, job_id in enumerate(many, 1):
            assert len(client.wait_for_job(job_id, 60).words) == number
            assert client.get_job_status(job_id).attempts == 1


def test_a_silent_redis_holds_up_no_thread_for_long(own_redis: str, tmp_path: Path) -> None:
    from redis import Redis

    wakeups = Wakeups(make_url(f"sqlite:///{tmp_path / 'ledger.db'}"), own_redis)
    wakeups.wake("a job")
    with Redis.from_url(own_redis) as there:
        there.client_pause(60_000)
        began = time.monotonic()
        with pytest.raises(Exception, match=r"(?i)time"):
            wakeups.wake("a job")
        assert time.monotonic() - began < ANSWER_SECONDS + 2
    wakeups.stop()
