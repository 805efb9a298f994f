"""Single documents: read as they are stored, removed by a filter, found by a vector; and a collection by its handle."""

from __future__ import annotations

import html
import io
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound

LONG = "\n\n".join(
    f"Paragraph {number} tells of berth {number * 7 % 31}. It is {number} metres long, and ships stay there. "
    * 3
    for number in range(60)
)
SAME = "Every berth is swept once a day. " * 100
SECTIONS = "# Harbour\n\nIt is deep.\n\n## Berths\n\nThere are nine.\n\n## Crane\n\nIt lifts ten tons."


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


# Reading


@pytest.mark.parametrize(
    "text", [LONG, SAME, SECTIONS, "One sentence."], ids=["long", "same", "sections", "short"]
)
def test_a_document_comes_back_as_it_is_stored(client: LLMBackendClient, collection: str, text: str) -> None:
    about = {"year": 2026, "team": ["hr", "it"]}
    client.rag_ingest({"id": "guides/harbour ü.md", "text": text, "metadata": about}, collection)
    stored = client.get_document("guides/harbour ü.md", collection)
    assert (stored.id, stored.metadata) == ("guides/harbour ü.md", about)
    assert stored.chunks == client.list_documents(collection)[0].chunks
    assert _plain(stored.text) == _plain(text), "what chunks share is there once, and nothing is missing"


def test_chunks_that_were_given_stay_as_they_are(client: LLMBackendClient, collection: str) -> None:
    chunks: list[Any] = [{"text": "the first of the"}, {"text": "the second"}, {"text": "the second"}]
    client.rag_ingest({"id": "d", "chunks": chunks}, collection)
    assert client.get_document("d", collection).text == "the first of the\n\nthe second\n\nthe second"


def test_a_document_that_is_not_there_is_told(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest({"id": "d", "text": "One."}, collection)
    with pytest.raises(NotFound, match=r"no document 'e'.*list_documents") as caught:
        client.get_document("e", collection)
    assert caught.value.details["document_id"] == "e"


# Removing


def test_documents_are_removed_by_a_filter(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(
        [
            {
                "id": f"d{number}",
                "text": LONG[: 3000 if number == 1 else 60],
                "metadata": {"year": 2018 + number},
            }
            for number in range(6)
        ],
        collection,
    )
    assert client.delete_documents(collection, filters={"year": {"lt": 2019}}) == {"deleted": 1}
    assert client.delete_documents(collection, where={"year": {"lt": 2020}}) == {"deleted": 1}
    assert {one.id for one in client.list_documents(collection)} == {"d2", "d3", "d4", "d5"}
    assert client.delete_documents(collection, where={"year": 1900}) == {"deleted": 0}
    assert client.delete_documents(collection, ["d2", "nobody"]) == {"deleted": 1}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"ids": ["a"], "where": {"a": 1}},
        {"where": {}},
        {"ids": []},
        {"ids": ["a"], "filters": {"a": 1}},
        {"where": {"a": 1}, "filters": {"a": 1}},
    ],
)
def test_what_is_removed_has_to_be_told_in_one_way(
    client: LLMBackendClient, collection: str, given: dict[str, Any]
) -> None:
    client.rag_ingest({"id": "a", "text": "One."}, collection)
    with pytest.raises(InvalidRequest):
        client.delete_documents(collection, **given)
    assert len(client.list_documents(collection)) == 1


def test_ids_are_numbers_as_those_of_a_table_are(client: LLMBackendClient, collection: str) -> None:
    ids = [4711, 4712, 4713, 4714]
    client.rag_ingest(pd.DataFrame({"id": ids, "text": [f"Order {id} came late." for id in ids]}), collection)
    assert client.get_document(4711, collection).text == "Order 4711 came late."
    assert client[collection].get(4711.0).id == "4711"  # type: ignore[arg-type]
    assert {one.document_id for one in client.list_chunks(collection, ids=ids[:2])} == {"4711", "4712"}
    assert client.delete_documents(collection, 4711) == {"deleted": 1}
    assert client.delete_documents(collection, pd.Series([4712.0, 4713.0])) == {"deleted": 2}  # type: ignore[arg-type]
    for none in (True, None, float("nan")):
        with pytest.raises(InvalidRequest):
            client.delete_documents(collection, [none])  # type: ignore[list-item]
    assert [one.id for one in client.list_documents(collection)] == ["4714"]


