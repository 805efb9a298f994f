"""Graphs built in the background, data directories of older versions, and orphans that a kill left."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient, NotFound, schemas
from llmbackend.access.names import QualifiedName
from llmbackend.backend import Backend
from llmbackend.engines import bm25, edge_filtering
from llmbackend.engines.edge_build import built
from llmbackend.engines.interface import Chunk, Layout, Physical
from llmbackend.engines.qdrant_edge import EdgeIndex, QdrantEdge
from llmbackend.knowledge.collections import index_building
from llmbackend.knowledge.collections.index_building import IndexBuilder
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

pytestmark = pytest.mark.usefixtures("in_default")


def _in_a_backend(folder: Path, work: Callable[[Backend], Awaitable[None]]) -> None:
    async def run() -> None:
        backend = await Backend.open(Settings(data_dir=folder))
        try:
            await work(backend)
        finally:
            await backend.close()

    asyncio.run(run())


def _documents(count: int, edition: int = 1) -> list[Any]:
    return [
        schemas.Document(id=f"d{number}", text=f"Machine {number}, edition {edition}, hall {number % 97}.")
        for number in range(count)
    ]


async def _ingest(backend: Backend, documents: list[Any]) -> schemas.IngestReport:
    return await backend.rag_ingest(schemas.RagIngestRequest(documents=documents, collection="machines"))


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        await asyncio.sleep(0.02)


def _folders(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "collections").iterdir() if path.is_dir())


GROWN = 6_000  # 256 dimensions: enough for the engine to build a graph


async def _eager(backend: Backend) -> IndexBuilder:
    """The backend's builder, which takes less for large."""
    builder = backend.parts.index_builder
    builder._grown = GROWN
    return builder


@pytest.mark.long
def test_a_large_ingest_gets_a_graph_in_the_background(tmp_path: Path) -> None:
    async def work(backend: Backend) -> None:
        builder = await _eager(backend)
        collection = await backend._collections.create(QualifiedName("default", "machines"), None, None)
        first = collection.manifest
        await _ingest(backend, _documents(GROWN - 1))
        assert collection.manifest == first  # not yet
        await _ingest(backend, _documents(GROWN))
        await _until(lambda: len(_folders(tmp_path)) == 2)
        # While it is being built, documents are changed and deleted.
        await _ingest(backend, _documents(50, edition=2))
        await backend.delete_documents(
            schemas.DeleteDocumentsRequest(collection="machines", ids=[f"d{n}" for n in range(100, 200)])
        )
        await _until(lambda: collection.manifest != first)
        built = collection.manifest
        assert (built.id, built.engine, built.indexed) == (first.id, "edge", GROWN)
        await _until(lambda: _folders(tmp_path) == [built.physical_collection.id])
        assert await collection.count() == (GROWN - 100, GROWN - 100)
        edge_dir = tmp_path / "collections" / built.physical_collection.id
        assert list(edge_dir.glob("segments/*/vector_index-dense/*graph*")), "there is a graph"
        assert (await _ingest(backend, _documents(50, edition=2))).unchanged == 50
        hits = await backend.rag_search(
            schemas.RagSearchRequest(query="Machine 7", collection="machines", top_k=1, mode="sparse")
        )
        assert hits.hits[0].text.startswith("Machine 7, edition 2")
        builder._grown = 1000  # a reindexed collection gets its graph, too
        await backend.reindex_collection(schemas.ReindexRequest(collection="machines"))
        await _until(lambda: collection.manifest.indexed == GROWN - 100)

    _in_a_backend(tmp_path, work)
    _in_a_backend(tmp_path, _is_whole)


async def _is_whole(backend: Backend) -> None:
    described = await backend.get_collection(schemas.CollectionRequest(collection="machines"))
    assert described.documents == described.chunks == GROWN - 100


