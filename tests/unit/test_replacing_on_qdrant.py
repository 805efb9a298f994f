"""A document on a Qdrant server while it is replaced: seen in one version at each moment, and in one for good."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from httpx import Headers
from qdrant_client import models
from qdrant_client.http.exceptions import UnexpectedResponse

from llmbackend import LLMBackendClient
from llmbackend.engines import bm25, qdrant_server, qdrant_sweeping
from llmbackend.engines.interface import Chunk, Layout, Physical
from llmbackend.engines.qdrant_server import QdrantServer, QdrantServerIndex
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.qdrant import CLOUD, OneAtATime, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CLOUD) as server:
        yield server


@pytest.fixture
def client(server: Server, tmp_path: Path) -> Iterator[LLMBackendClient]:
    with _client(server, tmp_path) as client:
        yield client


def _client(server: Server, folder: Path) -> LLMBackendClient:
    options = Settings(data_dir=folder, qdrant_url=server.url, upstream_timeout=20)
    return LLMBackendClient(transport=LocalTransport(options))


def _router(number: int) -> dict[str, Any]:
    return {
        "id": "router",
        "text": f"To reset the router, hold button number {number}.",
        "metadata": {"n": number},
    }


OTHER = {"id": "other", "text": "Employees get thirty days of vacation."}


def _points(server: OneAtATime) -> int:
    [one] = server.get_collections().collections
    return int(server.count(one.name, exact=True).count)


def test_it_is_there_once_at_each_moment(client: LLMBackendClient, server: Server) -> None:
    client.rag_ingest([_router(0), OTHER], "x")
    server.client.gap = 0.01
    wrong: list[Any] = []
    looks = 0
    stop = threading.Event()

    def search() -> None:
        nonlocal looks
        while not stop.is_set():
            for mode in ("dense", "sparse", "hybrid"):
                hits = client.rag_search("How is the router reset?", "x", mode=mode, top_k=3)  # type: ignore[arg-type]
                found = [hit.document_id for hit in hits]
                if found[:1] != ["router"] or found.count("router") != 1:
                    wrong.append((mode, found))
                looks += 1
            time.sleep(0.005)

    def look() -> None:
        while not stop.is_set():
            found = sorted(one.id for one in client.list_documents("x"))
            if found != ["other", "router"]:
                wrong.append(found)
            time.sleep(0.02)

    threads = [threading.Thread(target=work) for work in (search, look)]
    for thread in threads:
        thread.start()
    for number in range(1, 6):
        client.rag_ingest([_router(number)], "x")
    client.reindex_collection("x")
    stop.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert looks > 5


def test_what_was_superseded_is_found_nowhere_and_removed_later(
    client: LLMBackendClient, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(qdrant_sweeping, "GRACE", 0.5)
    client.rag_ingest([_router(0), OTHER], "x")
    client.rag_ingest([_router(1)], "x")
    assert _points(server.client) == 3, "it is there for those who have found it already"
    assert client.get_collection("x").documents == 2
    assert client.get_collection("x").chunks == 2
    assert [hit.metadata.get("n") for hit in client.rag_search("number 0", "x", mode="sparse")] == [1]
    assert client.rag_search("number 0", "x", filters={"n": 0}) == []
    assert client.export_collection("x", tmp_path / "x.jsonl").chunks == 2
    back = client.rag_ingest([_router(0)], "x")
    assert (back.updated, back.unchanged) == (1, 0)
    assert [hit.metadata.get("n") for hit in client.rag_search("number", "x", mode="sparse")] == [0]
    deadline = time.monotonic() + 10
    while _points(server.client) > 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert client.rag_ingest([_router(0), OTHER], "x").unchanged == 2


def test_closing_removes_it(server: Server, tmp_path: Path) -> None:
    with _client(server, tmp_path) as client:
        client.rag_ingest([_router(0), OTHER], "x")
        client.rag_ingest([_router(1)], "x")
    assert _points(server.client) == 2


def test_what_a_killed_process_had_superseded_is_removed_by_the_next(server: Server, tmp_path: Path) -> None:
    with _client(server, tmp_path) as client:
        client.rag_ingest([_router(0), OTHER], "x")
    [name] = [one.name for one in server.client.get_collections().collections]
    [old, *_], _ = server.client.scroll(name, with_vectors=True)
    left = models.PointStruct(
        id=str(uuid.uuid4()), vector=old.vector, payload={**old.payload, "hash": "h", "superseded": 1}
    )
    server.client.upsert(name, [left])
    (tmp_path / "collections" / f"{name.removeprefix('llmbackend_')}.in-use").touch()
    with _client(server, tmp_path) as client:
        assert sorted(one.id for one in client.list_documents("x")) == ["other", "router"]
    assert _points(server.client) == 2


@pytest.mark.parametrize("carried_out", [True, False])
def test_what_the_server_did_not_answer_to_loses_no_document(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, carried_out: bool
) -> None:
    monkeypatch.setattr(qdrant_sweeping, "GRACE", 0.2)
    away = threading.Event()
    supersede = server.client.set_payload

    def unanswered(*args: Any, **options: Any) -> Any:
        if not away.is_set():
            return supersede(*args, **options)
        if carried_out:
            supersede(*args, **options)
        raise UnexpectedResponse(503, "away", b"{}", Headers())

    monkeypatch.setattr(server.client, "set_payload", unanswered, raising=False)
    options = Settings(data_dir=tmp_path, qdrant_url=server.url, upstream_timeout=1)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.rag_ingest([_router(0), OTHER], "x")
        away.set()
        client.rag_ingest([_router(1)], "x")
        assert sorted(one.id for one in client.list_documents("x")) == ["other", "router"]
        [hit] = client.rag_search("router", "x", top_k=1)
        assert hit.document_id == "router"
        away.clear()
        deadline = time.monotonic() + 20
        while _points(server.client) != 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        [hit] = client.rag_search("router", "x", top_k=1)
        assert hit.text == _router(1)["text"]


# Two processes


def _two(tmp_path: Path) -> tuple[Any, Any]:
    server = OneAtATime(CLOUD)
    physical = Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)
    engines = [
        QdrantServer("http://in-memory", None, 10, tmp_path / name, writer=name, client=server)
        for name in ("a", "b")
    ]
    engines[0].create(physical.id, Layout(2))
    first, second = (one.open(physical) for one in engines)
    return first, second


def _write(index: Any, digest: str) -> None:
    chunks = [Chunk("d", digest, number, 3, f"text {digest} {number}") for number in (1, 2, 0)]
    index.upsert(chunks, np.ones((3, 2), np.float32))


ORDERS = [
    ["write a", "write b", "settle a", "settle b"],
    ["write a", "write b", "settle b", "settle a"],
    ["write b", "write a", "settle b", "settle a"],
    ["write a", "settle a", "write b", "settle b"],
]


@pytest.mark.parametrize("there", [True, False], ids=["replaced", "new"])
@pytest.mark.parametrize("order", ORDERS, ids=lambda order: ", ".join(order))
def test_of_two_that_write_one_document_at_once_the_last_stays(
    tmp_path: Path, order: list[str], there: bool
) -> None:
    indexes = dict(zip("ab", _two(tmp_path), strict=True))
    if there:
        _write(indexes["a"], "old")
    for step in order:
        what, who = step.split()
        if what == "write":
            last = who
            _write(indexes[who], f"of {who}")
        else:
            indexes[who].keep_only([("d", f"of {who}")])
    for index in indexes.values():
        assert [(head.document_id, head.hash) for head in index.documents(10, None).heads] == [
            ("d", f"of {last}")
        ]
        assert index.count() == (1, 3)
        assert {chunk.hash for chunk in index.read(10, None).chunks} == {f"of {last}"}
        index.close()


def test_what_another_is_still_writing_is_left_to_it(tmp_path: Path) -> None:
    first, second = _two(tmp_path)
    _write(first, "old")
    long = [Chunk("d", "long", number, 3, f"text {number}") for number in (1, 2, 0)]
    second.upsert(long[:2], np.ones((2, 2), np.float32))
    _write(first, "short")
    first.keep_only([("d", "short")])
    second.upsert(long[2:], np.ones((1, 2), np.float32))
    second.keep_only([("d", "long")])
    assert first.count() == (1, 3)
    assert {chunk.number for chunk in first.read(10, None).chunks if chunk.hash == "long"} == {0, 1, 2}
    first.close()
    second.close()


def test_a_clock_that_is_behind_loses_no_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = _two(tmp_path)
    _write(first, "first")
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now - 3600 * 10**9)
    assert second.known(["d"]) == {"d": {"first"}}
    _write(second, "second")
    second.keep_only([("d", "second")])
    monkeypatch.undo()
    assert [head.hash for head in first.documents(10, None).heads] == ["second"]
    first.close()
    second.close()


def test_a_search_asks_the_server_no_more_often_than_it_needs(
    client: LLMBackendClient, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_sweeping, "GRACE", 600.0)  # what is superseded stays for the whole test

    def sheets(edition: str) -> list[dict[str, Any]]:
        return [{"id": f"d{n}", "text": f"Sheet {n} of the {edition} edition."} for n in range(30)]

    def asked(mode: Any) -> list[str]:
        server.client.calls.clear()
        assert len(client.rag_search("sheet", "sheets", mode=mode, top_k=3)) == 3
        return sorted(server.client.calls)

    client.rag_ingest(sheets("first"), "sheets")
    asked("hybrid")
    assert asked("dense") == asked("sparse") == ["query_points"]
    assert asked("hybrid") == ["query_points", "query_points"]  # at the same time
    client.rag_ingest(sheets("second"), "sheets")
    assert asked("hybrid") == ["query_points", "query_points"]
    assert asked("dense") == ["query_points"]
    # Of long passages only those are read that are shown.
    monkeypatch.setattr(qdrant_server, "ALONG", 100)
    assert asked("hybrid") == ["query_points", "query_points", "retrieve"]
    assert asked("sparse") == ["query_points"]


def test_what_was_just_written_is_not_read_again(
    client: LLMBackendClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    scroll = QdrantServerIndex._scroll

    def noted(self: QdrantServerIndex, *args: Any, **options: Any) -> Any:
        records, following = scroll(self, *args, **options)
        read.extend(record.payload["document_id"] for record in records)
        return records, following

    client.rag_ingest([OTHER], "x")
    monkeypatch.setattr(QdrantServerIndex, "_scroll", noted)
    assert client.rag_ingest([_router(0)], "x").added == 1
    assert read == []
    assert client.rag_ingest([_router(1)], "x").updated == 1
    assert set(read) == {"router"}
    assert [one.id for one in client.list_documents("x")].count("router") == 1