def test_documents_are_listed_in_the_order_of_their_ids(client: LLMBackendClient, collection: str) -> None:
    ids = [f"{letter}{number:02}" for letter in "dbca" for number in range(10)]
    client.rag_ingest([{"id": one, "text": f"Text {one}."} for one in ids], collection)
    assert [one.id for one in client.list_documents(collection)] == sorted(ids)
    some = [one.id for one in client.list_documents(collection, limit=7)]
    assert some == sorted(some)
    assert len(some) == 7


def test_arguments_in_the_other_order_are_told(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest({"id": "berth-7.md", "text": "Ships stay at the berth."}, collection)
    with pytest.raises(NotFound, match=r"'berth-7\.md'.*takes the id first, then the collection"):
        client.get_document(collection, "berth-7.md")
    with pytest.raises(NotFound, match=r"'berth-7\.md'.*takes the collection first, then the ids"):
        client.delete_documents("berth-7.md", collection)
    with pytest.raises(InvalidRequest, match=r"is a list: .*takes the collection first, then the ids"):
        client.delete_documents(["berth-7.md"], collection)  # type: ignore[arg-type]
    with pytest.raises(NotFound) as caught:
        client.delete_documents("nothing-of-the-kind", ["a"])
    assert "first" not in caught.value.message


# Vectors


def test_a_search_takes_a_vector_in_place_of_a_query(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(
        ["Ships stay at the berth.", "The crane lifts ten tons.", "Soup is served at noon."], collection
    )
    by_words = client.rag_search("lifting heavy things", collection, mode="dense")
    vector = client.embed_single("lifting heavy things", input_type="query")
    for given in (
        vector,
        np.asarray(vector) * 12,
        client.embed(["lifting heavy things"], input_type="query").numpy()[0],
    ):
        hits = client.rag_search(vector=given, collection=collection)
        assert [hit.text for hit in hits] == [hit.text for hit in by_words]
        assert [hit.score for hit in hits] == pytest.approx([hit.score for hit in by_words], abs=1e-5)
    both = client.rag_search("soup", collection, vector=vector, top_k=2)
    assert {hit.text for hit in both} == {"Soup is served at noon.", "The crane lifts ten tons."}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"vector": [1.0, 2.0]}, r"2 numbers.*have 256"),
        ({"vector": [0.0] * 256}, "no direction"),
        ({"vector": [1.0] * 256, "mode": "sparse"}, "use words only"),
        ({"vector": [1.0] * 256, "rerank": True}, "give it with the vector"),
        ({"vector": [1.0] * 255 + [float("nan")]}, "NaN"),
        ({"vector": ["one"]}, "number"),
        ({}, "a query or a vector"),
    ],
)
def test_a_vector_that_cannot_be_searched_for_is_refused(
    client: LLMBackendClient, collection: str, given: dict[str, Any], said: str
) -> None:
    client.rag_ingest(["Ships stay at the berth."], collection)
    with pytest.raises(InvalidRequest, match=said):
        client.rag_search(collection=collection, **given)


def test_vectors_of_any_length_point_somewhere(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["Ships stay at the berth."], collection)
    for length in (1e-300, 1e300):
        (hit,) = client.rag_search(vector=[length] * 256, collection=collection)
        assert -1.001 <= hit.score <= 1.001


# Names that are nearly right