def test_a_collection_may_be_deleted_at_the_moment_of_its_exchange(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(backend: Backend) -> None:
        await _ingest(backend, _documents(10))
        manifests = backend._collections.manifests
        swap, swapped, go_on = manifests.swap, threading.Event(), threading.Event()

        def slowly(*args: Any, **options: Any) -> None:
            swap(*args, **options)
            swapped.set()
            go_on.wait(60)

        monkeypatch.setattr(manifests, "swap", slowly)
        request = schemas.ReindexRequest(collection="machines")
        reindexing = asyncio.create_task(backend.reindex_collection(request))
        await _until(swapped.is_set)
        deleting = asyncio.create_task(
            backend.delete_collection(schemas.CollectionRequest(collection="machines"))
        )
        await asyncio.wait([deleting], timeout=0.2)
        go_on.set()
        await deleting
        with suppress(Conflict, NotFound):  # it may have been through by then
            await reindexing
        assert backend._collections.names() == []
        await _until(lambda: _folders(tmp_path) == [])

    _in_a_backend(tmp_path, work)


def test_closing_ends_the_building_and_leaves_nothing(tmp_path: Path) -> None:
    async def work(backend: Backend) -> None:
        await _eager(backend)
        await _ingest(backend, _documents(GROWN))
        await _until(lambda: len(_folders(tmp_path)) == 2)

    _in_a_backend(tmp_path, work)
    assert len(_folders(tmp_path)) == 1

    async def again(backend: Backend) -> None:
        described = await backend.get_collection(schemas.CollectionRequest(collection="machines"))
        assert described.documents == GROWN

    _in_a_backend(tmp_path, again)


def test_declared_fields_are_indexed_in_the_background(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_filtering, "COLUMNS_FROM", 50)
    documents = [
        schemas.Document(id=f"d{n}", text=f"Machine {n}.", metadata={"hall": f"h{n % 20}", "n": n})
        for n in range(60)
    ]

    async def found(backend: Backend, filters: dict[str, Any]) -> set[str]:
        request = schemas.RagSearchRequest(query="machine", collection="machines", filters=filters, top_k=60)
        return {hit.document_id for hit in (await backend.rag_search(request)).hits}

    async def described(backend: Backend) -> schemas.CollectionInfo:
        return await backend.get_collection(schemas.CollectionRequest(collection="machines"))

    async def work(backend: Backend) -> None:
        await _ingest(backend, documents[:40])
        assert await found(backend, {"hall": "h3"}) == {"d3", "d23"}
        await _ingest(backend, documents)
        collection = await backend._collections.get(QualifiedName("default", "machines"))
        assert await found(backend, {"hall": "h3", "n": {"gte": 20}}) == {"d23", "d43"}
        assert (await described(backend)).indexes == {}, "what filters ask for is not declared by that"
        await backend.set_indexes(
            schemas.SetIndexesRequest(collection="machines", indexes={"hall": "keyword", "n": "float"})
        )
        await _until(lambda: not collection._index.lacks({"hall": "keyword", "n": "float"}))
        assert await found(backend, {"hall": "h3", "n": {"gte": 20}}) == {"d23", "d43"}
        await backend.set_indexes(schemas.SetIndexesRequest(collection="machines", indexes={"n": None}))
        await backend.reindex_collection(schemas.ReindexRequest(collection="machines"))
        assert not await collection.lacks({"hall": "keyword"})
        assert await found(backend, {"hall": ["h3"], "n": {"lt": 30}}) == {"d3", "d23"}
        assert (await described(backend)).documents == 60

    _in_a_backend(tmp_path, work)


def test_what_is_no_shard_gets_no_graph(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="indexes"):
        asyncio.run(built(tmp_path / "file", Layout(2), "graph"))


def test_a_panic_of_the_process_that_builds_a_graph_is_an_error(tmp_path: Path) -> None:
    dimension = 1024
    EdgeIndex.create(tmp_path / "shard", dimension)
    index = EdgeIndex(tmp_path / "shard", Physical("shard", uuid.uuid4(), bm25.NAME))
    chunks = [Chunk(f"d{number}", "h", 0, 1, "a text") for number in range(1500)]
    index.upsert(chunks, np.random.default_rng(1).standard_normal((1500, dimension)).astype(np.float32))
    index.close()
    (tracker,) = (tmp_path / "shard").glob("segments/*/payload_storage/tracker.dat")
    tracker.write_bytes(b"\xff" * 4096 + tracker.read_bytes()[4096:])
    with pytest.raises(BackendError, match="building the indexes: pyo3_runtime\\.PanicException"):
        asyncio.run(built(tmp_path / "shard", Layout(dimension), "graph"))


def test_what_is_written_while_a_graph_is_built_is_counted_once_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(backend: Backend) -> None:
        builder = backend.parts.index_builder
        builder._grown = 1
        building, go_on = asyncio.Event(), asyncio.Event()
        looked_at: list[str] = []
        due = builder._due

        async def build(*args: Any, graph: bool) -> None:
            building.set()
            await go_on.wait()

        async def counted(collection: Any) -> tuple[bool, bool]:
            looked_at.append(collection.manifest.name)
            return await due(collection)

        monkeypatch.setattr(index_building, "build_indexes", build)
        monkeypatch.setattr(builder, "_due", counted)
        await _ingest(backend, _documents(2))
        await building.wait()
        looked_at.clear()
        for edition in range(10):
            await _ingest(backend, _documents(2, edition=edition + 2))
        go_on.set()
        await _until(lambda: bool(looked_at) and not builder._collections.written._waiting)
        assert looked_at == ["machines"]

    _in_a_backend(tmp_path, work)


def test_a_copy_has_everything_and_can_be_written_to(tmp_path: Path) -> None:
    edge = QdrantEdge(tmp_path)
    original = Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)
    edge.create(original.id, Layout(2))
    index = edge.open(original)
    chunks = [Chunk(f"d{number}", "v1", 0, 1, f"text {number}") for number in range(300)]
    index.upsert(chunks, np.ones((300, 2), dtype=np.float32))
    index.flush()
    copied = original._replace(id=str(uuid.uuid4()))
    edge.copy(original.id, copied.id, is_open=True)
    index.close()
    copy = edge.open(copied)
    assert copy.count() == (300, 300)
    assert copy.stored([("d7", "v1")]) == {"d7"}
    assert copy.delete(["d7", "d8"]) == 2
    copy.upsert([Chunk("d8", "v2", 0, 1, "text 8, changed")], np.ones((1, 2), dtype=np.float32))
    assert copy.count() == (299, 299)
    copy.close()


