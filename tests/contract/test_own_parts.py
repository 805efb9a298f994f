"""A project's own retriever and postprocessors, which an installed package brings."""

from __future__ import annotations

import os
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


# Readers of files


def _backwards(text: str) -> bytes:
    return text[::-1].encode()


def test_a_reader_reads_files_of_its_own_kind(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "tide.rev").write_bytes(_backwards("High tide is at nine."))
    (tmp_path / "other.zzz").write_bytes(b"\0")
    assert ".rev" in client.health().own_file_types
    report = client.rag_ingest_files(tmp_path, collection)
    assert report.added == 1
    (failed,) = report.failed
    assert failed.id == "other.zzz"
    assert failed.error.startswith("unsupported type .zzz: neither text nor")
    hit = client.rag_search("When is high tide?", collection)[0]
    assert (hit.document_id, hit.text) == ("tide.rev", "High tide is at nine.")
    assert hit.metadata["headings"] == ["Backwards"]


@pytest.mark.skipif(
    "ASYNC_CLIENT" in os.environ, reason="only the client for threads has LlamaIndex's classes"
)
def test_llamaindex_reads_files_by_a_reader(client: LLMBackendClient, tmp_path: Path) -> None:
    (tmp_path / "tide.rev").write_bytes(_backwards("High tide is at nine."))
    assert client.llamaindex.reader().load_data(tmp_path / "tide.rev")[0].text.endswith("nine.")


def test_a_reader_has_no_more_rights_than_our_own_parsers(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("secret")
    files = [
        ("connect.rev", _backwards("connect")),
        ("none.rev", _backwards("read /does/not/exist")),
        ("fine.rev", _backwards("High tide is at nine.")),
    ]
    report = client.rag_ingest_files(files, collection)
    assert report.added == 1
    failed = {one.id: one.error for one in report.failed}
    assert failed.keys() == {"connect.rev", "none.rev"}
    assert "the reader of .rev (harbour_parts:rev) failed: PermissionError" in failed["connect.rev"]


def test_a_reader_that_hangs_is_named(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, file_seconds=2)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        report = client.rag_ingest_files([("hang.rev", _backwards("hang"))], "facts")
    assert [one.error for one in report.failed] == [
        "took too long: more than 2 s (the reader of .rev, harbour_parts:rev)"
    ]


def test_the_doctor_lists_a_project_s_parts(client: LLMBackendClient) -> None:
    [check] = [one for one in client.doctor().checks if one.name == "plugins"]
    assert {"reader .rev", "postprocessor recency", "retriever graph"} <= set(check.models)
    assert {"agent researcher", "agent contracts", "tool search", "tool tide"} <= set(check.models)
    assert check.ok
