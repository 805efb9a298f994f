"""Processes killed while a collection is being reindexed: it is wholly what it was, or wholly the new one."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, LLMBackendError
from llmbackend.knowledge.collections.index_building import GROWN
from llmbackend.knowledge.collections.rebuild import PAGE
from tests.server import Server, serving
from tests.upstream.fake import KEY, Upstream, running

DOCUMENTS = 450
CHANGED, DELETED = range(200), range(300, 400)


def _document(number: int, edition: int) -> dict[str, Any]:
    sentences = [
        f"Case {number * 31 + part}, edition {edition}, is about hall {part}."
        for part in range(1 + number % 20)
    ]
    return {"id": f"d{number}", "text": " ".join(sentences), "metadata": {"edition": edition}}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with a collection, which the tests copy."""
    folder = tmp_path_factory.mktemp("original")
    with serving(folder) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(
            [_document(number, 1) for number in range(DOCUMENTS)], "cases", chunk_size=64, chunk_overlap=0
        )
    return folder


@pytest.fixture(scope="module")
def usual(original: Path, tmp_path_factory: pytest.TempPathFactory) -> float:
    """Seconds that reindexing it takes."""
    folder = tmp_path_factory.mktemp("usual") / "data"
    shutil.copytree(original, folder)
    with serving(folder) as server, LLMBackendClient(server.url) as client:
        client.get_collection("cases")  # it is open
        began = time.monotonic()
        client.reindex_collection("cases")
        return time.monotonic() - began


def _physical(folder: Path) -> tuple[set[str], set[str], set[str]]:
    """Folders there are, folders that manifests name, and folders that are orphans."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        named = {
            physical or made for physical, made in connection.execute("SELECT physical, id FROM collections")
        }
        orphans = {physical for (physical,) in connection.execute("SELECT physical FROM loose_collections")}
    return {path.name for path in (folder / "collections").iterdir()}, named, orphans


def _until(condition: Callable[[], Any], timeout: float = 180) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.02)


def _kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


SPREAD = (1, 9)  # at .2 and .7 of the usual time


@pytest.mark.parametrize(
    "moment", [*SPREAD, *(pytest.param(n, marks=pytest.mark.long) for n in range(10) if n not in SPREAD)]
)
def test_a_kill_at_a_random_moment(original: Path, usual: float, tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    steps: list[Any] = []
    written = threading.Event()
    acknowledged: list[str] = []

    with serving(folder) as server, LLMBackendClient(server.url) as client:
        client.get_collection("cases")

        def reindex() -> None:
            with suppress(LLMBackendError):
                client.reindex_collection("cases", progress=steps.append)

        def write() -> None:
            with suppress(LLMBackendError), LLMBackendClient(server.url) as writer:
                for start in range(0, len(CHANGED), 20):
                    changed = [_document(number, 2) for number in CHANGED[start : start + 20]]
                    writer.rag_ingest(changed, "cases")
                    acknowledged.extend(one["id"] for one in changed)
                    gone = [f"d{number}" for number in DELETED[start // 2 : start // 2 + 10]]
                    writer.delete_documents("cases", gone)
                    acknowledged.extend(gone)
            written.set()

        threads = [threading.Thread(target=target) for target in (reindex, write)]
        for thread in threads:
            thread.start()
        time.sleep(random.Random(moment).random() * 1.5 * usual)
        _kill(server)
        for thread in threads:
            thread.join()

    with serving(folder) as server, LLMBackendClient(server.url) as client:
        info = client.get_collection("cases")
        listed = client.list_documents("cases")
        assert info.documents == len(listed) == len({one.id for one in listed})
        assert info.chunks == sum(one.chunks for one in listed)
        editions = {one.id: one.metadata["edition"] for one in listed}
        for number in range(DOCUMENTS):
            name = f"d{number}"
            if name in acknowledged:  # what was answered stays
                assert editions.get(name) == (2 if number in CHANGED else None)
            elif number not in DELETED:
                assert editions[name] in ((1, 2) if number in CHANGED else (1,))
        there, named, orphans = _physical(folder)
        assert (there, orphans) == (named, set()), "no orphan"
        # It can be used as ever.
        again = client.rag_ingest([_document(number, 2) for number in CHANGED], "cases")
        assert again.unchanged + again.updated == len(CHANGED)
        assert client.reindex_collection("cases").documents == info.documents
        assert client.get_collection("cases").documents == info.documents
        [best, *_] = client.rag_search("Case 12991, edition 1", "cases", mode="sparse")
        assert best.document_id == "d419"


def _slowly(upstream: Upstream) -> dict[str, Any]:
    """Settings of a server whose embedding model is another one, and that keeps no vectors."""
    upstream.work = 0.2
    return {"tei_url": f"{upstream.url}/ok", "tei_api_key": KEY, "embedding_cache_mb": 0}


def _times_embedded(upstream: Upstream) -> Counter[str]:
    return Counter(text for body in list(upstream.seen) for text in body["inputs"] if text.startswith("Case"))


def _everything(client: LLMBackendClient, file: Path) -> Counter[tuple[str, str]]:
    """How often each passage is there, by its document and text."""
    client.export_collection("cases", file)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    file.unlink()
    return Counter((line["document_id"], line["text"]) for line in lines if "document_id" in line)


SHORT = 2000


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `original`, with documents of one or two passages."""
    folder = tmp_path_factory.mktemp("short")
    with serving(folder) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(
            [_short(number, 1) for number in range(SHORT)], "cases", chunk_size=32, chunk_overlap=0
        )
    return folder


