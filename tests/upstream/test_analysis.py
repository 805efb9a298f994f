"""Analyses by a model server behind us."""

from __future__ import annotations

import json
import time

from llmbackend import (
    BackendError,
    LLMBackendClient,
)
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import Upstream

NOTES = json.dumps({"key_points": ["The ferry was late again.", "Nobody told the passengers why."]})
CONCLUSION = json.dumps(
    {
        "summary": "A passenger complains of a late ferry.",
        "sentiment": "negative",
        "strength": "clear",
    }
)


def test_an_analysis_is_the_models(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [NOTES, CONCLUSION]
    analysis = client.analyze_document("The ferry was late again, and nobody told us why.")
    assert analysis.sentiment == "negative"
    assert analysis.sentiment_score == -0.6
    assert analysis.key_points == ["The ferry was late again.", "Nobody told the passengers why."]
    assert analysis.summary == "A passenger complains of a late ferry."
    assert analysis.model == "ok"
    assert [request["response_format"]["type"] for request in upstream.seen] == ["json_schema"] * 2


def test_an_answer_out_of_shape_is_asked_for_once_more(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ["Sure! Here are the points:", NOTES, CONCLUSION]
    assert client.analyze_document("The ferry was late again.").sentiment == "negative"
    assert len(upstream.seen) == 3


def test_answers_always_out_of_shape_are_a_backend_error(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = ["Sure!", "Here are the points:"]
    with fails(BackendError, text="Here are the points:"):
        client.analyze_document("The ferry was late again.")
    assert len(upstream.seen) == 2


def test_an_analysis_by_a_failing_model_is_its_error(connect: Connect, upstream: Upstream) -> None:
    with fails(BackendError, backend="the OpenAI-compatible server"):
        connect(chat_model="401").analyze_document("The ferry was late again.")
    assert len(upstream.seen) == 1


def test_an_analysis_that_is_cancelled_stops_the_model(patient: LLMBackendClient, upstream: Upstream) -> None:
    upstream.faults = ["waiting"]
    job_id = patient.submit_job("analyze_documents", {"documents": ["The ferry was late again."]})
    deadline = time.monotonic() + 30
    while not upstream.seen:
        assert time.monotonic() < deadline, "the model was not asked"
        time.sleep(0.01)
    assert patient.cancel_job(job_id).status == "cancelled"
    assert upstream.left.wait(1)
    assert len(upstream.seen) == 1
