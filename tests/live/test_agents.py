"""The agents that come along before a real model server. What its model says is not judged, but what comes of it is whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llmbackend import LLMBackendClient

pytestmark = [pytest.mark.live, pytest.mark.timeout(3000)]

DOCUMENTS = [
    {"id": "vacation.md", "text": "Every employee has 28 days of paid vacation a year."},
    {"id": "illness.md", "text": "Sick leave is reported before nine in the morning."},
]
SECONDS = 900


@pytest.fixture
def handbook(client: LLMBackendClient) -> Iterator[str]:
    client.rag_ingest(DOCUMENTS, collection="handbook")
    yield "handbook"
    client.delete_collection("handbook")


def _told(name: str, run: Any) -> None:
    """The figures: seen with `-s`."""
    print(
        f"\n{name}: {run.usage.get('steps')} steps, {run.usage.get('total_tokens')} tokens, {run.trace.seconds} s"
    )


def test_researcher(client: LLMBackendClient, handbook: str) -> None:
    run = client.run_agent(
        "How many days of vacation are there?", collections=[handbook], max_seconds=SECONDS
    )
    _told("researcher", run)
    assert run.status in ("completed", "stopped")
    assert run.answer or run.notes
    numbers = {source.number for source in run.sources}
    assert set(run.citations) <= numbers
    assert run.trace.steps


def test_analyst(client: LLMBackendClient, handbook: str) -> None:
    shape = {"type": "object", "properties": {"topic": {"type": "string", "maxLength": 40}}}
    run = client.run_agent(
        "", agent="analyst", collections=[handbook], input={"schema": shape}, max_seconds=SECONDS
    )
    _told("analyst", run)
    assert run.status == "completed"
    rows = run.output["rows"]
    assert {row["document"] for row in rows} == {"vacation.md", "illness.md"}
    texts = {one["id"]: one["text"] for one in DOCUMENTS}
    for row in rows:
        if (quote := row["cells"]["topic"].get("quote")) is not None:
            assert quote in texts[row["document"]]


def test_triage(client: LLMBackendClient, handbook: str) -> None:
    classes = {"illness": "I have a cold.", "travel": "Book me a train."}
    run = client.run_agent(
        "I am ill today, whom do I tell?",
        agent="triage",
        collections=[handbook],
        input={"classes": classes},
        max_seconds=SECONDS,
    )
    _told("triage", run)
    assert run.status == "completed"
    assert run.output["category"] in classes
    assert run.output["urgency"] in ("low", "normal", "high")
    assert all(reason in "I am ill today, whom do I tell?" for reason in run.output["reasons"])
