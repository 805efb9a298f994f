"""Results of jobs, small and large, on both transports."""

from __future__ import annotations

import uuid

import numpy as np
import pytest

from llmbackend import Conflict, Embeddings, InvalidRequest, LLMBackendClient, NotFound

TEXTS = [f"text number {number}" for number in range(2345)]
LARGE = 100_000 // 16  # vectors of 64 dimensions: more than come along with a status


def test_rows_are_read_in_pages_as_often_as_wanted(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 100})
    client.wait_for_job(job_id, 60)
    for _ in range(2):
        page = client.get_job_result(job_id, offset=250, limit=120)
        assert (page.offset, page.total, page.result.attempt) == (250, len(TEXTS), 1)
        assert [row.text for row in page.rows] == TEXTS[250:370]
    assert [row.text for row in client.get_job_result(job_id, offset=2300).rows] == TEXTS[2300:]
    assert client.get_job_result(job_id, offset=5000).rows == []


def test_rows_are_streamed(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 100})
    client.wait_for_job(job_id, 60)
    assert [row.text for row in client.get_job_result(job_id, stream=True)] == TEXTS
    assert [row.text for row in client.get_job_result(job_id, offset=2000, stream=True)] == TEXTS[2000:]


@pytest.mark.parametrize("count", [3, LARGE])
def test_vectors_come_whole_in_pages_and_streamed(client: LLMBackendClient, count: int) -> None:
    job_id = client.submit_job("vectors", {"count": count, "dimension": 64})
    expected = np.arange(count * 64, dtype=np.float32).reshape(count, 64)
    for _ in range(2):
        rows = client.wait_for_job(job_id, 60).rows
        assert isinstance(rows, Embeddings)
        assert np.array_equal(rows.numpy(), expected)
    page = client.get_job_result(job_id, offset=1, limit=2)
    assert page.total == count
    assert np.array_equal(page.rows.numpy(), expected[1:3])
    first, *rest = client.get_job_result(job_id, stream=True)
    assert first.index == 0
    assert len(rest) == count - 1
    assert np.array_equal(Embeddings.decode(rest[-1].embedding, 64).numpy()[0], expected[-1])


def test_large_rows_of_json_come_whole(client: LLMBackendClient) -> None:
    texts = [f"{number} " + "word " * 100 for number in range(5000)]
    result = client.wait_for_job(client.submit_job("count_words", {"texts": texts, "batch": 500}), 120)
    assert [row.text for row in result.words] == texts
    assert {row.words for row in result.words} == {101}


def test_a_status_in_a_list_has_no_result(client: LLMBackendClient) -> None:
    job_id = client.submit_job("vectors", {"count": LARGE, "dimension": 64})
    client.wait_for_job(job_id, 60)
    [job] = [one for one in client.list_jobs(limit=1000) if one.id == job_id]
    assert (job.result, job.rows.name, job.rows.count) == (None, "rows", LARGE)


def test_there_is_no_result_before_the_end(client: LLMBackendClient) -> None:
    job_id = client.submit_job("count_words", {"texts": TEXTS, "batch": 1, "pause": 0.1})
    with pytest.raises(Conflict, match="no result"):
        client.get_job_result(job_id)
    with pytest.raises(Conflict, match="no result"):
        next(client.get_job_result(job_id, stream=True))
    client.cancel_job(job_id)
    with pytest.raises(NotFound):
        client.get_job_result(str(uuid.uuid4()))


def test_wrong_pages_are_refused(client: LLMBackendClient) -> None:
    job_id = client.submit_job("vectors", {"count": 1, "dimension": 2})
    for wrong in ({"offset": -1}, {"limit": 0}, {"limit": 10_001}):
        with pytest.raises(InvalidRequest):
            client.get_job_result(job_id, **wrong)


def test_chats_are_answered_in_order_and_fail_alone(client: LLMBackendClient) -> None:
    prompts = ["Say yes.", [{"role": "user", "content": "Say no."}], "word " * 5000]
    job_id = client.submit_job("batch_chat", {"prompts": prompts, "max_tokens": 4, "system": "Be short."})
    result = client.wait_for_job(job_id, 120)
    assert (result.count, result.failed) == (3, 1)
    assert [one.index for one in result.replies] == [0, 1, 2]
    for one in result.replies[:2]:
        assert one.reply
        assert (one.error, one.model) == (None, client.health().chat)
    assert (result.replies[2].reply, result.replies[2].error.code) == (None, "invalid_request")


def test_many_chats_are_asked_as_a_job(client: LLMBackendClient) -> None:
    plan = client.batch_chat(["Say hello.", "Say hello."], max_tokens=4, plan=True)
    assert (plan.count, plan.distinct, plan.completion_tokens) == (2, 1, 4)
    job = client.wait_for_job(client.batch_chat(["Say hello.", "Say hello."], max_tokens=4))
    assert job.replies[0]["reply"] == job.replies[1]["reply"]
    assert (job.replies[1]["same_as"], job.count) == (0, 2)
