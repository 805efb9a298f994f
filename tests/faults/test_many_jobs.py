"""Many jobs of several owners at once; results that are kept for their time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from llmbackend import Conflict, JobExpired, LLMBackendClient, NotFound, Unauthorized
from llmbackend.backend import Backend
from llmbackend.jobs import worker
from llmbackend.local import LocalTransport
from llmbackend.operations import call
from llmbackend.settings import Settings
from llmbackend.tracing import Trace
from tests.server import serving

CLIENTS = 10


@pytest.mark.timeout(600)
@pytest.mark.parametrize("each", [30, pytest.param(100, marks=pytest.mark.long)])
def test_none_of_many_jobs_is_lost_or_done_twice(tmp_path: Path, each: int) -> None:
    """Ten clients with two keys hand over so many jobs each, all at once."""
    file = tmp_path / "notes"
    with serving(tmp_path / "data", api_key="all", api_keys="loud:key-1,quiet:key-2") as server:

        def hand_over(number: int) -> list[str]:
            with LLMBackendClient(server.url, f"key-{1 + number % 2}") as client:
                return [
                    client.submit_job("note", {"file": str(file), "text": f"{number}.{count}"})
                    for count in range(each)
                ]

        with ThreadPoolExecutor(CLIENTS) as threads:
            ids = [job_id for found in threads.map(hand_over, range(CLIENTS)) for job_id in found]
        assert len(set(ids)) == CLIENTS * each
        with LLMBackendClient(server.url, "all") as client:  # the administrator's
            owners: Counter[str] = Counter()
            for job_id in ids:
                while (job := client.get_job_status(job_id)).status in ("queued", "running"):
                    time.sleep(0.05)
                assert job.status == "completed"
                owners[job.owner] += 1
                assert job.attempts == 1
    assert owners == {"loud": CLIENTS * each // 2, "quiet": CLIENTS * each // 2}
    ended = Counter(line.split()[1] for line in file.read_text().splitlines() if line.startswith("ended"))
    assert ended == {f"{number}.{count}": 1 for number in range(CLIENTS) for count in range(each)}


def test_keys_and_schedules_are_their_owners(tmp_path: Path) -> None:
    params = {"texts": ["a"]}
    with (
        serving(tmp_path, api_key="first-key", api_keys="hr:old-key,hr:key-1,support:key-2") as server,
        LLMBackendClient(server.url, "key-1") as hr,
        LLMBackendClient(server.url, "old-key") as hr_before,
        LLMBackendClient(server.url, "key-2") as support,
        LLMBackendClient(server.url, "first-key") as default,
        LLMBackendClient(server.url, "key-3") as unknown,
    ):
        ids = [
            client.submit_job("count_words", params, idempotency_key="one")
            for client in (hr, support, default)
        ]
        assert len(set(ids)) == 3
        assert [default.get_job_status(job_id).owner for job_id in ids] == ["hr", "support", "default"]
        assert [job.id for job in hr.list_jobs()] == ids[:1]
        for job_id in ids[1:]:
            for call in (hr.get_job_status, hr.cancel_job, hr.retry_job, hr.get_job_result):
                with pytest.raises(NotFound, match=f"^no job '{job_id}'$"):
                    call(job_id)
            with pytest.raises(NotFound, match="no job"):
                list(hr.job_events(job_id))
            with pytest.raises(NotFound, match="no job"):
                hr.submit_job("count_words", params, depends_on=job_id)
        hr.set_schedule("nightly", "0 2 * * *", "count_words", params)
        assert [one.name for one in hr_before.list_schedules()] == ["nightly"]
        assert support.list_schedules() == []
        with pytest.raises(NotFound):
            support.delete_schedule("nightly")
        with pytest.raises(Unauthorized):
            unknown.submit_job("count_words", params)


def test_results_are_kept_for_their_time(tmp_path: Path) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        job_id = client.submit_job("count_words", {"texts": ["a b"]})
        result = client.wait_for_job(job_id, 60)
        page = client.get_job_result(job_id)
        assert page.rows == result["words"] == [{"text": "a b", "words": 2}]
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        for _ in range(2):  # reading it leaves it there
            assert (client.wait_for_job(job_id), client.get_job_result(job_id)) == (result, page)
    options = Settings(data_dir=tmp_path, job_result_days=1e-9)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        job = client.get_job_status(job_id)
        assert (job.status, job.expired, job.result) == ("completed", True, None)
        with pytest.raises(JobExpired, match="JOB_RESULT_DAYS"):
            client.get_job_result(job_id)
        with pytest.raises(JobExpired):
            client.wait_for_job(job_id)
        with pytest.raises(Conflict):
            client.retry_job(job_id)


@pytest.mark.parametrize("up", [0, 1_000_000], ids=["just started", "days ago"])
def test_jobs_are_remembered_for_their_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, up: float
) -> None:
    """Also on a machine whose clock since its start reads next to nothing."""
    params = {"texts": ["a b"]}
    began = time.monotonic() - up
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: time.monotonic() - began))
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        first = client.submit_job("count_words", params, idempotency_key="once")
        client.wait_for_job(client.submit_job("count_words", params, depends_on=first), 60)
        later = client.submit_job("count_words", params, run_at="2999-01-01T00:00:00+00:00")
    options = Settings(data_dir=tmp_path, job_days=1e-9)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        deadline = time.monotonic() + 30
        while len(left := client.list_jobs()) > 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert [job.id for job in left] == [later], "what has not ended stays"
        with pytest.raises(NotFound):
            client.get_job_status(first)
        assert client.submit_job("count_words", params, idempotency_key="once") != first


@pytest.mark.anyio
async def test_jobs_accepted_at_the_same_moment_keep_to_the_slots(tmp_path: Path) -> None:
    file = tmp_path / "notes"
    backend = await Backend.open(Settings(data_dir=tmp_path, workers=1))
    try:
        body = {"job_type": "note", "params": {"file": str(file), "seconds": 0.01}}
        await asyncio.gather(*(call(backend, Trace("submit_job"), body) for _ in range(6)))
        async with asyncio.timeout(60):
            while not file.exists() or file.read_text().count("ended") < 6:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    finally:
        await backend.close()
    assert [line.split()[0] for line in file.read_text().splitlines()] == ["began", "ended"] * 6
