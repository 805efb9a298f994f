"""Processes that share a Qdrant server and a database: what one does to a collection, the others notice."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbackend import Conflict, LLMBackendClient, NotFound, schemas
from llmbackend.access.names import QualifiedName
from llmbackend.backend import Backend
from llmbackend.knowledge.collections import manifests
from llmbackend.settings import Settings
from tests import qdrant
from tests.server import serving, working

pytestmark = pytest.mark.usefixtures("in_default")

Two = tuple[LLMBackendClient, LLMBackendClient]


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Settings of processes that share everything but their data directories."""
    with qdrant.running() as (url, _):
        yield {"qdrant_url": url, "database_url": f"sqlite:///{tmp_path / 'shared.db'}"}


@pytest.fixture
def two(tmp_path: Path, shared: dict[str, Any]) -> Iterator[Two]:
    """Clients of two servers."""
    with (
        serving(tmp_path / "one", **shared) as one,
        serving(tmp_path / "other", **shared) as other,
        LLMBackendClient(one.url) as first,
        LLMBackendClient(other.url) as second,
    ):
        yield first, second


def _document(number: int, edition: int = 1) -> dict[str, Any]:
    return {"id": f"d{number}", "text": f"Machine {number}, edition {edition}, stands in hall {number % 7}."}


def _documents(count: int) -> list[dict[str, Any]]:
    return [_document(number) for number in range(count)]


