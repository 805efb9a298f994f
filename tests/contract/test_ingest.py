"""What ingest promises while others write, read or watch, and when it is only asked for a plan."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import pytest

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound, Record
from llmbackend.chunks.chunking import split
from llmbackend.schemas import Document


def _document(name: str, edition: int, sentences: int) -> dict[str, Any]:
    text = " ".join(
        f"Sentence {number} of {name} in edition {edition} is here." for number in range(sentences)
    )
    return {"id": name, "text": text, "metadata": {"name": name, "edition": edition}}


def _of_chunks(name: str, edition: int, chunks: int, size: int) -> dict[str, Any]:
    """A document that makes just so many chunks."""
    for sentences in range(3 * chunks, 1000):
        document = _document(name, edition, sentences)
        if len(split(Document(**document), "", size, 0)) == chunks:
            return document
    raise AssertionError("there is none")


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    """Set at the end of a test, whatever its outcome: for threads that go on until then."""
    event = threading.Event()
    yield event
    event.set()


# Replacing


def test_a_document_shrunk_from_ten_chunks_to_eight_has_eight(
    client: LLMBackendClient, collection: str
) -> None:
    client.create_collection(collection, chunk_size=64, chunk_overlap=0)
    for edition, chunks in ((1, 10), (2, 8), (3, 10), (4, 8)):
        client.rag_ingest(_of_chunks("report", edition, chunks, 64), collection)
        info = client.get_collection(collection)
        assert (info.documents, info.chunks) == (1, chunks)
        [listed] = client.list_documents(collection)
        assert (listed.chunks, listed.metadata["edition"]) == (chunks, edition)
        hits = client.rag_search("edition", collection, top_k=100, mode="dense")
        assert sorted(hit.chunk for hit in hits) == list(range(chunks))
        assert {hit.metadata["edition"] for hit in hits} == {edition}


def test_a_document_answers_all_the_time_while_it_is_replaced(
    client: LLMBackendClient, collection: str, stopped: threading.Event
) -> None:
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    client.rag_ingest([_document("report", 0, 30), "Something else."], collection)

    def read() -> int:
        searches = 0
        while not stopped.is_set():
            for mode in ("hybrid", "sparse", "dense"):
                hits = client.rag_search("report", collection, filters={"name": "report"}, mode=mode)
                assert hits, f"neither version was found (mode {mode})"
                assert any(one.id == "report" for one in client.list_documents(collection))
            searches += 1
        return searches

    with ThreadPoolExecutor(2) as pool:
        readers = [pool.submit(read) for _ in range(2)]
        try:
            for edition in range(1, 31):
                assert client.rag_ingest(_document("report", edition, 10 + edition), collection).updated == 1
        finally:
            stopped.set()
        assert all(reader.result() > 0 for reader in readers)
    hits = client.rag_search("report", collection, top_k=100, filters={"name": "report"})
    assert {hit.metadata["edition"] for hit in hits} == {30}


# Many at once


def test_eight_write_while_four_read(
    client: LLMBackendClient, collection: str, stopped: threading.Event
) -> None:
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    editions, each = 3, 12

    def write(writer: int) -> None:
        for edition in range(editions):
            documents = [
                _document(f"{writer}-{number}", edition, 1 + (number + 3 * edition) % 8)
                for number in range(each)
            ]
            report = client.rag_ingest(documents, collection)
            assert report.failed == []
            assert (report.added, report.updated) == ((each, 0) if edition == 0 else (0, each))
        assert client.delete_documents(collection, [f"{writer}-0"]).deleted == 1

    def read() -> int:
        reads = 0
        while not stopped.is_set():
            for hit in client.rag_search("edition", collection, top_k=20):
                assert f"of {hit.document_id} in edition {hit.metadata['edition']}" in hit.text
            info = client.get_collection(collection)
            assert info.documents <= info.chunks
            reads += 1
        return reads

    with ThreadPoolExecutor(12) as pool:
        readers = [pool.submit(read) for _ in range(4)]
        try:
            list(pool.map(write, range(8)))
        finally:
            stopped.set()
        assert all(reader.result() > 0 for reader in readers)
    documents = client.list_documents(collection)
    last = [
        _document(f"{writer}-{number}", editions - 1, 1 + (number + 3 * (editions - 1)) % 8)
        for writer in range(8)
        for number in range(1, each)
    ]
    expected = {one["id"]: len(split(Document(**one), "", 32, 0)) for one in last}
    assert {one.id: one.chunks for one in documents} == expected
    assert all(one.metadata["edition"] == editions - 1 for one in documents)
    info = client.get_collection(collection)
    assert (info.documents, info.chunks) == (len(expected), sum(expected.values()))


def test_several_who_write_the_same_documents_leave_each_once(
    client: LLMBackendClient, collection: str
) -> None:
    client.create_collection(collection, chunk_size=32, chunk_overlap=0)
    editions = {
        edition: [_document(f"report-{number}", edition, 3 + 2 * edition) for number in range(30)]
        for edition in range(4)
    }
    with ThreadPoolExecutor(8) as pool:
        reports = pool.map(
            lambda turn: client.rag_ingest(editions[turn % len(editions)], collection), range(16)
        )
        assert all(report.failed == [] for report in reports)
    listed = client.list_documents(collection)
    assert sorted(one.id for one in listed) == sorted(one["id"] for one in editions[0])
    for one in listed:
        [given] = [document for document in editions[one.metadata["edition"]] if document["id"] == one.id]
        assert one.chunks == len(split(Document(**given), "", 32, 0))
    assert client.get_collection(collection).chunks == sum(one.chunks for one in listed)


# Progress


def test_progress_tells_how_far_each_stage_is(client: LLMBackendClient, collection: str) -> None:
    steps: list[Record] = []
    documents = [_document(f"report-{number}", 1, 4) for number in range(1500)]
    report = client.rag_ingest(documents, collection, progress=steps.append)
    first, last = steps[0], steps[-1]
    assert (first.done, first.total, first.stage) == (0, 1500, "chunk")
    assert first.stages == {
        "chunk": {"done": 0, "total": 1500},
        "embed": {"done": 0, "total": 0},
        "write": {"done": 0, "total": 0},
    }
    assert (last.done, last.stage) == (1500, "done")
    assert last.stages == {
        "chunk": {"done": 1500, "total": 1500},
        "embed": {"done": report.chunks, "total": report.chunks},
        "write": {"done": report.chunks, "total": report.chunks},
    }
    for earlier, later in pairwise(steps):
        assert later.done >= earlier.done
        for name, stage in later.stages.items():
            assert stage.done >= earlier.stages[name].done
    for step in steps:
        assert step.stages.write.done <= step.stages.embed.done <= step.stages.embed.total
    order = ["chunk", "embed", "write", "done"]
    told = [order.index(step.stage) for step in steps]
    assert told == sorted(told)


def test_progress_tells_how_far_a_long_document_is(client: LLMBackendClient, collection: str) -> None:
    steps: list[Record] = []
    ships = [f"Ship {number} came to berth {number % 7} and left it at high tide." for number in range(5000)]
    ships[4000] = "The keeper of the lighthouse feeds his cat."
    long = {"id": "log", "text": " ".join(ships)}
    report = client.rag_ingest(long, collection, chunk_size=32, progress=steps.append)
    assert any(0 < step.stages.embed.done < report.chunks for step in steps)
    found = client.rag_search("Who feeds the cat?", collection, mode="dense", top_k=1)
    assert ships[4000] in found[0].text, "vectors stay with their chunks"


def test_a_bar_shows_progress(
    client: LLMBackendClient, collection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    report = client.rag_ingest([_document("report", 1, 4)], collection, progress=True)
    last = capsys.readouterr().err.rstrip("\n").rpartition("\r")[2]
    assert last.startswith("100%|█")
    assert f"1 document, {report.chunks} chunk" in last


def test_a_bar_ends_its_line_when_the_call_fails(
    client: LLMBackendClient, collection: str, capsys: pytest.CaptureFixture[str]
) -> None:
    client.create_collection(collection, chunk_size=64)
    calls: list[Callable[[], object]] = [
        lambda: client.rag_ingest_files(("a.txt", b"a text"), collection, chunk_size=128, progress=True),
        lambda: client.rag_ingest("a text", collection, chunk_size=128, progress=True),
        lambda: client.wait_for_job("nowhere", progress=True),
    ]
    for call in calls:
        with pytest.raises((Conflict, NotFound)) as caught:
            call()
        assert capsys.readouterr().err.endswith("\n"), caught.value


# Plans


def test_a_plan_for_a_new_collection_makes_none(client: LLMBackendClient, collection: str) -> None:
    documents = [_document(f"report-{number}", 1, 20) for number in range(50)]
    plan = client.rag_ingest([*documents, {"id": "empty", "text": " "}], collection, plan=True, chunk_size=64)
    assert (plan.documents, plan.added, plan.updated, plan.unchanged, plan.deleted) == (51, 50, 0, 0, 0)
    assert [failure.id for failure in plan.failed] == ["empty"]
    with pytest.raises(NotFound):
        client.get_collection(collection)
    report = client.rag_ingest(documents, collection, chunk_size=64)
    assert (report.added, report.chunks) == (50, plan.chunks)
    words = sum(len(document["text"].split()) for document in documents)
    assert words < plan.tokens < 4 * words
    assert plan.seconds > 0


def test_a_plan_tells_what_would_change_and_changes_nothing(
    client: LLMBackendClient, collection: str
) -> None:
    kept, changed, gone = (_document(name, 1, 30) for name in ("kept", "changed", "gone"))
    client.rag_ingest([kept, changed, gone], collection, chunk_size=64)
    before = client.list_documents(collection)
    given = [kept, _document("changed", 2, 30), _document("new", 1, 30)]
    plan = client.rag_ingest(given, collection, sync=True, plan=True)
    assert client.list_documents(collection) == before
    report = client.rag_ingest(given, collection, sync=True)
    assert {name: plan[name] for name in report} == report
    assert (report.added, report.updated, report.unchanged, report.deleted) == (1, 1, 1, 1)
    nothing = client.rag_ingest(given, collection, sync=True, plan=True)
    assert (nothing.chunks, nothing.tokens, nothing.unchanged) == (0, 0, 3)


def test_a_plan_is_refused_as_the_ingest_would_be(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match="chunk_overlap"):
        client.rag_ingest("x", collection, chunk_size=64, chunk_overlap=64, plan=True)
    client.rag_ingest("x", collection, chunk_size=64)
    with pytest.raises(Conflict, match="chunk_size"):
        client.rag_ingest("x", collection, chunk_size=128, plan=True)


def test_a_plan_has_progress_too(client: LLMBackendClient, collection: str) -> None:
    steps: list[Record] = []
    documents = [f"document {number}" for number in range(1500)]
    plan = client.rag_ingest(documents, collection, plan=True, progress=steps.append)
    assert plan.chunks == 1500
    assert (steps[0].done, steps[-1].done, steps[-1].stage) == (0, 1500, "done")
    assert steps[-1].stages.write == {"done": 0, "total": 1500}


def test_files_go_through_all_stages(client: LLMBackendClient, collection: str) -> None:
    files = [(f"report-{number}.txt", f"This is report {number}.".encode()) for number in range(20)]
    files.append(("broken.pdf", b"not a PDF"))
    steps: list[Record] = []
    report = client.rag_ingest_files(files, collection, progress=steps.append)
    assert (report.added, [failure.id for failure in report.failed]) == (20, ["broken.pdf"])
    assert steps[-1].stages == {
        "parse": {"done": 21, "total": 21},
        "chunk": {"done": 21, "total": 21},
        "embed": {"done": 20, "total": 20},
        "write": {"done": 20, "total": 20},
    }


def test_a_plan_for_files_writes_nothing(client: LLMBackendClient, collection: str) -> None:
    files = [("kept.txt", b"The first report."), ("changed.txt", b"The second."), ("gone.txt", b"The third.")]
    client.rag_ingest_files(files, collection)
    given = [files[0], ("changed.txt", b"Quite another text."), ("new.md", b"# News\n\nAll is well.")]
    given.append(("broken.pdf", b"not a PDF"))
    plan = client.rag_ingest_files(given, collection, sync=True, plan=True)
    assert sorted(one.id for one in client.list_documents(collection)) == [
        "changed.txt",
        "gone.txt",
        "kept.txt",
    ]
    assert plan.documents == 4
    assert plan.tokens > 0
    report = client.rag_ingest_files(given, collection, sync=True)
    assert {name: plan[name] for name in report} == report
    assert (report.added, report.updated, report.unchanged, report.deleted) == (1, 1, 1, 1)
