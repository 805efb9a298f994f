"""A project's own retriever and postprocessors, which an installed package brings."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from llmbackend import BackendError, BackendTimeout, InvalidRequest, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

FACTS = [
    {"id": "old", "text": "The harbour fee is nine crowns.", "metadata": {"year": 2001}},
    {"id": "new", "text": "The harbour fee is twelve crowns for trawlers.", "metadata": {"year": 2026}},
    {"id": "undated", "text": "The harbour fee is paid at the harbour office."},
    {"id": "trawlers", "text": "Trawlers moor at berth two.", "metadata": {"year": 2020}},
]
QUESTION = "What is the harbour fee?"


@pytest.fixture
def facts(client: LLMBackendClient, collection: str) -> str:
    client.rag_ingest(FACTS, collection)
    return collection


def test_a_postprocessor_reorders_and_drops(client: LLMBackendClient, facts: str) -> None:
    hits = client.rag_search(QUESTION, facts, postprocessors=["recency"])
    assert [hit.document_id for hit in hits] == ["new", "trawlers", "old"]
    first = client.rag_search(QUESTION, facts, postprocessors=["recency"], top_k=1)
    assert [hit.document_id for hit in first] == ["new"], "it sees more than is wanted"
    both = client.rag_search(QUESTION, facts, postprocessors=["recency", "shouting"])
    assert both[0].text == "THE HARBOUR FEE IS TWELVE CROWNS FOR TRAWLERS."
    assert [hit.score for hit in both] == [1.0] * 3
    assert both[0].metadata == {"year": 2026}


def test_an_answer_is_written_from_what_is_left_and_tells_how_long_it_took(
    client: LLMBackendClient, facts: str
) -> None:
    answer = client.rag_query(QUESTION, facts, postprocessors=["recency"], explain=True)
    assert [source.document_id for source in answer.sources] == ["new", "trawlers", "old"]
    assert answer.explanation is not None
    assert answer.explanation.ms["postprocessor recency"] >= 0
    dropped = {one.document_id: one.dropped for one in answer.explanation.candidates}
    assert dropped["undated"] == "postprocessor"
    assert "postprocessed" in repr(answer.explanation)


def test_a_retriever_finds_in_a_way_of_its_own(client: LLMBackendClient, facts: str) -> None:
    hits = client.rag_search(QUESTION + " For trawlers?", facts, retriever="graph")
    assert hits[0].document_id == "new"
    assert hits[-1].text == "The harbour is deep."
    assert (hits[-1].document_id, hits[-1].collection) == ("known", facts)
    assert "trawlers" in {hit.document_id for hit in hits}
    assert len({(hit.document_id, hit.chunk) for hit in hits}) == len(hits)
    hits = client.rag_search(QUESTION, facts, retriever="plain", postprocessors=["recency"])
    assert [hit.document_id for hit in hits] == ["new"]
    answer = client.rag_query(QUESTION, facts, retriever="plain", explain=True)
    assert answer.explanation is not None
    assert "retriever plain" in answer.explanation.ms


def test_a_part_that_there_is_not_is_refused_by_name(client: LLMBackendClient, facts: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no postprocessor 'age': there are .*recency"):
        client.rag_search(QUESTION, facts, postprocessors=["age"])
    with pytest.raises(InvalidRequest, match="no retriever 'web'"):
        client.rag_query(QUESTION, facts, retriever="web")


def test_a_part_that_fails_is_named(client: LLMBackendClient, facts: str) -> None:
    with pytest.raises(
        BackendError, match=r"postprocessor 'broken' \(harbour_parts:broken\) failed: KeyError"
    ) as caught:
        client.rag_search(QUESTION, facts, postprocessors=["broken"])
    assert caught.value.details == {"backend": "plugin", "postprocessor": "broken"}
    with pytest.raises(BackendError, match=r"'broken'.*NodeWithScore"):
        client.rag_search("nothing", facts, postprocessors=["broken"])
    assert client.rag_search(QUESTION, facts)


@pytest.mark.parametrize(("query", "part"), [("hang", "broken"), (QUESTION, "blocking")])
def test_a_part_that_hangs_is_given_up_and_holds_up_nobody(tmp_path: Path, query: str, part: str) -> None:
    options = Settings(data_dir=tmp_path, plugin_seconds=0.3)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.rag_ingest(FACTS, "facts")
        began = time.monotonic()
        with pytest.raises(BackendTimeout, match=f"'{part}'.*0.3 s.*PLUGIN_SECONDS"):
            client.rag_search(query, "facts", postprocessors=[part])
        assert time.monotonic() - began < 20
        assert client.rag_search(QUESTION, "facts")
