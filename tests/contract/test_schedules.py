"""Jobs that come again and again, on both transports."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound


@pytest.fixture
def name(client: LLMBackendClient) -> Iterator[str]:
    """A name that no schedule has; what is made under it is removed."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if name in [one.name for one in client.list_schedules()]:
        client.delete_schedule(name)


def test_a_schedule_submits_its_job_again_and_again(
    client: LLMBackendClient, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "notes"
    client.set_schedule(name, "* * * * * *", "note", {"file": str(file)})  # each second
    deadline = time.monotonic() + 60
    while not file.exists() or file.read_text().count("ended") < 3:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.delete_schedule(name) == {"deleted": name}
    with pytest.raises(NotFound):
        client.delete_schedule(name)


def test_a_time_is_left_out_while_the_last_job_goes_on(
    client: LLMBackendClient, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "notes"

    def left_out(is_told: bool) -> str:
        """What the schedule's error says, once it says that a time is left out, or no longer."""
        deadline = time.monotonic() + 60
        while True:
            [now] = [one for one in client.list_schedules() if one.name == name]
            if (now.error is not None) == is_told and file.exists():
                return str(now.error)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    client.set_schedule(name, "* * * * * *", "note", {"file": str(file), "seconds": 60})  # each second
    for count in (1, 2):
        said, _, job = left_out(True).rpartition(" ")
        assert said == "left out, since its last job has not ended:"
        time.sleep(1.5)
        assert file.read_text().count("began") == count
        client.cancel_job(job)
        left_out(False)
    client.delete_schedule(name)
    client.cancel_job(client.list_jobs(job_type="note", limit=1)[0].id)


def test_a_schedule_tells_when_it_is_due_next(client: LLMBackendClient, name: str, tmp_path: Path) -> None:
    params = {"file": str(tmp_path / "notes")}
    made = client.set_schedule(name, "30 2 * * *", "note", params, timezone="Europe/Berlin", priority=3)
    assert (made.name, made.cron, made.timezone, made.job_type, made.priority) == (
        name,
        "30 2 * * *",
        "Europe/Berlin",
        "note",
        3,
    )
    due = datetime.fromisoformat(made.next_at)
    assert datetime.now(UTC) < due < datetime.now(UTC) + timedelta(hours=26)
    assert (due.hour, due.minute) in ((0, 30), (1, 30))  # in summer, in winter
    assert made in client.list_schedules()
    client.set_schedule(name, "0 4 * * *", "note", params)
    [now] = [one for one in client.list_schedules() if one.name == name]
    assert (now.cron, now.timezone) == ("0 4 * * *", "UTC")


@pytest.mark.parametrize(
    ("cron", "zone", "wrong"),
    [
        ("every day", "UTC", "cron 'every day': 2 fields; .*minute, hour, day, month, weekday"),
        ("30 2 * * MON-FRI 2027", "UTC", "Bad month; .*six fields, of which the first is seconds"),
        ("61 * * * *", "UTC", "Bad minute"),
        ("0 4 * * *", "Mars/Base", "time zone"),
    ],
)
def test_wrong_times_are_refused(
    client: LLMBackendClient, name: str, cron: str, zone: str, wrong: str
) -> None:
    with pytest.raises(InvalidRequest, match=wrong):
        client.set_schedule(name, cron, "note", {"file": "x"}, timezone=zone)
    with pytest.raises(InvalidRequest, match="params"):
        client.set_schedule(name, "0 4 * * *", "note", {})
    assert name not in [one.name for one in client.list_schedules()]
