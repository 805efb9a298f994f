"""A project's own job types (tests/plugin/project_jobs.py), on both transports."""

from __future__ import annotations

import time

import pytest

from llmbackend import BackendError, LLMBackendClient

TEXTS = [f"text {number}" for number in range(250)]
LOUD = [text.upper() for text in TEXTS]


@pytest.mark.parametrize("kind", ["shout", "shout_blocking"])
def test_a_completed_job_has_done_everything(client: LLMBackendClient, kind: str) -> None:
    job_id = client.submit_job(kind, {"texts": TEXTS})
    assert client.wait_for_job(job_id, 60).shouted == LOUD
    progress = client.get_job_status(job_id).progress
    assert (progress.done, progress.total, progress.stage) == (250, 250, "shout")  # it last told 200 of 250


@pytest.mark.parametrize(
    ("kind", "params", "why"),
    [
        (
            "shout",
            {"texts": TEXTS, "fails_at": 100},
            "shout) failed: ValueError: 'text 100' cannot be shouted",
        ),
        ("a_list", {}, "a_list) failed: TypeError: it returned list, where a dict is wanted"),
        ("no_json", {}, "no_json) failed: TypeError: Object of type set is not JSON serializable"),
    ],
)
def test_what_a_function_raises_is_told(client: LLMBackendClient, kind: str, params: dict, why: str) -> None:
    job_id = client.submit_job(kind, params)
    with pytest.raises(BackendError) as caught:
        client.wait_for_job(job_id, 60)
    assert caught.value.message == f"the job type {kind!r} (project_jobs:{why}"
    assert caught.value.details["job_type"] == kind
    assert client.get_job_status(job_id).error.message == caught.value.message


def test_a_function_that_blocks_holds_up_nobody(client: LLMBackendClient) -> None:
    client.health()
    job_id = client.submit_job("shout_blocking", {"texts": ["a"], "seconds": 4})
    began = time.monotonic()
    while client.get_job_status(job_id).status != "running":
        assert time.monotonic() - began < 3
        time.sleep(0.05)
    client.health()
    assert client.get_job_status(job_id).status == "running"
    assert client.wait_for_job(job_id, 60).shouted == ["A"]


def test_a_function_that_blocks_continues_where_it_stopped(client: LLMBackendClient) -> None:
    job_id = client.submit_job("shout_blocking", {"texts": TEXTS, "fails_at": 200})
    with pytest.raises(BackendError, match="'text 200' cannot be shouted"):
        client.wait_for_job(job_id, 60)
    assert client.get_job_result(job_id, partial=True, offset=198).rows == LOUD[198:200]
    client.retry_job(job_id)
    result = client.wait_for_job(job_id, 60)
    assert (result.shouted, result.resumed_from, result.earlier) == (LOUD, 100, 250)


def test_a_function_that_blocks_ends_when_it_is_cancelled(client: LLMBackendClient) -> None:
    job_id = client.submit_job("shout_blocking", {"texts": TEXTS, "seconds": 0.3})
    for event in client.job_events(job_id):
        if event.job.status == "running":
            break
    assert client.cancel_job(job_id).status == "cancelled"
    time.sleep(1.2)
    assert client.get_job_status(job_id).status == "cancelled"
    assert len(client.get_job_result(job_id, partial=True).rows) < 250
