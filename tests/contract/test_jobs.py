"""Jobs, on both transports."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from llm_client import Record
from llmbackend import BackendTimeout, Conflict, Embeddings, InvalidRequest, LLMBackendClient, NotFound

UNKNOWN = "00000000-0000-4000-8000-000000000000"
MANY = [f"Document {number} tells of train {number}. It was late." for number in range(500)]


@pytest.fixture
def long_job(client: LLMBackendClient) -> Iterator[str]:
    """A job that would take minutes."""
    job_id = client.submit_job("analyze_documents", {"documents": MANY})
    yield job_id
    client.cancel_job(job_id)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("batch_embd", "no job type 'batch_embd': did you mean 'batch_embed'"),
        ("Analyze-Documents", "no job type 'Analyze-Documents': did you mean 'analyze_documents'"),
        ("tidy up", "no job type 'tidy up': there are "),
    ],
)
def test_a_misspelt_job_type_is_told_which_was_meant(client: LLMBackendClient, given: str, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.submit_job(given, {})
    assert caught.value.message.startswith(said)


def test_batch_embed_gives_what_embed_gives(client: LLMBackendClient) -> None:
    texts = [f"text {number}" for number in range(1100)]
    result = client.wait_for_job(client.submit_job("batch_embed", {"texts": texts}), 60)
    assert result.count == 1100
    assert isinstance(result.embeddings, Embeddings)
    assert len(result.embeddings) == 1100
    assert result.model == result.embeddings.model == client.health().embeddings
    assert result.dimension == result.embeddings.dimension
    assert abs(result.embeddings.numpy() - client.embed(texts).numpy()).max() < 1e-5


def test_a_job_ingests_as_a_call_does(client: LLMBackendClient, collection: str) -> None:
    params = {"documents": ["one", {"id": "b", "text": "two"}, ""], "collection": collection}
    report = client.wait_for_job(client.submit_job("rag_ingest", params), 60)
    assert (report.added, report.unchanged, report.chunks, len(report.failed)) == (2, 0, 2, 1)
    assert client.rag_ingest("one", collection).unchanged == 1
    assert client.get_collection(collection).documents == 2


def test_a_job_embeds_a_collection_anew(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["one", "two"], collection)
    report = client.wait_for_job(client.submit_job("reindex", {"collection": collection}), 60)
    assert (report.collection, report.documents, report.chunks) == (collection, 2, 2)
    assert len(client.rag_search("two", collection)) == 2
    with pytest.raises(NotFound):
        client.wait_for_job(client.submit_job("reindex", {"collection": f"{collection}-2"}), 60)


def test_a_job_analyses_documents(client: LLMBackendClient) -> None:
    documents = ["The train was late.", {"id": "b", "text": "The soup was very good."}]
    result = client.wait_for_job(client.submit_job("analyze_documents", {"documents": documents}), 60)
    assert sorted(one.id for one in [*result.analyses, *result.failed]) == ["0", "b"]
    for analysis in result.analyses:
        assert {"sentiment", "sentiment_score", "key_points", "summary", "model"} <= set(analysis)


def test_empty_documents_fail_alone(client: LLMBackendClient) -> None:
    job_id = client.submit_job("analyze_documents", {"documents": ["The train was late.", "", " \n"]})
    try:
        result = client.wait_for_job(job_id, 60)
    finally:
        client.cancel_job(job_id)
    assert [failure.id for failure in result.failed] == ["1", "2"]


def test_a_completed_job_is_described(client: LLMBackendClient) -> None:
    job_id = client.submit_job("batch_embed", {"texts": ["a", "b"]})
    result = client.wait_for_job(job_id, 60)
    job = client.get_job_status(job_id)
    assert set(job) == {
        "id",
        "type",
        "status",
        "owner",
        "progress",
        "attempts",
        "result",
        "rows",
        "expired",
        "pending",
        "error",
        "priority",
        "run_at",
        "depends_on",
        "webhook",
        "created_at",
        "started_at",
        "finished_at",
    }
    assert (job.id, job.type, job.status) == (job_id, "batch_embed", "completed")
    assert (job.progress.done, job.progress.total, job.progress.stage) == (2, 2, "done")
    assert (job.attempts, job.error) == (1, None)
    assert job.result == result
    assert job.created_at <= job.finished_at


def test_waiting_reports_progress(client: LLMBackendClient, collection: str) -> None:
    steps: list[Record] = []
    documents = [f"document {number}" for number in range(300)]
    job_id = client.submit_job("rag_ingest", {"documents": documents, "collection": collection})
    client.wait_for_job(job_id, 60, progress=steps.append)
    assert (steps[-1].done, steps[-1].total, steps[-1].stage) == (300, 300, "done")
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_a_failed_job_raises_its_own_error(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection, chunk_size=64)
    params = {"documents": ["x"], "collection": collection, "chunk_size": 128}
    job_id = client.submit_job("rag_ingest", params)
    with pytest.raises(Conflict, match="chunk_size") as caught:
        client.wait_for_job(job_id, 60)
    assert caught.value.details == {"collection": collection, "chunk_size": 64}
    job = client.get_job_status(job_id)
    assert (job.status, job.result, job.error.code) == ("failed", None, "conflict")


def test_an_unknown_type_is_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="batch_embed") as caught:
        client.submit_job("bake_bread", {})
    assert caught.value.details == {"job_type": "bake_bread"}


@pytest.mark.parametrize(
    ("job_type", "params"),
    [
        ("batch_embed", {}),
        ("batch_embed", {"texts": []}),
        ("batch_embed", {"texts": [""]}),
        ("batch_embed", {"texts": "a"}),
        ("batch_embed", {"texts": ["a"], "colour": "red"}),
        ("batch_embed", {"texts": ["a"], "model": "no-such-model"}),
        ("rag_ingest", {"documents": ["a"]}),
        ("rag_ingest", {"documents": ["a"], "collection": "a/b/c"}),
        ("rag_ingest", {"documents": [{"id": "", "text": "x"}], "collection": "a"}),
        ("analyze_documents", {"documents": []}),
        ("analyze_documents", {"documents": [1]}),
    ],
)
def test_wrong_params_are_refused_at_once(
    client: LLMBackendClient, job_type: str, params: dict[str, Any]
) -> None:
    before = len(client.list_jobs(limit=1000))
    with pytest.raises((InvalidRequest, NotFound)):
        client.submit_job(job_type, params)
    assert len(client.list_jobs(limit=1000)) == before


def test_an_unknown_job_is_not_found(client: LLMBackendClient) -> None:
    for call in (client.get_job_status, client.cancel_job, client.wait_for_job):
        with pytest.raises(NotFound) as caught:
            call(UNKNOWN)
        assert caught.value.details == {"job_id": UNKNOWN}


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "ä", "x" * 65, "a\n"])
def test_a_bad_id_is_refused(client: LLMBackendClient, job_id: str) -> None:
    for call in (client.get_job_status, client.cancel_job, client.wait_for_job):
        with pytest.raises(InvalidRequest, match="job_id"):
            call(job_id)


def test_a_cancelled_job_stays_cancelled(client: LLMBackendClient, long_job: str) -> None:
    assert client.cancel_job(long_job).status == "cancelled"
    assert client.cancel_job(long_job).status == "cancelled"
    job = client.get_job_status(long_job)
    assert (job.status, job.result, job.error) == ("cancelled", None, None)
    assert job.finished_at
    with pytest.raises(Conflict, match="cancelled") as caught:
        client.wait_for_job(long_job)
    assert caught.value.details == {"job_id": long_job}


def test_a_running_job_can_be_cancelled(client: LLMBackendClient, long_job: str) -> None:
    deadline = time.monotonic() + 30
    while client.get_job_status(long_job).status != "running":
        assert time.monotonic() < deadline
        time.sleep(0.02)
    started = time.monotonic()
    assert client.cancel_job(long_job).status == "cancelled"
    assert time.monotonic() - started < 10


def test_a_queued_job_can_be_cancelled(client: LLMBackendClient) -> None:
    jobs = [client.submit_job("analyze_documents", {"documents": MANY}) for _ in range(4)]
    statuses = [client.cancel_job(job).status for job in reversed(jobs)]
    assert statuses == ["cancelled"] * 4
    assert client.wait_for_job(client.submit_job("batch_embed", {"texts": ["a"]}), 30).count == 1


def test_cancelling_a_completed_job_changes_nothing(client: LLMBackendClient) -> None:
    job_id = client.submit_job("batch_embed", {"texts": ["a"]})
    result = client.wait_for_job(job_id, 60)
    job = client.cancel_job(job_id)
    assert (job.status, job.result) == ("completed", result)


def test_waiting_ends_at_the_timeout(client: LLMBackendClient, long_job: str) -> None:
    started = time.monotonic()
    with pytest.raises(BackendTimeout, match=long_job) as caught:
        client.wait_for_job(long_job, timeout=0.3)
    assert 0.3 <= time.monotonic() - started < 5
    assert caught.value.details["job_id"] == long_job
    assert client.get_job_status(long_job).status in ("queued", "running")


def test_jobs_are_listed_newest_first_and_without_results(client: LLMBackendClient) -> None:
    ids = [client.submit_job("batch_embed", {"texts": [text]}) for text in "abc"]
    for job_id in ids:
        client.wait_for_job(job_id, 60)
    jobs = client.list_jobs(limit=3)
    assert [job.id for job in jobs] == ids[::-1]
    assert [job.result for job in jobs] == [None] * 3
    assert len(client.list_jobs(limit=1)) == 1


def test_jobs_are_listed_by_status_and_type(client: LLMBackendClient, long_job: str) -> None:
    done = client.submit_job("batch_embed", {"texts": ["a"]})
    client.wait_for_job(done, 60)
    completed = client.list_jobs(status="completed", job_type="batch_embed", limit=1000)
    assert done in [job.id for job in completed]
    assert {(job.status, job.type) for job in completed} == {("completed", "batch_embed")}
    assert long_job in [job.id for job in client.list_jobs(job_type="analyze_documents")]
    assert long_job not in [job.id for job in client.list_jobs(status="completed", limit=1000)]
    assert client.list_jobs(job_type="no-such-type") == []


def test_wrong_filters_are_refused(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="status"):
        client.list_jobs(status="lost")
    for limit in (0, -1, 1001):
        with pytest.raises(InvalidRequest, match="limit"):
            client.list_jobs(limit=limit)