# Data directories of before

OLD_TABLE = """CREATE TABLE collections (name VARCHAR(128) PRIMARY KEY, id VARCHAR(36) NOT NULL UNIQUE,
embedding_model VARCHAR(512) NOT NULL, dimension INTEGER NOT NULL, chunk_size INTEGER NOT NULL,
chunk_overlap INTEGER NOT NULL, created_at VARCHAR(32) NOT NULL)"""


def _as_version_0_1(folder: Path) -> None:
    """Make a data directory what the first version would have left: its table, Edge's own BM25, no `place`."""
    import qdrant_edge as edge

    with closing(sqlite3.connect(folder / "state.db")) as connection, connection:
        rows = connection.execute(
            "SELECT name, id, embedding_model, dimension, chunk_size, chunk_overlap, created_at FROM collections"
        ).fetchall()
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in tables:
            if not name.startswith("job"):  # none of the others was there
                connection.execute(f"DROP TABLE {name}")
        connection.execute(OLD_TABLE)
        connection.executemany("INSERT INTO collections VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    shard = edge.EdgeShard.load(str(folder / "collections" / rows[0][1]))
    records, _ = shard.scroll(edge.ScrollRequest(limit=100, with_payload=True, with_vector=True))
    old = edge.Bm25()
    for record in records:
        vector = {"dense": record.vector["dense"], "bm25": old.embed_document(record.payload["text"])}
        payload = {name: value for name, value in record.payload.items() if name != "place"}
        point = edge.Point(id=record.id, vector=vector, payload=payload)
        shard.update(edge.UpdateOperation.upsert_points([point]))
    shard.flush()
    shard.close()


def test_a_data_directory_of_the_first_version_opens(tmp_path: Path) -> None:
    texts = ["The router has four ports.", "Running water is found in the hall.", "Nothing else."]
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        client.rag_ingest(texts, "old")
    _as_version_0_1(tmp_path)
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        info = client.get_collection("old")
        assert (info.sparse_model, info.documents) == ("bm25-english", 3)
        for mode in ("sparse", "hybrid", "dense"):
            assert client.rag_search("runs", "old", mode=mode)[0].text == texts[1]  # type: ignore[arg-type]
        assert client.rag_ingest([*texts, "Waters run deep."], "old").unchanged == 3
        assert len(client.rag_search("run", "old", mode="sparse")) == 2
        client.reindex_collection("old")
        assert client.get_collection("old").sparse_model == bm25.NAME
        assert len(client.rag_search("run", "old", mode="sparse")) == 2


def test_a_collection_keeps_the_words_that_it_was_made_with(tmp_path: Path) -> None:
    def client() -> LLMBackendClient:
        return LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path)))

    with client() as first:
        first.create_collection("old")
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("UPDATE collections SET sparse_model = 'bm25-multilingual'")
    with client() as again:
        again.rag_ingest(["in C++ by getUserName", "ภาษาไทย", "the café of 1.234,56"], "old")
        for query in ("getusername", "ภาษาไทย", "café", "1,234.56", "c"):
            assert len(again.rag_search(query, "old", mode="sparse")) == 1, query
        newer = ("user name", "cafe")
        assert [len(again.rag_search(query, "old", mode="sparse")) for query in newer] == [0, 0]
        again.reindex_collection("old")
        assert again.get_collection("old").sparse_model == bm25.NAME
        assert [len(again.rag_search(query, "old", mode="sparse")) for query in newer] == [1, 1]
        assert again.rag_search("c", "old", mode="sparse") == []