def test_a_mistyped_collection_is_told_with_what_was_probably_meant(
    client: LLMBackendClient, collection: str
) -> None:
    client.rag_ingest(["Ships stay at the berth."], collection)
    typo = collection[:-2] + collection[-1]
    for ask in (
        lambda: client.rag_search("ships", typo),
        lambda: client.rag_query("Ships?", [collection, typo]),
        lambda: list(client.rag_query("Ships?", typo, stream=True)),
        lambda: client.get_collection(typo.upper()),
        lambda: client.chat("Ships?", model=f"rag/{typo}"),
    ):
        with pytest.raises(NotFound) as caught:
            ask()
        assert f"did you mean '{collection}'" in caught.value.message.replace(" or ", " did you mean ")
        assert str(caught.value) == caught.value.message
        assert collection in caught.value.details["near"]
    with pytest.raises(NotFound, match="list_collections"):
        client.get_collection("quite-another-0000")


# By a handle


def test_a_collection_s_handle_has_the_client_s_calls(client: LLMBackendClient, collection: str) -> None:
    berths = client[collection]
    assert repr(berths) == f"{client!r}[{collection!r}]"
    documents = [
        {"id": "a", "text": "Ships stay at the berth.", "metadata": {"kind": "rule"}},
        {"id": "b", "text": "The crane lifts ten tons.", "metadata": {"kind": "fact"}},
    ]
    assert berths.ingest(documents).added == 2
    assert berths.ingest_files([("c.md", b"Soup is served at noon.")]).added == 1
    assert berths.search("crane", top_k=1)[0].document_id == "b"
    assert berths.search(vector=client.embed_single("crane"), top_k=1)[0].document_id == "b"
    assert berths.query("What does the crane lift?").sources[0].document_id == "b"
    assert {one.id for one in berths.documents()} == {"a", "b", "c.md"}
    assert berths.get("a").text == "Ships stay at the berth."
    assert berths.evaluate([{"question": "What lifts?", "gold": "b"}]).collection == collection
    assert berths.stats() == client.get_collection(collection)
    axes = berths.map("kind", query="What lifts?")
    assert "3 documents, by kind" in axes.get_title(loc="left")
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"rule", "fact", "none"}
    assert berths.delete("a") == {"deleted": 1}
    assert berths.delete(where={"kind": "fact"}) == {"deleted": 1}
    assert [one.id for one in berths.documents()] == ["c.md"]


def test_a_handle_is_drawn_with_what_can_be_done_with_it(client: LLMBackendClient, collection: str) -> None:
    def drawn() -> tuple[str, str]:
        printer = io.StringIO()
        berths = client[collection]
        berths._repr_pretty_(SimpleNamespace(text=printer.write), False)
        return html.unescape(berths._repr_html_()), printer.getvalue()

    waits = "await client[" in drawn()[0]  # then nothing can be asked for while drawing
    for shown in drawn():
        assert f"client[{collection!r}].search(query)" in shown
        assert waits or "there is no such collection yet: ingest makes it" in shown
    client.rag_ingest(["Ships stay at the berth.", "The crane lifts ten tons."], collection)
    for shown in drawn():
        assert collection in shown
        words = re.sub(r"<style>.*</style>|<[^>]*>|\s+", " ", shown, flags=re.DOTALL)
        assert waits or re.search(r"documents\W+2\W+chunks\W+2\W+embed\w+\W+(by )?\W*wordllama", words)
        assert "there is no such collection" not in shown


def test_a_client_is_no_list_and_has_names_only(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="collection's name, not int"):
        client[0]  # type: ignore[index]


def test_an_empty_collection_has_no_map(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    with pytest.raises(InvalidRequest, match="nothing in the collection"):
        client[collection].map()


def test_a_map_by_a_field_that_no_document_has_is_refused(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(
        [{"id": "a", "text": "One.", "metadata": {"kind": "x", "by": {"name": "Ada"}}}], collection
    )
    with pytest.raises(InvalidRequest, match="no document shown has the field 'knd': did you mean 'kind'"):
        client[collection].map(color="knd")
    with pytest.raises(InvalidRequest, match="the field 'colour': there are by, kind"):
        client[collection].map(color="colour")
    assert client[collection].map(color="by.name") is not None
