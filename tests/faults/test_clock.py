"""A clock that is set while jobs run and wait, or between two starts: what was to come after a while still does so."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.clock import CLOCK_SECONDS, ClockWatch
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.receiver import Receiver, receiver
from tests.server import serving

__all__ = ["receiver"]

OPTIONS: dict[str, Any] = {"webhook_secret": "a-secret-to-sign-with", "webhook_private": True, "job_lease": 4}
NEVER = "2999-01-01T00:00:00+00:00"
ELSEWHERE = (
    "UPDATE jobs SET status = 'running', worker = 'elsewhere', token = 'x', attempts = 1, tries = 1, "
    "run_at = 0, lease = ?, reckoned_at = ? WHERE id = ?"
)
"""A job at which a process was that is no more."""


@contextmanager
def on(transport: str, folder: Path) -> Iterator[LLMBackendClient]:
    if transport == "local":
        with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **OPTIONS))) as client:
            yield client
    else:
        with serving(folder, **OPTIONS) as server, LLMBackendClient(server.url) as client:
            yield client


def _until(condition: Callable[[], Any], timeout: float = 60) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)


def _run(data_dir: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(data_dir / "state.db", timeout=30)) as connection, connection:
        connection.execute(statement, values)


@pytest.fixture
def by(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets this process's clock by so many seconds."""
    real = time.time

    def set_clock(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: real() + seconds)

    return set_clock


@pytest.mark.parametrize("hours", [-1, 1], ids=["back", "ahead"])
def test_a_clock_that_is_set_stalls_nothing_and_takes_no_job_away(
    hours: int, tmp_path: Path, receiver: Receiver, by: Callable[[float], None]
) -> None:
    receiver.answers = [500]
    with on("local", tmp_path) as client:
        lost, untouched = (client.submit_job("count_words", {"texts": ["a"]}, run_at=NEVER) for _ in range(2))
        hooked = client.submit_job("count_words", {"texts": ["a b"]}, webhook=receiver.url)
        _until(lambda: client.get_job_status(hooked).webhook.tries == 1)
        notes = tmp_path / "notes"
        alive = client.submit_job("note", {"file": str(notes), "seconds": 4})
        _until(notes.exists)
        _run(tmp_path, ELSEWHERE, time.time() + 2, time.time(), lost)
        by(hours * 3600)
        assert client.wait_for_job(lost, 60).attempt == 2
        _until(lambda: client.get_job_status(hooked).webhook.delivered_at)
        client.wait_for_job(alive, 60)
        assert client.get_job_status(alive).attempts == 1
        assert client.get_job_status(untouched).status == "queued", (
            "callers' own moments are not ours to move"
        )


@pytest.mark.parametrize("transport", ["local", "http"])
def test_a_clock_that_was_put_back_before_the_start_stalls_nothing(
    transport: str, tmp_path: Path, receiver: Receiver
) -> None:
    later = {"texts": ["a"]}
    with on("local", tmp_path) as client:
        lost, again, untouched, hooked = (
            client.submit_job("count_words", later, run_at=NEVER, webhook=hook)
            for hook in (None, None, None, receiver.url)
        )
        receiver.answers = [500] * 100
        client.cancel_job(hooked)
        _until(lambda: client.get_job_status(hooked).webhook.tries)
    receiver.answers = []
    ahead = time.time() + 3e7  # as if all of it had been a year from now
    _run(tmp_path, ELSEWHERE, ahead + 1, ahead, lost)
    _run(tmp_path, "UPDATE jobs SET run_at = ?, reckoned_at = ? WHERE id = ?", ahead + 1, ahead, again)
    _run(tmp_path, "UPDATE job_webhooks SET due_at = ?, reckoned_at = ? WHERE due_at > 0", ahead + 1, ahead)
    with on(transport, tmp_path) as client:
        for job_id in (lost, again):
            client.wait_for_job(job_id, 60)
        _until(lambda: client.get_job_status(hooked).webhook.delivered_at)
        assert client.get_job_status(untouched).status == "queued"


def test_a_clock_is_watched(by: Callable[[float], None]) -> None:
    watch = ClockWatch()
    assert abs(watch.moved()) < CLOCK_SECONDS
    for seconds in (-3600, 3600):
        by(seconds)
        assert abs(watch.moved() - seconds) < CLOCK_SECONDS
        by(0)
        assert abs(watch.moved() + seconds) < CLOCK_SECONDS


def test_a_schedule_fires_an_agent_also_after_the_clock_went_back(
    tmp_path: Path, by: Callable[[float], None]
) -> None:
    with on("local", tmp_path) as client:
        client.set_schedule("hourly", "0 * * * *", "agent/halving", {"task": "40"})

        def answers() -> list[str]:
            ended = client.list_jobs(status="completed")
            return [client.wait_for_job(job.id)["answer"] for job in ended]

        by(3600)
        _until(lambda: answers() == ["5"])
        before = client.list_schedules()[0].next_at
        by(-7200)
        _until(lambda: client.list_schedules()[0].next_at < before)
        assert len(client.list_jobs()) == 1, "it is reckoned anew, and not due"
        by(-3600)
        _until(lambda: answers() == ["5", "5"])
