"""Embedding a collection anew, on both transports. With another model: tests/upstream/test_reindex.py."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound

DOCUMENTS = [
    {"id": f"d{number}", "text": f"Ticket {number} is about router {number * 31}.", "metadata": {"n": number}}
    for number in range(60)
]


def _found(client: LLMBackendClient, collection: str) -> list[Any]:
    hits = client.rag_search("router 93", collection, top_k=5, mode="dense")
    return [(hit.document_id, hit.chunk, hit.text, hit.metadata, round(hit.score, 4)) for hit in hits]


def test_a_reindexed_collection_is_the_same(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(DOCUMENTS, collection)
    before, info, listed = (
        _found(client, collection),
        client.get_collection(collection),
        client.list_documents(collection),
    )
    report = client.reindex_collection(collection)
    model = client.health().embeddings
    assert {**report, "seconds": 0} == {
        "collection": collection,
        "from_model": model,
        "to_model": model,
        "documents": 60,
        "chunks": 60,
        "tokens": report.tokens,
        "seconds": 0,
    }
    assert report.tokens > 60
    assert _found(client, collection) == before
    assert client.get_collection(collection) == info
    assert client.list_documents(collection) == listed
    again = client.rag_ingest(DOCUMENTS, collection)  # what is stored is still known by its content
    assert (again.unchanged, again.chunks) == (60, 0)


def test_progress_is_told_in_chunks(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(DOCUMENTS, collection)
    steps: list[Any] = []
    report = client.reindex_collection(collection, progress=steps.append)
    assert report.chunks == 60
    assert (steps[0].done, steps[0].total, steps[0].stage) == (0, 60, "embed")
    assert (steps[-1].done, steps[-1].total, steps[-1].stage) == (60, 60, "done")
    assert [step.done for step in steps] == sorted(step.done for step in steps)


def test_an_empty_collection_is_reindexed_too(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    assert client.reindex_collection(collection).chunks == 0
    client.rag_ingest(DOCUMENTS[0], collection)
    assert client.get_collection(collection).documents == 1


def test_the_model_given_must_be_the_one_that_is_set(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    with pytest.raises(InvalidRequest, match="EMBEDDING_MODEL") as caught:
        client.reindex_collection(collection, model="another")
    assert caught.value.details == {"model": client.health().embeddings}
    assert client.reindex_collection(collection, model=client.health().embeddings).documents == 0


def test_an_unknown_collection_is_not_reindexed(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(NotFound, match=collection):
        client.reindex_collection(collection)
    with pytest.raises(NotFound, match=collection):
        client.reindex_collection(collection, progress=lambda step: None)


def test_what_is_written_and_deleted_meanwhile_is_honoured(client: LLMBackendClient, collection: str) -> None:
    many = [
        {"id": f"m{number}", "text": f"Machine {number} stands in hall {number % 7}."}
        for number in range(4000)
    ]
    client.rag_ingest(many, collection)
    begun: list[Any] = []

    def reindex() -> Any:
        return client.reindex_collection(collection, progress=begun.append)

    with ThreadPoolExecutor(1) as pool:
        reindexing = pool.submit(reindex)
        while not begun and not reindexing.done():
            pass
        deleted = client.delete_documents(collection, [f"m{number}" for number in range(0, 4000, 4)]).deleted
        changed = [
            {"id": f"m{number}", "text": f"Machine {number} was sold."} for number in range(1, 4000, 400)
        ]
        updated = client.rag_ingest([*changed, *DOCUMENTS], collection)
        assert client.rag_search("Machine 7", collection) != []
        reindexing.result()
    assert (deleted, updated.updated, updated.added) == (1000, 10, 60)
    info = client.get_collection(collection)
    assert info.documents == info.chunks == len(client.list_documents(collection)) == 3000 + 60
    assert client.rag_ingest([*changed, *DOCUMENTS], collection).unchanged == 70
    [best, *_] = client.rag_search("Machine 1 was sold", collection, filters={"n": {"exists": False}})
    assert best.text == "Machine 1 was sold."


def test_of_two_who_reindex_at_once_one_is_told(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([f"Machine {number} stands in the hall." for number in range(3000)], collection)

    def reindex(_: int) -> str:
        try:
            return str(client.reindex_collection(collection).chunks)
        except Conflict as error:
            return error.message

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(reindex, range(3)))
    assert "3000" in outcomes
    assert all(outcome == "3000" or "being reindexed" in outcome for outcome in outcomes)


def test_deleting_a_collection_ends_its_reindex(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([f"Machine {number} stands in the hall." for number in range(3000)], collection)
    begun: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        reindexing = pool.submit(client.reindex_collection, collection, progress=begun.append)
        while not begun and not reindexing.done():
            pass
        client.delete_collection(collection)
        with suppress(Conflict, NotFound):  # it may have been through before
            reindexing.result()
    with pytest.raises(NotFound):
        client.get_collection(collection)
