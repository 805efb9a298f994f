"""A search in process beside the bare engine's query of the same kind, and how much approximate search misses."""

from __future__ import annotations

import asyncio
import gc
import random
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from llmbackend import AsyncLLMBackendClient, LLMBackendClient
from llmbackend.access.names import QualifiedName
from llmbackend.async_local import AsyncLocalTransport, LoopCore
from llmbackend.engines.fusion import depth
from llmbackend.engines.interface import LISTS, Chunk, Mode, Search
from llmbackend.engines.qdrant import DENSE, SPARSE
from llmbackend.engines.qdrant_edge import EdgeIndex
from llmbackend.knowledge.collections.index_building import GROWN
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3 * 3600)]

Table = Callable[..., None]

BATCH, CLUSTER = 2_000, 100  # chunks
WORDS, VOCABULARY = 60, 50_000
TOP, QUERIES, ROUNDS = 10, 100, 3


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "points" in metafunc.fixturenames:
        metafunc.parametrize("points", metafunc.config.getoption("--points", None) or [10_000, 25_000])


class Corpus:
    """Clustered unit vectors (a centre, and noise as long as two thirds of it) and texts of words as frequent as in language."""

    def __init__(self, points: int, dimension: int) -> None:
        self._random = np.random.default_rng(7)
        self._centres = self._random.normal(size=(max(1, points // CLUSTER), dimension)).astype(np.float32)
        names = random.Random(7)
        letters = "bcdfghjklmnprstvw"
        self._words = np.array(
            [
                "".join(names.choice(letters) + names.choice("aeiou") for _ in range(4))
                for _ in range(VOCABULARY)
            ]
        )
        frequency = 1 / np.arange(1, VOCABULARY + 1)
        self._frequency = frequency / frequency.sum()

    def vectors(self, count: int) -> NDArray[np.float32]:
        centres = self._centres[self._random.integers(0, len(self._centres), count)]
        noise = self._random.normal(scale=2 / 3, size=centres.shape).astype(np.float32)
        vectors = centres + noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)

    def texts(self, count: int, words: int = WORDS) -> list[str]:
        chosen = self._random.choice(self._words, size=(count, words), p=self._frequency)
        return [" ".join(row) for row in chosen]


def _milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def _disk(folder: Path) -> float:
    """Megabytes that the files take."""
    return sum(file.stat().st_blocks * 512 for file in folder.rglob("*") if file.is_file()) / 2**20


@pytest.fixture
def transport(tmp_path: Path) -> Iterator[LocalTransport]:
    transport = LocalTransport(Settings(data_dir=tmp_path))
    yield transport
    transport.close()


def test_search_beside_the_bare_engine(
    transport: LocalTransport, tmp_path: Path, points: int, table: Table
) -> None:
    client = LLMBackendClient(transport=transport)
    core = transport._core
    assert core is not None
    collections = core.backend._collections
    client.create_collection("corpus")
    collection = core.portal.call(collections.get, QualifiedName("default", "corpus"))
    corpus = Corpus(points, collection.manifest.dimension)

    began = time.perf_counter()
    for start in range(0, points, BATCH):
        size = min(BATCH, points - start)
        texts = corpus.texts(size)
        chunks = [Chunk(f"d{start + number}", "v1", 0, 1, text) for number, text in enumerate(texts)]
        versions = [(chunk.document_id, chunk.hash) for chunk in chunks]
        core.portal.call(collection.upsert, versions, chunks, corpus.vectors(size))
    core.portal.call(collection.flush)
    written = time.perf_counter() - began
    queries = corpus.texts(QUERIES, words=6)
    embedding = _clocked(core.backend._embedder)

    def medians() -> tuple[float, float]:
        """Of ours, less the time for the query's vector, and the bare engine's, in milliseconds, taking turns."""
        index = collection._index
        assert isinstance(index, EdgeIndex)
        requests = [_request(index, query, _vector(core, query)) for query in queries]
        for query, request in zip(queries, requests, strict=True):  # what was asked once is cached
            assert client.rag_search(query, "corpus", top_k=TOP) != []
            index._shard.query(request)
        gc.collect()
        gc.freeze()  # what the filling and pytest left
        ours, bare = [], []
        for query, request in _turns(queries, requests):
            embedding.clear()
            taken = _milliseconds(partial(client.rag_search, query, "corpus", top_k=TOP))
            ours.append(taken - sum(embedding))
            bare.append(_milliseconds(partial(index._shard.query, request)))
        return statistics.median(ours), statistics.median(bare)

    rows: list[tuple[object, ...]] = [("", "rag_search ms", "bare query ms", "ratio", f"recall@{TOP}")]
    graph = points >= GROWN
    if graph:  # before the builder is through; it is nice
        ours, bare = medians() if collection.manifest.indexed == 0 else (0.0, 0.0)
        rows.append(("while the graph is built", ours, bare, ours / bare if bare else "-", "-"))
        began = time.perf_counter()
        while collection.manifest.indexed == 0 or len(list((tmp_path / "collections").iterdir())) > 1:
            time.sleep(0.2)
        built = time.perf_counter() - began
    ours, bare = medians()
    recall = _recall(collection, corpus)
    rows.append(("with a graph" if graph else "without a graph", ours, bare, ours / bare, recall))
    transport.close()
    awaited = asyncio.run(_awaited(tmp_path, queries))
    rows += [(f"awaited, {mode}", *both, both[0] / both[1], "-") for mode, both in awaited.items()]
    table(f"{points:,} chunks of {collection.manifest.dimension} dimensions and {WORDS} words", *rows)
    memory = psutil.Process().memory_info().rss / 2**20
    print(f"    written in {written:.0f} s{f', graph after {built:.0f} s more' if graph else ''}")
    print(f"    {memory:,.0f} MB of memory (with pages of files), {_disk(tmp_path):,.0f} MB of disk")
    assert ours / bare <= (1.75 if graph else 2.6)
    ours, bare = awaited["hybrid"]
    assert ours / bare <= (1.7 if graph else 2.2)
    assert recall >= 0.97


async def _awaited(folder: Path, queries: list[str]) -> dict[Mode, tuple[float, float]]:
    """The same medians of the client for `await`, on this loop, for each mode."""
    transport = AsyncLocalTransport(Settings(data_dir=folder))
    found: dict[Mode, tuple[float, float]] = {}
    async with AsyncLLMBackendClient(transport=transport) as client:
        await client.rag_search(queries[0], "corpus")
        assert isinstance(transport._core, LoopCore)
        backend = transport._core._opening.result()
        index = (await backend._collections.get(QualifiedName("default", "corpus")))._index
        assert isinstance(index, EdgeIndex)
        vectors = [(await backend._embedder.embed([query])).values[0] for query in queries]
        embedding = _clocked(backend._embedder)
        for mode in LISTS:
            requests = [_request(index, *given, mode) for given in zip(queries, vectors, strict=True)]
            gc.collect()
            gc.freeze()
            ours, bare = [], []
            for query, request in _turns(queries, requests):
                embedding.clear()
                began = time.perf_counter()
                await client.rag_search(query, "corpus", top_k=TOP, mode=mode)
                ours.append(1000 * (time.perf_counter() - began) - sum(embedding))
                bare.append(_milliseconds(partial(index._shard.query, request)))
            found[mode] = statistics.median(ours), statistics.median(bare)
    return found


def _turns(queries: list[str], requests: list[Any]) -> list[tuple[str, Any]]:
    """Ours and the engine's next query: each is one that the other did not just bring into the processor's cache."""
    others = requests[QUERIES // 2 :] + requests[: QUERIES // 2]
    return list(zip(queries, others, strict=True)) * ROUNDS


def _clocked(embedder: Any) -> list[float]:
    """Where the embedder notes from now on the milliseconds of each call."""
    spent: list[float] = []
    embed = embedder.embed

    async def clocked(*args: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return await embed(*args, **options)
        finally:
            spent.append(1000 * (time.perf_counter() - began))

    embedder.embed = clocked
    return spent


def _vector(core: Any, query: str) -> NDArray[np.float32]:
    async def embedded() -> NDArray[np.float32]:
        vector: NDArray[np.float32] = (await core.backend._embedder.embed([query])).values[0]
        return vector

    vector: NDArray[np.float32] = core.portal.call(embedded)
    return vector


def _request(index: EdgeIndex, query: str, vector: NDArray[np.float32], mode: Mode = "hybrid") -> Any:
    """The same search by the engine alone, made beforehand."""
    edge = index._edge
    lists = {
        "dense": edge.Query.Nearest(vector.tolist(), using=DENSE),
        "sparse": edge.Query.Nearest(edge.SparseVector(*index._encoder.query(query)), using=SPARSE),
    }
    if mode != "hybrid":
        return edge.QueryRequest(limit=TOP, query=lists[mode], with_payload=True)
    return edge.QueryRequest(
        limit=TOP,
        query=edge.Fusion.Dbsf(),
        prefetches=[edge.Prefetch(limit=depth(TOP), query=one) for one in lists.values()],
        with_payload=True,
    )


def _recall(collection: Any, corpus: Corpus) -> float:
    """Of the nearest by exact search, how many a dense search finds."""
    index = collection._index
    edge = index._edge
    found = 0
    for vector in corpus.vectors(QUERIES):
        query = edge.Query.Nearest(vector.tolist(), using=DENSE)
        exact = index._shard.query(
            edge.QueryRequest(
                limit=TOP, query=query, params=edge.SearchParams(exact=True), with_payload=["document_id"]
            )
        )
        nearest = {point.payload["document_id"] for point in exact}
        hits = index.search(Search("", vector, mode="dense", top_k=TOP))
        found += len(nearest & {hit.chunk.document_id for hit in hits})
    return found / (QUERIES * TOP)
