"""Schedules, delayed jobs and webhooks: no row of them holds up the others, and readiness tells when the loop fails."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.clock import stamp
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import serving


@pytest.fixture(params=["local", "http"])
def client(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LLMBackendClient]:
    """With a data directory of its own: tmp_path."""
    if request.param == "local":
        with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
            yield client
    else:
        with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
            yield client


def _until(condition: Callable[[], Any], timeout: float = 60) -> Any:
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.05)
    return found


def _run(data_dir: Path, statement: str, *values: Any) -> None:
    with closing(sqlite3.connect(data_dir / "state.db", timeout=30)) as connection, connection:
        connection.execute(statement, values)


def _schedule(client: LLMBackendClient, name: str) -> Any:
    return next(one for one in client.list_schedules() if one.name == name)


def _ran(file: Path, times: int = 1) -> bool:
    return file.exists() and file.read_text().count("ended") >= times


def test_an_idempotency_key_stops_no_schedule_and_no_delayed_job(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    first, other, delayed = tmp_path / "first", tmp_path / "other", tmp_path / "delayed"
    client.set_schedule("first", "* * * * * *", "note", {"file": str(first)})
    soon = int(time.time())
    for second in range(30):  # the keys that schedules had
        key = f"schedule first {stamp(float(soon + second))}"
        client.submit_job("count_words", {"texts": ["a"]}, idempotency_key=key)
    client.set_schedule("other", "* * * * * *", "note", {"file": str(other)})
    client.submit_job("note", {"file": str(delayed)}, run_at=stamp(time.time() + 1))
    _until(lambda: _ran(first, 2) and _ran(other, 2) and _ran(delayed))


def test_a_schedule_that_cannot_be_submitted_tells_so_and_holds_up_no_other(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    good, delayed = tmp_path / "good", tmp_path / "delayed"
    for name in ("a-broken", "b-broken", "good"):
        client.set_schedule(name, "* * * * * *", "note", {"file": str(good)})
    _run(tmp_path, "UPDATE job_schedules SET timezone = 'Mars/Base', next_at = 1 WHERE name = 'a-broken'")
    _run(tmp_path, "UPDATE job_schedules SET cron = 'no cron', next_at = 1 WHERE name = 'b-broken'")
    _until(lambda: "Mars/Base" in (_schedule(client, "a-broken").error or ""))
    _until(lambda: "no cron" in (_schedule(client, "b-broken").error or ""))
    before = good.read_text().count("ended") if good.exists() else 0
    client.submit_job("note", {"file": str(delayed)}, run_at=stamp(time.time() + 1))
    _until(lambda: _ran(good, before + 2) and _ran(delayed))
    assert client.health().status == "ok"
    assert _schedule(client, "good").error is None
    client.set_schedule("a-broken", "* * * * * *", "note", {"file": str(good)})
    assert _schedule(client, "a-broken").error is None


def test_a_clock_that_went_back_stalls_no_schedule(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    client.set_schedule("s", "* * * * * *", "note", {"file": str(file)})
    _until(lambda: _ran(file))
    ahead = time.time() + 3e7  # as if all of it had been a year ago
    _run(tmp_path, "UPDATE job_schedules SET next_at = ?, reckoned_at = ?", ahead + 1, ahead)
    before = file.read_text().count("ended")
    _until(lambda: _ran(file, before + 2))


def test_a_loop_that_fails_is_told_and_recovers(client: LLMBackendClient, tmp_path: Path) -> None:
    assert client.health().status == "ok"
    _run(tmp_path, "ALTER TABLE job_schedules RENAME TO elsewhere")
    health = _until(lambda: (found := client.health()).status != "ok" and found)
    [problem] = health.problems
    assert problem.startswith("look at jobs")
    assert "job_schedules" in problem
    url = getattr(client._transport, "api_url", None)
    if url is not None:
        assert requests.get(f"{url}/health/ready", timeout=30).status_code == 503
        assert requests.get(f"{url}/health/live", timeout=30).status_code == 200
    _run(tmp_path, "ALTER TABLE elsewhere RENAME TO job_schedules")
    _until(lambda: client.health().status == "ok")
    if url is not None:
        assert requests.get(f"{url}/health/ready", timeout=30).status_code == 200
