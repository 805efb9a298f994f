"""Who gives up an ingest, by an exception or by cancelling its job, leaves whole documents only.

The embedding server takes its time, so that no machine is fast enough to be through before.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from llmbackend import LLMBackendClient, Record
from llmbackend.chunks.chunking import split
from llmbackend.schemas import Document
from tests.upstream.fake import KEY, Upstream

WORK = 0.2
"""Seconds that each request for embeddings takes: some hundred of them, in four batches of which two are embedded at once."""


@pytest.fixture(scope="module")
def _settings(_upstream: Upstream) -> dict[str, Any]:
    # Without the cache of vectors, which knows the texts of the test before.
    server = {"tei_url": f"{_upstream.url}/ok", "tei_api_key": KEY, "upstream_timeout": 60}
    return {**server, "embedding_cache_mb": 0}


@pytest.fixture
def documents(client: LLMBackendClient, collection: str, upstream: Upstream) -> list[dict[str, Any]]:
    """What to ingest into a collection that is there already."""
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    upstream.work = WORK
    return [
        {"id": f"report-{number}", "text": f"A sentence of report {number} is here. " * (1 + number % 5)}
        for number in range(2000)
    ]


def _check_whole(client: LLMBackendClient, collection: str, documents: list[dict[str, Any]]) -> int:
    """How many documents are stored: some, not all, and each with all its chunks."""
    listed = client.list_documents(collection)
    assert 0 < len(listed) < len(documents)
    chunks = {one["id"]: len(split(Document(**one), "", 32, 0)) for one in documents}
    assert all(one.chunks == chunks[one.id] for one in listed)
    info = client.get_collection(collection)
    assert (info.documents, info.chunks) == (len(listed), sum(one.chunks for one in listed))
    return len(listed)


class _Enough(Exception):
    pass


def test_who_gives_up_leaves_whole_documents_only(
    client: LLMBackendClient, collection: str, documents: list[dict[str, Any]], upstream: Upstream
) -> None:
    def give_up(step: Record) -> None:
        if step.done:
            raise _Enough

    ingests = _ingests(client)
    with pytest.raises(_Enough):
        client.rag_ingest(documents, collection, progress=give_up)
    _until_ended(client, ingests)
    stored = _check_whole(client, collection, documents)
    upstream.work = 0
    report = client.rag_ingest(documents, collection)
    assert (report.unchanged, report.added) == (stored, len(documents) - stored)


def test_a_cancelled_job_leaves_whole_documents_only(
    client: LLMBackendClient, collection: str, documents: list[dict[str, Any]]
) -> None:
    job_id = client.submit_job("rag_ingest", {"documents": documents, "collection": collection})
    deadline = time.monotonic() + 60
    while client.get_collection(collection).documents == 0:
        assert time.monotonic() < deadline, "nothing was done in time"
        time.sleep(0.01)
    assert client.cancel_job(job_id).status == "cancelled"
    _check_whole(client, collection, documents)


def _ingests(client: LLMBackendClient) -> int:
    """How many have ended: a server may notice some time later that a caller has gone."""
    return sum(row.requests for row in client.usage(by="operation") if row.operation == "rag_ingest")


def _until_ended(client: LLMBackendClient, before: int) -> None:
    deadline = time.monotonic() + 60
    while _ingests(client) == before:
        assert time.monotonic() < deadline, "it went on and on"
        time.sleep(0.05)
