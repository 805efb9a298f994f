"""A Qdrant server that restarts, is busy, loses nodes or is slow, in the middle of reads and writes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from qdrant_client.http.exceptions import UnexpectedResponse

from llmbackend import BackendError, InvalidRequest, backoff
from llmbackend.engines import qdrant_server, qdrant_sweeping
from tests.qdrant import Connect, Prepared, Server, connecting, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def connect(server: Server, tmp_path: Path) -> Iterator[Connect]:
    with connecting(server.url, tmp_path, upstream_timeout=30) as connect:
        yield connect


def _sheets(start: int, end: int) -> list[dict[str, Any]]:
    return [{"id": f"d{n}", "text": f"Sheet number {n}."} for n in range(start, end)]


def _restart(server: Server, seconds: float) -> None:
    server.stop()
    time.sleep(seconds)
    server.start()


def test_an_ingest_outlasts_restarts(connect: Connect, server: Server) -> None:
    client = connect()
    client.rag_ingest(_sheets(0, 1), "x")
    done = threading.Event()

    def outages() -> None:
        for _ in range(3):
            time.sleep(0.2)
            _restart(server, 0.4)
        done.set()

    thread = threading.Thread(target=outages)
    thread.start()
    count = 1
    while not done.is_set():
        assert client.rag_ingest(_sheets(count, count + 10), "x").added == 10
        assert len(client.rag_search("sheet", "x", top_k=3)) == 3
        count += 10
    thread.join()
    assert sorted(one.id for one in client.list_documents("x")) == sorted(f"d{n}" for n in range(count))
    assert client.get_collection("x").chunks == count


@pytest.mark.long
def test_an_ingest_of_20000_documents_outlasts_restarts(connect: Connect, server: Server) -> None:
    client = connect()
    under_way, outages = threading.Event(), 0

    def restart() -> None:
        nonlocal outages
        for _ in range(3):
            under_way.wait()
            time.sleep(2)
            _restart(server, 3)
            outages += 1

    thread = threading.Thread(target=restart)
    thread.start()

    def documents() -> Iterator[dict[str, Any]]:
        for sheet in _sheets(0, 20_000):
            under_way.set()
            yield sheet

    assert client.rag_ingest(documents(), "x").added == 20_000
    thread.join()
    assert outages == 3
    assert client.get_collection("x").documents == client.get_collection("x").chunks == 20_000
    assert {one.id for one in client.list_documents("x")} == {f"d{n}" for n in range(20_000)}


PASSING = [
    Prepared(429),
    Prepared(429, headers={"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"}),
    Prepared(408),
    Prepared(500, "Service internal error: 1 of 1 read operations failed"),
    Prepared(503),
    Prepared(400, "Wrong input: Not enough healthy replicas to satisfy write_consistency_factor"),
    Prepared(502, after=True),
]


def test_what_passes_is_asked_again(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_PAUSE", 0.01)
    client = connect()
    for number, answer in enumerate(PASSING):
        name = f"x{number}"
        for work in (
            lambda name: client.create_collection(name).documents == 0,
            lambda name: client.rag_ingest(_sheets(0, 3), name).added == 3,
            lambda name: client.rag_ingest([{"id": "d0", "text": "Changed."}], name).updated == 1,
            lambda name: len(client.rag_search("sheet", name)) == 3,
            lambda name: client.get_collection(name).documents == 3,
            lambda name: client.delete_documents(name, ["d0"]).deleted == 1,
        ):
            server.client.prepared = [answer]
            assert work(name), answer
            assert not server.client.prepared
    server.client.prepared = [Prepared(429, headers={"Retry-After": "1"})]
    began = time.monotonic()
    assert client.delete_collection("x0").documents == 2
    assert time.monotonic() - began >= 1


def test_a_server_gone_for_long_fails_the_ingest_and_nothing_stays_half_written(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_sweeping, "GRACE", 0.2)
    monkeypatch.setattr(qdrant_server, "WRITE_BATCH", 3)
    client = connect(upstream_timeout=1)
    long = [{"id": "long", "text": " ".join(f"Sentence {n} about item {n * 31 % 97}." for n in range(400))}]
    client.rag_ingest(_sheets(0, 3), "x", chunk_size=64)
    upsert = server.client.upsert
    written = 0

    def away_after_two(*args: Any, **options: Any) -> Any:
        nonlocal written
        written += 1
        if written == 3:
            server.client.prepared = [Prepared(503)] * 1000
            server.client.refusals["upsert"] = "gone"
        return upsert(*args, **options)

    server.client.__dict__["upsert"] = away_after_two
    with pytest.raises(BackendError):
        client.rag_ingest(long, "x")
    assert written >= 3
    del server.client.__dict__["upsert"]
    server.client.refusals.clear()
    server.client.prepared.clear()
    deadline = time.monotonic() + 10
    while client.get_collection("x").chunks > 3:
        assert time.monotonic() < deadline, "what was half written is removed once the server is back"
        time.sleep(0.1)
    assert sorted(one.id for one in client.list_documents("x")) == ["d0", "d1", "d2"]
    assert client.rag_ingest(long, "x").added == 1


def test_a_write_that_fails_is_told_by_its_own_reason_and_is_not_waited_for_twice(
    connect: Connect, server: Server
) -> None:
    client = connect(upstream_timeout=2)
    client.rag_ingest(_sheets(0, 1), "x")
    server.client.refusals["upsert"] = "the reason"
    delete = server.client.delete
    refused = 0

    def away(*args: Any, **options: Any) -> Any:
        nonlocal refused
        refused += 1
        if refused == 1:
            server.client.prepared = [Prepared(503)] * 1000  # from now on
            raise UnexpectedResponse(503, "", b"", httpx.Headers())
        return delete(*args, **options)

    server.client.__dict__["delete"] = away
    with pytest.raises(BackendError, match="the reason"):
        client.rag_ingest(_sheets(1, 2), "x")
    assert refused == 1, "the removal of what was half written is left to later"
    server.client.refusals.clear()
    server.client.prepared.clear()


def test_of_several_addresses_those_that_answer_are_asked(connect: Connect, server: Server) -> None:
    with serving() as other:
        other.client = server.client  # two nodes of a cluster
        client = connect(qdrant_url=f"{server.url},{other.url}")
        client.rag_ingest(_sheets(0, 3), "x")
        for node in (server, other, server):
            node.stop()
            began = time.monotonic()
            assert client.rag_ingest([{"id": "d0", "text": f"At {began}."}], "x").updated == 1
            assert len(client.rag_search("sheet", "x")) == 3
            node.start()


def test_a_batch_that_takes_too_long_is_halved(connect: Connect, server: Server) -> None:
    client = connect(upstream_timeout=2)
    client.create_collection("x")
    server.client.slow_from, server.client.slow = 20, 4
    assert client.rag_ingest(_sheets(0, 60), "x").added == 60
    assert client.get_collection("x").documents == 60


def test_requests_are_bounded_by_their_bytes(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_server, "WRITE_BYTES", 100_000)
    client = connect()
    heavy = [{**one, "metadata": {"note": "ä" * 20_000}} for one in _sheets(0, 20)]
    client.rag_ingest(heavy, "x")
    assert max(server.client.sizes) < 200_000
    server.client.largest = 150_000
    monkeypatch.setattr(qdrant_server, "WRITE_BYTES", 10**9)
    client.rag_ingest([{**one, "id": f"again {one['id']}"} for one in heavy], "x")
    assert client.get_collection("x").documents == 40
    server.client.largest = 30_000
    with pytest.raises(
        InvalidRequest, match=r"document 'big': the metadata of its chunk 0 .* bytes"
    ) as caught:
        client.rag_ingest([{"id": "big", "text": "Short.", "metadata": {"note": "x" * 60_000}}], "x")
    assert caught.value.details["document_id"] == "big"
    assert client.get_collection("x").documents == 40
