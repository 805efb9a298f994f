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


def test_what_the_text_does_not_have_is_left_out_and_told(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    notes = {
        "key_points": [
            "The ferry was 90 minutes late.",
            "The ferry was late again, it says.",
            "It said “sorry, all”.",
        ]
    }
    conclusion = {
        "summary": "It came 3 hours late. A ferry was late.",
        "sentiment": "negative",
        "strength": "clear",
    }
    upstream.replies = [json.dumps(notes), json.dumps(conclusion)]
    analysis = client.analyze_document("The ferry was late again, and nobody told us why.")
    assert analysis.key_points == ["The ferry was late again, it says."]
    assert analysis.positions == [None]
    assert analysis.summary == "A ferry was late."
    assert len(analysis.notes) == 3
    assert "90" in analysis.notes[0]
    assert "sorry, all" in analysis.notes[1]
    assert "3 hours" in analysis.notes[2]


def test_a_summary_of_which_nothing_is_left_is_the_texts_own(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    conclusion = {"summary": "It came 3 hours late.", "sentiment": "negative", "strength": "clear"}
    upstream.replies = [NOTES, json.dumps(conclusion)]
    text = "The ferry was late again, and nobody told us why."
    assert client.analyze_document(text).summary == text


def test_every_part_is_read(client: LLMBackendClient, upstream: Upstream) -> None:
    text = " ".join(f"The ferry number {n} of the whole long season was late again." for n in range(1500))
    notes = json.dumps({"key_points": ["The ferry was late again."]})
    read = -(-1500 * 13 // 900)  # at least: of 900 tokens each
    upstream.replies = [notes] * 60
    with fails(BackendError):  # the conclusion is no list of points
        client.analyze_document(text)
    asked = [request for request in upstream.seen if "Text:" in request["messages"][-1]["content"]]
    assert len(asked) >= read
    assert all(f"number {n} of" in str(asked) for n in (0, 700, 1499))


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