def _texts(client: LLMBackendClient, file: Path) -> dict[str, str]:
    """The text of each document; there is one passage of each."""
    client.export_collection("machines", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    chunks = [line for line in lines if "document_id" in line]
    texts = {chunk["document_id"]: chunk["text"] for chunk in chunks}
    assert len(texts) == len(chunks), "nothing is there twice"
    return texts


def _insistently(work: Callable[[], Any]) -> Any:
    """As whoever is told to try again does."""
    deadline = time.monotonic() + 120
    while True:
        try:
            return work()
        except Conflict:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_what_one_does_the_other_notices(two: Two) -> None:
    here, there = two
    here.rag_ingest(_documents(20), "machines")
    assert there.rag_search("Machine 7", "machines", mode="sparse")[0].document_id == "d7"
    here.reindex_collection("machines")  # the physical collection that the other has open is gone
    assert there.rag_search("Machine 7", "machines", mode="sparse")[0].document_id == "d7"
    there.rag_ingest(_document(20), "machines")
    assert here.get_collection("machines").documents == 21
    there.reindex_collection("machines")
    assert here.rag_ingest(_documents(21), "machines").unchanged == 21

    here.delete_collection("machines")
    for refused in (
        lambda: there.rag_search("Machine 7", "machines"),
        lambda: there.get_collection("machines"),
        lambda: there.list_documents("machines"),
        lambda: there.delete_collection("machines"),
    ):
        with pytest.raises(NotFound, match="machines"):
            refused()
    assert there.list_collections() == []

    here.rag_ingest(_documents(3), "machines")
    assert there.get_collection("machines").documents == 3
    here.delete_collection("machines")
    here.rag_ingest(_documents(5), "machines")  # another one of that name
    assert there.get_collection("machines").documents == 5
    here.delete_collection("machines")
    assert there.rag_ingest(_documents(2), "machines").added == 2, "made anew"


def test_readers_in_another_process_are_answered_throughout(two: Two) -> None:
    here, there = two
    here.rag_ingest(_documents(150), "machines")
    there.get_collection("machines")
    with ThreadPoolExecutor(1) as pool:
        reindexing = pool.submit(lambda: [here.reindex_collection("machines") for _ in range(2)])
        while not reindexing.done():
            assert there.rag_search("Machine 17", "machines", mode="sparse")[0].document_id == "d17"
            assert len(there.rag_search("Machine 17", "machines", top_k=5)) == 5
            assert there.get_collection("machines").documents == 150
        reindexing.result()


def test_what_another_process_writes_during_a_reindex_is_not_lost(two: Two, tmp_path: Path) -> None:
    here, there = two
    here.rag_ingest(_documents(800), "machines")
    expected = {one["id"]: one["text"] for one in _documents(800)}
    steps: list[Any] = []
    with ThreadPoolExecutor(1) as pool:
        reindexing = pool.submit(here.reindex_collection, "machines", progress=steps.append)
        round_ = 0
        while not reindexing.done():
            if not steps:
                time.sleep(0.01)
                continue
            changed = [_document(number, 2 + round_) for number in (round_, 400 + round_)]
            _insistently(lambda some=changed: there.rag_ingest(some, "machines"))
            expected.update({one["id"]: one["text"] for one in changed})
            gone = f"d{200 + round_}"
            _insistently(lambda name=gone: there.delete_documents("machines", [name]))
            expected.pop(gone, None)
            round_ += 1
        reindexing.result()
    assert round_ > 0
    assert _texts(here, tmp_path / "here") == expected == _texts(there, tmp_path / "there")


def test_a_worker_works_on_collections_of_a_shared_server(tmp_path: Path) -> None:
    with (
        qdrant.running() as (url, _),
        serving(tmp_path, workers=0, qdrant_url=url) as server,
        LLMBackendClient(server.url) as client,
        working(tmp_path, qdrant_url=url),
    ):
        made = client.submit_job("rag_ingest", {"documents": _documents(50), "collection": "machines"})
        assert client.wait_for_job(made, 120).added == 50
        assert client.rag_search("Machine 7", "machines", mode="sparse")[0].document_id == "d7"
        client.reindex_collection("machines")
        more = client.submit_job("rag_ingest", {"documents": _documents(60), "collection": "machines"})
        report = client.wait_for_job(more, 120)
        assert (report.unchanged, report.added) == (50, 10)
        assert client.get_collection("machines").documents == 60


def test_a_killed_reindex_leaves_the_others_their_collection(tmp_path: Path, shared: dict[str, Any]) -> None:
    with serving(tmp_path / "other", **shared) as other, LLMBackendClient(other.url) as there:
        there.rag_ingest(_documents(800), "machines")
        with serving(tmp_path / "one", **shared) as one, LLMBackendClient(one.url) as here:
            job_id = here.submit_job("reindex", {"collection": "machines"})
            while here.get_job_status(job_id).progress.done == 0:
                time.sleep(0.01)
            one.process.kill()
            one.process.wait()
        _insistently(lambda: there.rag_ingest(_document(7, 2), "machines"))
        with serving(tmp_path / "one", **shared) as one, LLMBackendClient(one.url) as here:
            here.wait_for_job(job_id, 120)
            expected = {one["id"]: one["text"] for one in [*_documents(800), _document(7, 2)]}
            for client in (here, there):
                assert _texts(client, tmp_path / "export") == expected


def _in_two(
    tmp_path: Path, shared: dict[str, Any], work: Callable[[Backend, Backend], Awaitable[None]]
) -> None:
    """Two backends at once, each as if in a process of its own."""

    async def run() -> None:
        one = await Backend.open(Settings(data_dir=tmp_path / "one", **shared))
        other = await Backend.open(Settings(data_dir=tmp_path / "other", **shared))
        try:
            await work(one, other)
        finally:
            await one.close()
            await other.close()

    asyncio.run(run())


async def _ingest(backend: Backend, *documents: dict[str, Any]) -> schemas.IngestReport:
    return await backend.rag_ingest(
        schemas.RagIngestRequest(
            documents=[schemas.Document(**one) for one in documents], collection="machines"
        )
    )


def test_what_was_written_while_it_was_exchanged_is_not_acknowledged(
    tmp_path: Path, shared: dict[str, Any]
) -> None:
    async def work(one: Backend, other: Backend) -> None:
        await _ingest(one, *_documents(3))
        collection = await other._collections.get(QualifiedName("default", "machines"))
        with pytest.raises(Conflict, match="another process"):
            async with collection.writing():
                await one.reindex_collection(schemas.ReindexRequest(collection="machines"))
        assert (await _ingest(other, _document(3))).added == 1

    _in_two(tmp_path, shared, work)


def test_only_for_a_while_a_killed_process_keeps_others_from_writing(
    tmp_path: Path, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "FREEZE", 3.0)

    async def work(one: Backend, other: Backend) -> None:
        await _ingest(one, *_documents(3))
        manifest = (await one._collections.get(QualifiedName("default", "machines"))).manifest
        one._collections.manifests.freeze(manifest)  # and no more is heard of it
        with pytest.raises(Conflict, match="try again"):
            await _ingest(other, _document(3))
        with pytest.raises(Conflict, match="try again"):
            await other.reindex_collection(schemas.ReindexRequest(collection="machines"))
        deadline = time.monotonic() + 60
        while True:
            try:
                assert (await _ingest(other, _document(3))).added == 1
                break
            except Conflict:
                assert time.monotonic() < deadline
                await asyncio.sleep(0.1)
        with pytest.raises(Conflict):  # too late to exchange it
            one._collections.manifests.freeze(manifest, longer=True)

    _in_two(tmp_path, shared, work)


def test_of_two_processes_that_reindex_one_is_told(two: Two, tmp_path: Path) -> None:
    here, there = two
    here.rag_ingest(_documents(200), "machines")

    def reindex(client: LLMBackendClient) -> str:
        try:
            return str(client.reindex_collection("machines").chunks)
        except Conflict as error:
            return error.message

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(reindex, two))
    assert "200" in outcomes
    assert all(outcome == "200" or "try again" in outcome for outcome in outcomes)
    assert len(_texts(there, tmp_path / "export")) == 200
