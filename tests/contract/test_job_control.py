"""Types of a project's own; when jobs run, in which order, once or again; on both transports."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound

TEXTS = [f"text number {number}" for number in range(40)]


def _until(condition: Callable[[], bool], timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def _submit_note(client: LLMBackendClient, file: Path, text: str, **options: Any) -> str:
    return client.submit_job("note", {"file": str(file), "text": text}, **options)


def _notes(file: Path, what: str) -> list[str]:
    lines = file.read_text().splitlines() if file.exists() else []
    return [line.split()[1] for line in lines if line.startswith(what)]


def test_an_installed_package_brings_its_own_types(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS})
    result = client.wait_for_job(job_id, 60)
    assert [(one.text, one.words) for one in result.words] == [(text, 3) for text in TEXTS]
    assert (result.resumed_from, result.attempt) == (None, 1)
    job = client.get_job_status(job_id)
    assert (job.progress.total, job.progress.stage, job.owner) == (40, "count", result.owner)


def test_its_params_are_checked_at_once(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="texts"):
        client.submit_job("count_words", {"texts": []})


def test_a_job_that_has_ended_can_be_deleted(client: LLMBackendClient) -> None:
    waits = client.submit_job("count_words", {"texts": TEXTS}, run_at="2999-01-01T00:00:00Z")
    after = client.submit_job("count_words", {"texts": ["a"]}, depends_on=[waits])
    with pytest.raises(
        Conflict, match="is queued: only a job that has ended can be deleted; cancel it first"
    ):
        client.delete_job(waits)
    client.cancel_job(waits)
    done = client.submit_job("count_words", {"texts": TEXTS}, idempotency_key=(key := uuid.uuid4().hex))
    client.wait_for_job(done, 60)
    for job_id in (waits, done):
        assert client.delete_job(job_id) == {"deleted": job_id}
        for call in (client.get_job_status, client.get_job_result, client.retry_job, client.delete_job):
            with pytest.raises(NotFound, match=job_id):
                call(job_id)
    assert client.get_job_status(after).status == "failed"  # as when that was cancelled
    assert client.delete_job(after) == {"deleted": after}
    again = client.submit_job("count_words", {"texts": TEXTS}, idempotency_key=key)
    assert again != done, "its key is free"
    client.wait_for_job(again, 60)


def test_a_failed_job_goes_on_from_its_checkpoint(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "there"
    job_id = client.submit_job("count_words", {"texts": TEXTS, "stumble": str(file)})
    with pytest.raises(InvalidRequest, match="there is no"):
        client.wait_for_job(job_id, 60)
    file.touch()
    assert client.retry_job(job_id).error is None
    result = client.wait_for_job(job_id, 60)
    assert (result.resumed_from, result.attempt) == (20, 1)
    assert [one.text for one in result.words] == TEXTS
    with pytest.raises(Conflict, match="completed"):
        client.retry_job(job_id)


def test_a_cancelled_job_can_be_tried_again(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.1})
    _until(lambda: client.get_job_status(job_id).progress.done > 2)
    assert client.cancel_job(job_id).status == "cancelled"
    assert client.retry_job(job_id).status in ("queued", "running")
    result = client.wait_for_job(job_id, 60)
    assert result.resumed_from > 2
    assert [one.text for one in result.words] == TEXTS


def test_cancelling_ends_the_function(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    job_id = client.submit_job("note", {"file": str(file), "text": "a", "seconds": 60})
    _until(lambda: _notes(file, "began") == ["a"])
    assert client.cancel_job(job_id).status == "cancelled"
    assert _notes(file, "cancelled") == ["a"]  # when the call has returned, nothing is at work any more


def test_the_last_progress_is_told_however_long_the_next_takes(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    params = {"file": str(tmp_path / "notes"), "seconds": 60, "steps": 10}
    job_id = client.submit_job("note", params)
    _until(lambda: client.get_job_status(job_id).progress.done == 10, timeout=10)
    client.cancel_job(job_id)


def test_the_same_key_is_the_same_job(client: LLMBackendClient, tmp_path: Path) -> None:
    file, key = tmp_path / "notes", uuid.uuid4().hex
    first = _submit_note(client, file, "a", idempotency_key=key)
    assert _submit_note(client, file, "a", idempotency_key=key) == first
    client.wait_for_job(first, 60)
    assert _submit_note(client, file, "a", idempotency_key=key) == first
    with pytest.raises(Conflict, match="idempotency_key") as caught:
        _submit_note(client, file, "b", idempotency_key=key)
    assert caught.value.details == {"job_id": first}
    assert _notes(file, "began") == ["a"]


def test_a_job_waits_for_its_moment(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    moment = datetime.now(UTC) + timedelta(seconds=2)
    job_id = _submit_note(client, file, "later", run_at=moment)
    job = client.get_job_status(job_id)
    assert (job.status, datetime.fromisoformat(job.run_at)) == (
        "queued",
        moment.replace(microsecond=moment.microsecond // 1000 * 1000),
    )
    client.wait_for_job(job_id, 60)
    assert datetime.fromisoformat(client.get_job_status(job_id).started_at) >= moment.replace(microsecond=0)


@pytest.mark.parametrize("moment", ["tomorrow", "2030-01-31T09:00:00", ""])
def test_a_moment_that_is_none_is_refused(client: LLMBackendClient, tmp_path: Path, moment: str) -> None:
    with pytest.raises(
        InvalidRequest, match=r"run_at: a time (is like|needs its offset from UTC, as in) 2030"
    ):
        _submit_note(client, tmp_path / "notes", "a", run_at=moment)


def test_a_job_waits_for_others(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    first = client.submit_job("note", {"file": str(file), "text": "first", "seconds": 0.5})
    second = _submit_note(client, file, "second")
    third = _submit_note(client, file, "third", depends_on=[first, second])
    assert sorted(client.get_job_status(third).depends_on) == sorted([first, second])
    client.wait_for_job(third, 60)
    assert _notes(file, "ended")[-1] == "third"
    assert _notes(file, "began").index("third") == 2
    # What is completed already holds up nobody.
    client.wait_for_job(_submit_note(client, file, "fourth", depends_on=first), 60)


def test_what_waits_for_a_failed_job_fails(client: LLMBackendClient, tmp_path: Path) -> None:
    notes, there = tmp_path / "notes", tmp_path / "there"
    soon = datetime.now(UTC) + timedelta(seconds=3)  # once the others wait for it
    first = client.submit_job("count_words", {"texts": TEXTS, "stumble": str(there)}, run_at=soon)
    second = _submit_note(client, notes, "second", depends_on=first)
    third = _submit_note(client, notes, "third", depends_on=second)
    for job_id, other in ((second, first), (third, second)):
        with pytest.raises(Conflict, match="which this one depends on, failed") as caught:
            client.wait_for_job(job_id, 60)
        assert caught.value.details == {"reason": "dependency", "job_id": other}
    with pytest.raises(Conflict, match="retry it first"):
        _submit_note(client, notes, "fourth", depends_on=second)
    with pytest.raises(Conflict, match="retry it first"):
        client.retry_job(third)
    there.touch()
    for job_id in (first, second, third):
        client.retry_job(job_id)
    client.wait_for_job(third, 60)
    assert _notes(notes, "began") == ["second", "third"]


def test_what_waits_for_a_cancelled_job_fails(client: LLMBackendClient, tmp_path: Path) -> None:
    later = datetime.now(UTC) + timedelta(hours=1)
    first = _submit_note(client, tmp_path / "notes", "first", run_at=later)
    second = _submit_note(client, tmp_path / "notes", "second", depends_on=first)
    client.cancel_job(first)
    with pytest.raises(Conflict, match="cancelled"):
        client.wait_for_job(second, 60)


def test_a_job_cannot_wait_for_what_there_is_not(client: LLMBackendClient, tmp_path: Path) -> None:
    unknown = str(uuid.uuid4())
    with pytest.raises(NotFound) as caught:
        _submit_note(client, tmp_path / "notes", "a", depends_on=unknown)
    assert caught.value.details == {"job_id": unknown}
    with pytest.raises(NotFound):
        client.retry_job(unknown)


def test_the_highest_priority_goes_first(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "notes"
    # Long enough for all to be there when it ends, however slowly they are submitted.
    gate = client.submit_job("note", {"file": str(file), "text": "gate", "seconds": 3})
    jobs = [
        _submit_note(client, file, str(priority), priority=priority, depends_on=gate)
        for priority in (0, -5, 7, 100)
    ]
    for job_id in jobs:
        client.wait_for_job(job_id, 60)
    assert client.get_job_status(jobs[2]).priority == 7
    # Some are worked at together, so neighbours may change places.
    place = [int(text) for text in _notes(file, "began")[1:]].index
    assert place(100) < place(0)
    assert place(100) < place(-5)
    assert place(7) < place(-5)
    with pytest.raises(InvalidRequest, match="priority"):
        _submit_note(client, file, "a", priority=101)


def test_a_job_is_watched_until_it_ends(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS, "pause": 0.5})
    events = list(client.job_events(job_id))
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    assert len(events) >= 3
    assert events[-1].job.status == "completed"
    assert {event.job.result for event in events} == {None}
    assert any(event.job.progress.rate for event in events)
    # Whoever comes back is told what has changed since.
    assert [event.id for event in client.job_events(job_id, last_event_id=ids[-2])] == ids[-1:]
    # Nothing will, and so the stream ends, where the last has been seen.
    for seen in (ids[-1], 2**53 - 1):
        assert list(client.job_events(job_id, last_event_id=seen)) == []
    with pytest.raises(NotFound):
        list(client.job_events(str(uuid.uuid4())))


def test_a_job_shows_itself(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS})
    client.wait_for_job(job_id, 60)
    job = client.get_job_status(job_id)
    assert job_id in repr(job)
    assert "llmb-bar" in job._repr_html_()
    assert "completed" in job._repr_html_()
    job["error"] = {"message": "<script>"}
    assert "<script>" not in job._repr_html_()