def _short(number: int, edition: int) -> dict[str, Any]:
    sentences = [f"Case {number} {part}, edition {edition}." for part in range(1 + number % 4)]
    return {"id": f"d{number}", "text": " ".join(sentences), "metadata": {"edition": edition}}


def test_a_job_goes_on_with_what_it_had_embedded(short: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(short, folder)
    with running() as upstream:
        slow = _slowly(upstream)
        with serving(folder, **slow) as server, LLMBackendClient(server.url) as client:
            before = client.get_collection("cases")
            job_id = client.submit_job("reindex", {"collection": "cases"})
            _until(lambda: client.get_job_status(job_id).progress.done >= before.chunks // 2)
            _kill(server)
        first = _times_embedded(upstream)
        upstream.work = 0  # what comes after the kill need not be caught half way
        with serving(folder, workers=0) as server, LLMBackendClient(server.url) as client:
            # Of the old model, it is used as before; what is written now is embedded anew in the end.
            changed = [_short(number, 2) for number in range(0, 100, 2)]
            client.rag_ingest(changed, "cases")
            client.delete_documents("cases", [f"d{number}" for number in range(1, 100, 2)])
            client.rag_ingest([{"id": "new", "text": "Case new, edition 2."}], "cases")
            expected = _everything(client, tmp_path / "export")
            there, named, orphans = _physical(folder)
            assert (len(there), len(named), len(orphans)) == (2, 1, 1), "the half that is done is kept"
        with serving(folder, **slow) as server, LLMBackendClient(server.url) as client:
            report = client.wait_for_job(job_id, 120)
            assert client.get_job_status(job_id).attempts == 2
            assert (report.documents, report.chunks) == (SHORT - 50 + 1, sum(expected.values()))
            assert _everything(client, tmp_path / "export") == expected
            assert client.rag_ingest(changed, "cases").unchanged == len(changed)
            _until(lambda: _physical(folder)[2] == set())
            assert _physical(folder)[0] == _physical(folder)[1]
    again = _times_embedded(upstream) - Counter(dict.fromkeys(_times_embedded(upstream), 1))
    assert sum(first.values()) >= before.chunks // 2 > 3 * PAGE
    assert sum(again.values()) <= 3 * PAGE, "what was under way at the kill"


@pytest.mark.parametrize("state", ["running", "killed"])
def test_what_a_cancelled_job_had_made_is_removed(short: Path, tmp_path: Path, state: str) -> None:
    folder = tmp_path / "data"
    shutil.copytree(short, folder)
    with running() as upstream:
        slow = _slowly(upstream)
        with serving(folder, **slow) as server, LLMBackendClient(server.url) as client:
            job_id = client.submit_job("reindex", {"collection": "cases"})
            _until(lambda: client.get_job_status(job_id).progress.done > 0)
            if state == "running":
                client.cancel_job(job_id)
            else:
                _kill(server)
        if state == "killed":
            with serving(folder, workers=0) as server, LLMBackendClient(server.url) as client:
                client.cancel_job(job_id)
                assert len(_physical(folder)[2]) == 1
    with serving(folder) as server, LLMBackendClient(server.url) as client:
        _until(lambda: _physical(folder)[2] == set())
        there, named, _ = _physical(folder)
        assert there == named
        info = client.get_collection("cases")
        assert (info.documents, info.embedding_model) == (SHORT, client.health().embeddings)
        assert client.rag_search("Case 5 1", "cases") != []


def test_a_stopped_servers_reindex_goes_on_at_its_next_start(short: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(short, folder)
    with running() as upstream:
        slow = _slowly(upstream)
        with serving(folder, **slow) as server, LLMBackendClient(server.url) as client:
            chunks = client.get_collection("cases").chunks
            job_id = client.submit_job("reindex", {"collection": "cases"})
            _until(lambda: client.get_job_status(job_id).progress.done >= chunks // 2)
        upstream.work = 0
        with serving(folder, **slow) as server, LLMBackendClient(server.url) as client:
            assert client.wait_for_job(job_id, 120).chunks == chunks
        assert sum(_times_embedded(upstream).values()) <= chunks + 3 * PAGE
    assert _physical(folder)[0] == _physical(folder)[1]


@pytest.mark.long
@pytest.mark.parametrize("grown", [6000, GROWN])
def test_a_kill_while_the_graph_is_built(tmp_path: Path, grown: int) -> None:
    count = grown + 500
    setting = f"from llmbackend.knowledge.collections import index_building\nindex_building.GROWN = {grown}"
    texts = [
        {"id": f"d{number}", "text": f"Machine {number} in hall {number % 97}."} for number in range(count)
    ]
    with serving(tmp_path, first=setting) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(texts, "machines")
        first = _physical(tmp_path)[1]
        deadline = time.monotonic() + 60
        while not _physical(tmp_path)[2]:  # until it has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        _kill(server)
    with serving(tmp_path, first=setting) as server, LLMBackendClient(server.url) as client:
        assert client.get_collection("machines").documents == count  # and being opened, it is built again
        deadline = time.monotonic() + 120
        there, named, orphans = _physical(tmp_path)
        while named == first or (there, orphans) != (named, set()):
            assert time.monotonic() < deadline, (there, named, orphans)
            time.sleep(0.05)
            there, named, orphans = _physical(tmp_path)
        info = client.get_collection("machines")
        assert info.documents == info.chunks == count
        [best, *_] = client.rag_search(f"Machine {grown + 111} in hall", "machines", mode="sparse")
        assert best.document_id == f"d{grown + 111}"
