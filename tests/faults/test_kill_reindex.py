"""Processes killed while a collection is being reindexed: it is wholly what it was, or wholly the new one."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, LLMBackendError
from llmbackend.knowledge.collections.index_building import GROWN
from tests.server import Server, serving

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


def _physical(folder: Path) -> tuple[set[str], set[str], set[str]]:
    """Folders there are, folders that manifests name, and folders that are loose."""
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        named = {
            physical or made for physical, made in connection.execute("SELECT physical, id FROM collections")
        }
        loose = {physical for (physical,) in connection.execute("SELECT physical FROM loose_collections")}
    return {path.name for path in (folder / "collections").iterdir()}, named, loose


def _kill(server: Server) -> None:
    server.process.kill()
    server.process.wait()


@pytest.mark.parametrize("moment", range(10))
def test_a_kill_at_a_random_moment(original: Path, tmp_path: Path, moment: int) -> None:
    folder = tmp_path / "data"
    shutil.copytree(original, folder)
    steps: list[Any] = []
    written = threading.Event()
    acknowledged: list[str] = []

    with serving(folder) as server, LLMBackendClient(server.url) as client:
        began = time.monotonic()
        client.reindex_collection("cases")
        usual = time.monotonic() - began

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
        there, named, loose = _physical(folder)
        assert (there, loose) == (named, set()), "no orphan"
        # It can be used as ever.
        again = client.rag_ingest([_document(number, 2) for number in CHANGED], "cases")
        assert again.unchanged + again.updated == len(CHANGED)
        assert client.reindex_collection("cases").documents == info.documents
        assert client.get_collection("cases").documents == info.documents
        [best, *_] = client.rag_search("Case 12991, edition 1", "cases")
        assert best.document_id == "d419"


def test_a_kill_while_the_graph_is_built(tmp_path: Path) -> None:
    count = GROWN + 500
    texts = [
        {"id": f"d{number}", "text": f"Machine {number} in hall {number % 97}."} for number in range(count)
    ]
    with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
        client.rag_ingest(texts, "machines")
        first = _physical(tmp_path)[1]
        deadline = time.monotonic() + 60
        while not _physical(tmp_path)[2]:  # until it has begun
            assert time.monotonic() < deadline
            time.sleep(0.01)
        _kill(server)
    with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
        assert client.get_collection("machines").documents == count  # and being opened, it is built again
        deadline = time.monotonic() + 120
        while _physical(tmp_path)[1] == first or _physical(tmp_path)[2]:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        there, named, loose = _physical(tmp_path)
        assert (there, loose) == (named, set())
        info = client.get_collection("machines")
        assert info.documents == info.chunks == count
        [best, *_] = client.rag_search("Machine 20111 in hall", "machines", mode="sparse")
        assert best.document_id == "d20111"
