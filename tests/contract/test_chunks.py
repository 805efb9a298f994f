"""Chunks as they are stored, and documents that come split."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound

PARTS: list[dict[str, Any]] = [
    {"text": "Berth 1 is for ferries.", "metadata": {"berth": 1}},
    {
        "text": "Berth 2 is for trawlers.",
        "metadata": {"berth": 2},
        "place": {"page": 3, "headings": ["Berths"]},
    },
]


def test_a_document_that_comes_split_stays_as_it_is(client: LLMBackendClient, collection: str) -> None:
    document = {"id": "berths", "metadata": {"year": 2026}, "chunks": PARTS}
    report = client.rag_ingest(document, collection)
    assert (report.added, report.chunks) == (1, 2)
    assert client.rag_ingest(document, collection).unchanged == 1
    stored = sorted(client.list_chunks(collection), key=lambda one: one.chunk)
    assert [dict(one) for one in stored] == [
        {
            "document_id": "berths",
            "chunk": 0,
            "text": PARTS[0]["text"],
            "metadata": {"year": 2026, "berth": 1},
        },
        {
            "document_id": "berths",
            "chunk": 1,
            "text": PARTS[1]["text"],
            "metadata": {"year": 2026, "berth": 2, "page": 3, "headings": ["Berths"]},
        },
    ]
    assert client.rag_search("trawlers", collection, filters={"page": 3})[0].chunk == 1
    plan = client.rag_ingest({**document, "metadata": {"year": 2027}}, collection, plan=True)
    assert (plan.updated, plan.chunks) == (1, 2)


@pytest.mark.parametrize("field", ["text", "metadata", "place"])
def test_whatever_changes_in_a_part_changes_the_document(
    client: LLMBackendClient, collection: str, field: str
) -> None:
    client.rag_ingest({"id": "berths", "chunks": PARTS}, collection)
    other = {"text": "Berth 2 is closed.", "metadata": {"berth": 9}, "place": {"page": 4}}[field]
    changed = [PARTS[0], {**PARTS[1], field: other}]
    assert client.rag_ingest({"id": "berths", "chunks": changed}, collection).updated == 1
    assert client.get_collection(collection).chunks == 2


@pytest.mark.parametrize(
    ("document", "named"),
    [
        ({"id": "a"}, "neither 'text' nor 'chunks'"),
        ({"id": "a", "text": "x", "chunks": PARTS}, "exclude each other"),
        ({"id": "a", "chunks": []}, "chunks"),
        ({"id": "a", "chunks": [{"text": "x", "place": {"page": 0}}]}, "'page'"),
    ],
)
def test_a_document_has_a_text_or_chunks(
    client: LLMBackendClient, collection: str, document: dict[str, Any], named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        client.rag_ingest(document, collection)


def test_a_job_ingests_documents_that_come_split(client: LLMBackendClient, collection: str) -> None:
    params = {"documents": [{"id": "berths", "chunks": PARTS}], "collection": collection}
    assert client.wait_for_job(client.submit_job("rag_ingest", params), timeout=60)["chunks"] == 2


def test_chunks_are_listed_by_document_and_by_filters(client: LLMBackendClient, collection: str) -> None:
    documents = [
        {"id": f"d{number:03}", "text": f"Dock {number}.", "metadata": {"even": number % 2 == 0}}
        for number in range(230)
    ]
    client.rag_ingest(documents, collection)
    assert len(client.list_chunks(collection)) == 230
    assert len(client.list_chunks(collection, limit=7)) == 7
    names = [one["id"] for one in documents[:210]]
    assert {one.document_id for one in client.list_chunks(collection, ids=names)} == set(names)
    assert len(client.list_chunks(collection, ids=names, limit=150)) == 150
    assert len(client.list_chunks(collection, filters={"even": True})) == 115
    assert len(client.list_chunks(collection, ids=names, filters={"even": True})) == 105
    assert client.list_chunks(collection, ids=["none"]) == []
    with pytest.raises(InvalidRequest, match="ids"):
        client.list_chunks(collection, ids=[])
    with pytest.raises(InvalidRequest, match="filters"):
        client.list_chunks(collection, filters={"even": None})
    with pytest.raises(NotFound):
        client.list_chunks(f"{collection}-not")


def test_chunks_come_by_document_and_in_order(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    text = " ".join(f"Sentence number {number} is about train {number}." for number in range(60))
    client.rag_ingest([{"id": "a", "text": text}, {"id": "b", "text": text + " The end."}], collection)
    listed = [(one.document_id, one.chunk) for one in client.list_chunks(collection)]
    assert len(listed) > 20
    assert listed == sorted(listed, key=lambda one: (one[0] != listed[0][0], one[1]))
    assert [one.chunk for one in client.list_chunks(collection, ids=["b"])] == list(
        range(client.get_document("b", collection).chunks)
    )