def test_another_sparse_model_is_refused_and_repaired(tmp_path: Path) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        client.rag_ingest("The router has four ports.", "notes")
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("UPDATE collections SET sparse_model = 'bm25-of-tomorrow'")
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        for refused in (
            lambda: client.rag_search("ports", "notes"),
            lambda: client.rag_ingest("More.", "notes"),
        ):
            with pytest.raises(Conflict, match="reindex_collection") as caught:
                refused()
            assert "bm25-of-tomorrow" in caught.value.message
        assert client.get_collection("notes").documents == 1
        client.reindex_collection("notes")
        assert len(client.rag_search("ports", "notes", mode="sparse")) == 1


def test_what_a_kill_left_loose_goes_at_the_next_start(tmp_path: Path) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        client.rag_ingest("A text.", "notes")
    [folder] = _folders(tmp_path)
    for name in ("unfinished", "unknown"):
        shutil.copytree(tmp_path / "collections" / folder, tmp_path / "collections" / name)
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        holder = (tmp_path / "name").read_text()
        rows = [
            ("unfinished", "edge", holder),
            ("never-made", "edge", holder),
            ("elsewhere", "qdrant", holder),
            ("unknown", "edge", "another"),
        ]
        connection.executemany(
            "INSERT INTO loose_collections (physical, engine, holder) VALUES (?, ?, ?)", rows
        )
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        assert client.get_collection("notes").documents == 1
    assert _folders(tmp_path) == sorted([folder, "unknown"]), "what others are at is not ours to remove"
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        left = connection.execute("SELECT physical FROM loose_collections ORDER BY physical").fetchall()
    assert left == [("elsewhere",), ("unknown",)], "the former is removed once that engine is there again"


def test_a_collection_on_a_server_that_is_not_set_is_told(tmp_path: Path) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        client.rag_ingest("A text.", "notes")
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.execute("UPDATE collections SET engine = 'qdrant'")
    with (
        LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client,
        pytest.raises(Conflict, match="QDRANT_URL"),
    ):
        client.rag_search("text", "notes")
