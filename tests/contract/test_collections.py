"""Collections and their documents, on both transports."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound

BAD_NAMES = {
    **{
        name: name
        for name in ("..", ".", "a/b/c", "ä", "-a", "a b", "a\n", "a?b", "a%2Fb", "%2F", "a#b", "__internal")
    },
    "nothing": "",
    "NUL": "\0",
    "a NUL within": "a\0b",
    "129": "x" * 129,
    "10 kB": "x" * 10_000,
    "a Cyrillic a": "\u0430dmin",
    "a ligature": "\ufb01ne",
    "wide letters": "\uff41\uff42",
    "a hidden sign": "a\u200bb",
}


def test_a_new_collection_is_described(client: LLMBackendClient, collection: str) -> None:
    made = client.create_collection(collection)
    assert set(made) == {
        "name",
        "embedding_model",
        "sparse_model",
        "dimension",
        "chunk_size",
        "chunk_overlap",
        "documents",
        "chunks",
        "created_at",
        "indexes",
        "engine",
    }
    assert made.name == collection
    assert made.embedding_model == client.health().embeddings
    assert made.dimension == len(client.embed_single("x"))
    assert (made.documents, made.chunks) == (0, 0)
    assert datetime.fromisoformat(made.created_at).tzinfo is not None
    assert client.get_collection(collection) == made
    assert made in client.list_collections()


def test_chunking_is_kept(client: LLMBackendClient, collection: str) -> None:
    made = client.create_collection(collection, chunk_size=64, chunk_overlap=0)
    assert (made.chunk_size, made.chunk_overlap) == (64, 0)


def test_a_small_chunk_size_brings_a_small_overlap(client: LLMBackendClient, collection: str) -> None:
    assert client.create_collection(collection, chunk_size=32).chunk_overlap < 32


def test_documents_and_chunks_are_counted(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    report = client.rag_ingest(["One short text.", "This is a sentence. " * 50], collection)
    found = client.get_collection(collection)
    assert found.documents == 2
    assert found.chunks == report.chunks > 2


def test_names_are_completed_where_they_can_be_told(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    assert collection in client._ipython_key_completions_()
    with LLMBackendClient("http://127.0.0.1:1", "key", retries=0) as nowhere:
        assert nowhere._ipython_key_completions_() == []


def test_a_name_is_taken_once(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    with pytest.raises(Conflict, match=collection) as caught:
        client.create_collection(collection)
    assert caught.value.code == "conflict"
    assert caught.value.details == {"collection": collection}


def test_of_several_who_make_a_collection_one_does(client: LLMBackendClient, collection: str) -> None:
    def make(_: int) -> str:
        try:
            return str(client.create_collection(collection).name)
        except Conflict:
            return "conflict"

    with ThreadPoolExecutor(8) as threads:
        made = sorted(threads.map(make, range(8)))
    assert made == sorted([collection, *["conflict"] * 7])
    assert [one.name for one in client.list_collections()].count(collection) == 1


def test_a_deleted_collection_is_gone(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["one", "two"], collection)
    assert client.delete_collection(collection) == {"deleted": collection, "documents": 2}
    assert collection not in [one.name for one in client.list_collections()]
    with pytest.raises(NotFound):
        client.get_collection(collection)


def test_a_collection_made_again_is_empty(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest("old", collection)
    client.delete_collection(collection)
    client.create_collection(collection)
    assert client.list_documents(collection) == []
    assert client.rag_search("old", collection) == []


def test_names_may_have_dots_dashes_and_underscores(client: LLMBackendClient, collection: str) -> None:
    name = f"{collection}_v1.2"
    try:
        assert client.create_collection(name).name == name
        assert client.get_collection(name).name == name
    finally:
        client.delete_collection(name)


def test_an_unknown_collection_is_not_found(client: LLMBackendClient, collection: str) -> None:
    for call in (
        lambda: client.get_collection(collection),
        lambda: client.delete_collection(collection),
        lambda: client.list_documents(collection),
        lambda: client.delete_documents(collection, ["x"]),
        lambda: client.rag_search("x", collection),
        lambda: client.rag_query("x", collection),
        lambda: client.rag_query("x", collection, stream=True),
    ):
        with pytest.raises(NotFound, match=collection) as caught:
            call()
        assert caught.value.code == "not_found"
        assert caught.value.details == {"collection": collection}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=list(BAD_NAMES))
def test_a_bad_name_is_refused_everywhere(client: LLMBackendClient, name: str) -> None:
    for call in (
        lambda: client.create_collection(name),
        lambda: client.get_collection(name),
        lambda: client.delete_collection(name),
        lambda: client.list_documents(name),
        lambda: client.delete_documents(name, ["x"]),
        lambda: client.rag_ingest("x", name),
        lambda: client.rag_search("x", name),
        lambda: client.rag_query("x", name),
        lambda: client.rag_query("x", [name]),
    ):
        with pytest.raises(InvalidRequest, match="collection"):
            call()


def test_chunk_overlap_must_be_smaller_than_chunk_size(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match="chunk_overlap"):
        client.create_collection(collection, chunk_size=64, chunk_overlap=64)
    with pytest.raises(InvalidRequest, match="chunk_overlap"):
        client.rag_ingest("x", collection, chunk_size=64, chunk_overlap=65)
    with pytest.raises(NotFound):
        client.get_collection(collection)


@pytest.mark.parametrize("size", [0, -1, 31, 8193])
def test_chunk_sizes_have_bounds(client: LLMBackendClient, collection: str, size: int) -> None:
    with pytest.raises(InvalidRequest, match="chunk_size"):
        client.create_collection(collection, chunk_size=size)


def test_documents_are_listed_with_chunks_and_metadata(client: LLMBackendClient, collection: str) -> None:
    metadata = {"team": "hr", "tags": ["a", "b"], "nested": {"year": 2026}, "none": None}
    client.rag_ingest({"id": "a", "text": "A text.", "metadata": metadata}, collection)
    assert client.list_documents(collection) == [{"id": "a", "chunks": 1, "metadata": metadata}]


def test_more_documents_than_a_page_are_all_listed(client: LLMBackendClient, collection: str) -> None:
    names = [f"d{number}" for number in range(2050)]
    client.rag_ingest([{"id": name, "text": name} for name in names], collection)
    assert [document.id for document in client.list_documents(collection)] == sorted(names)
    for limit in (1, 999, 1000, 1001, 2050, 3000):
        some = [document.id for document in client.list_documents(collection, limit=limit)]
        assert len(some) == min(limit, 2050)
        assert set(some) <= set(names)


def test_a_document_replaced_between_two_pages_is_listed_once(
    client: LLMBackendClient, collection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = [{"id": f"d{number}", "text": f"Sheet {number}."} for number in range(30)]
    client.rag_ingest(documents, collection)
    call, pages = client._call, 0

    def in_small_pages(operation: str, **fields: Any) -> Any:
        nonlocal pages
        if operation == "list_documents":
            fields["limit"] = min(10, fields["limit"])
            pages += 1
            if pages == 2:
                client.rag_ingest([{**one, "text": one["text"] + " Anew."} for one in documents], collection)
        return call(operation, **fields)

    monkeypatch.setattr(client, "_call", in_small_pages)
    listed = [one.id for one in client.list_documents(collection)]
    assert pages > 2
    assert sorted(listed) == sorted(one["id"] for one in documents)


def test_a_cursor_that_no_page_gave_is_refused(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    with pytest.raises(InvalidRequest, match="cursor"):
        client._call("list_documents", collection=collection, cursor="nonsense")


def test_deleted_documents_are_found_no_more(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([{"id": name, "text": f"text {name}"} for name in "abc"], collection)
    assert client.delete_documents(collection, ["a", "c", "unknown"]) == {"deleted": 2}
    assert [document.id for document in client.list_documents(collection)] == ["b"]
    assert {hit.document_id for hit in client.rag_search("text", collection)} == {"b"}
    assert client.delete_documents(collection, ["a"]).deleted == 0


def test_all_chunks_of_a_deleted_document_go(client: LLMBackendClient, collection: str) -> None:
    long = {"id": "long", "text": "This is a sentence. " * 100}
    client.rag_ingest(long, collection, chunk_size=32, chunk_overlap=0)
    client.delete_documents(collection, ["long"])
    assert client.get_collection(collection).chunks == 0


def test_deleting_an_id_twice_in_one_call_counts_once(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest({"id": "a", "text": "text"}, collection)
    assert client.delete_documents(collection, ["a", "a"]).deleted == 1


def test_deleting_no_ids_is_refused_and_a_bare_text_is_one_id(
    client: LLMBackendClient, collection: str
) -> None:
    client.create_collection(collection)
    for ids in ([], [""]):
        with pytest.raises(InvalidRequest, match="ids"):
            client.delete_documents(collection, ids)
    client.rag_ingest([{"id": "abc", "text": "one"}, {"id": "b", "text": "two"}], collection)
    assert client.delete_documents(collection, "abc").deleted == 1
    assert [one.id for one in client.list_documents(collection)] == ["b"]


def test_of_several_who_delete_a_collection_one_does(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["one text", "another"], collection)

    def delete(_: int) -> str:
        try:
            return str(client.delete_collection(collection).documents)
        except NotFound:
            return "not found"

    with ThreadPoolExecutor(3) as pool:
        outcomes = sorted(pool.map(delete, range(3)))
    assert outcomes == ["2", "not found", "not found"]
    assert collection not in [one.name for one in client.list_collections()]


def test_deleting_during_an_ingest_ends_it(client: LLMBackendClient, collection: str) -> None:
    documents = [f"Text {number} of many." for number in range(20_000)]
    client.create_collection(collection)
    with ThreadPoolExecutor(1) as pool:
        ingest = pool.submit(client.rag_ingest, documents, collection)
        while client.get_collection(collection).documents == 0:
            time.sleep(0.01)
        client.delete_collection(collection)
        with pytest.raises(NotFound):
            ingest.result()
    with pytest.raises(NotFound):
        client.get_collection(collection)


def test_a_page_ends_early_where_what_is_in_it_is_large(client: LLMBackendClient, collection: str) -> None:
    large = {f"k{number}": "v" * 60 for number in range(900)}
    documents = [{"id": f"d{number}", "text": f"text {number}", "metadata": large} for number in range(150)]
    client.rag_ingest(documents, collection)
    for operation, items in (("list_documents", "documents"), ("export_collection", "chunks")):
        sizes, cursor, seen = [], None, set()
        while not sizes or cursor:
            page = client._call(
                operation, collection=collection, limit=1000, **({"cursor": cursor} if cursor else {})
            )
            cursor = page["cursor"]
            sizes.append(len(page[items]))
            seen |= {one.get("id") or one["document_id"] for one in page[items]}
        assert len(sizes) > 1
        assert max(sizes) < 100
        assert sum(sizes) == len(seen) == len(documents)
    assert len(list(client.list_documents(collection))) == len(documents)


def test_a_question_is_no_document(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["a text"], collection)
    assert client.rag_search("a" * 32_768, collection, mode="sparse") == []
    long = "a" * 32_769
    for ask in (
        lambda: client.rag_search(long, collection),
        lambda: client.rag_query(long, collection),
        lambda: client.rerank(long, ["a text"]),
        lambda: client.evaluate(collection, [{"question": long, "gold": "d"}]),
    ):
        with pytest.raises(InvalidRequest, match="32768"):
            ask()


# Indexes of metadata fields

DECLARED = {"kind": "keyword", "signed": "datetime", "price": "float", "a.b": "bool"}


def test_indexes_are_declared_and_changed(client: LLMBackendClient, collection: str) -> None:
    assert client.create_collection(collection, indexes=DECLARED).indexes == DECLARED
    changed = client.set_indexes(collection, {"price": "integer", "kind": None, "team": "keyword"})
    expected = {"signed": "datetime", "price": "integer", "a.b": "bool", "team": "keyword"}
    assert changed.indexes == expected
    assert client.get_collection(collection) == changed
    assert changed in client.list_collections()


def test_indexes_change_nothing_that_filters_find(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection, indexes=DECLARED)
    sheets = [{"kind": "a", "price": 1.5}, {"kind": "b", "price": 2}, {"kind": "a", "price": "three"}]
    client.rag_ingest(
        [
            {"id": f"d{number}", "text": f"Sheet {number}.", "metadata": one}
            for number, one in enumerate(sheets)
        ],
        collection,
    )

    def found(filters: dict[str, object]) -> set[str]:
        return {hit.document_id for hit in client.rag_search("sheet", collection, filters=filters)}

    assert found({"kind": "a"}) == {"d0", "d2"}
    assert found({"price": 2}) == {"d1"}
    assert found({"price": [2, 7]}) == {"d1"}
    assert found({"price": {"gt": 1}}) == {"d0", "d1"}
    assert found({"price": {"exists": True}, "kind": {"not": "b"}}) == {"d0", "d2"}
    assert found({"price": "three"}) == {"d2"}
    with pytest.raises(InvalidRequest, match="set_indexes"):
        found({"signed": {"gt": 1}})


def test_indexes_of_no_type_of_too_many_fields_or_that_are_not_there_are_refused(
    client: LLMBackendClient, collection: str
) -> None:
    with pytest.raises(InvalidRequest, match="kind"):
        client.create_collection(collection, indexes={"kind": "text"})
    many = {f"field{number}": "keyword" for number in range(91)}
    with pytest.raises(InvalidRequest, match="90"):
        client.create_collection(collection, indexes=many)
    client.create_collection(collection, indexes={"kind": "keyword"})
    with pytest.raises(InvalidRequest, match="90"):
        client.set_indexes(collection, {f"field{number}": "keyword" for number in range(90)})
    for field, said in (("kidn", "did you mean 'kind'"), ("nope", "no index of 'nope' .*: there are 'kind'")):
        with pytest.raises(InvalidRequest, match=said):
            client.set_indexes(collection, {"team": "keyword", field: None})
    assert client.get_collection(collection).indexes == {"kind": "keyword"}
    with pytest.raises(NotFound):
        client.set_indexes("nobody", {"kind": "keyword"})


def test_options_of_a_qdrant_server_are_refused_without_one(
    client: LLMBackendClient, collection: str
) -> None:
    with pytest.raises(InvalidRequest, match="QDRANT_URL"):
        client.create_collection(collection, engine={"shard_number": 2})
    with pytest.raises(InvalidRequest, match="shards"):
        client.create_collection(collection, engine={"shards": 2})
    assert client.create_collection(collection).engine == {}


def test_collections_are_listed_without_counts(client: LLMBackendClient, collection: str) -> None:
    made = client.create_collection(collection)
    assert {**made, "documents": None, "chunks": None} in client.list_collections(counts=False)


def test_a_collection_that_is_missing_is_told_with_how_to_list_them(
    client: LLMBackendClient, tmp_path: Path
) -> None:
    name = f"staff-{uuid.uuid4().hex[:8]}"
    client.create_collection(name)
    for call in (client.delete_collection, client.reindex_collection):
        with pytest.raises(NotFound, match="list_collections"):
            call("nope")
        with pytest.raises(NotFound, match=f"did you mean '{name}'"):
            call(name.replace("staff", "stuff"))
    with pytest.raises(NotFound, match="list_collections"):
        client.export_collection("nope", tmp_path / "nope.jsonl")
    assert list(tmp_path.iterdir()) == []
    client.delete_collection(name)
