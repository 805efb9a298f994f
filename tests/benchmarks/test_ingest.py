"""How fast documents get into a collection, against its two engines with nothing around them, and other pipelines."""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbackend import LLMBackendClient
from llmbackend.chunks.chunking import content_hash, split
from llmbackend.engines.interface import Chunk
from llmbackend.engines.qdrant_edge import EdgeIndex
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.local import LocalTransport
from llmbackend.schemas import Document
from llmbackend.settings import Settings

from .corpus import passages

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

CHUNKS = 10_000
BATCH = 300  # about what ingest makes of such passages
RUNS = 3


class Measured:
    """Seconds, and seconds of processor time, of an action in several runs."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def __call__(self, action: Callable[[], Any]) -> None:
        wall, processor = time.perf_counter(), time.process_time()
        action()
        self.wall.append(time.perf_counter() - wall)
        self.processor.append(time.process_time() - processor)

    def row(self, name: str, count: int = CHUNKS) -> tuple[object, ...]:
        wall, processor = statistics.median(self.wall), statistics.median(self.processor)
        return name, count / wall, 1e6 * processor / count


def _client(folder: Path) -> LLMBackendClient:
    # Without the cache of vectors: each run is to cost what the first does.
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, embedding_cache_mb=0)))


def _batches(count: int) -> list[slice]:
    return [slice(start, start + BATCH) for start in range(0, count, BATCH)]


def _chunks(texts: list[str]) -> list[Chunk]:
    documents = [Document(id=uuid.uuid4().hex, text=text) for text in texts]
    return [chunk for one in documents for chunk in split(one, content_hash(one), 256, 32)]


class Bare:
    """The two engines by themselves, with the batches and the points that an ingest has."""

    def __init__(self, texts: list[str], folder: Path) -> None:
        self._texts, self._folder = texts, folder
        self._chunks = _chunks(texts)
        self._embedder = StaticEmbedder()
        self._vectors = asyncio.run(self._embedder.embed(texts)).values

    def embed(self) -> None:
        async def work() -> None:
            for batch in _batches(len(self._texts)):
                await self._embedder.embed(self._texts[batch])

        asyncio.run(work())

    def index(self) -> EdgeIndex:
        """An empty one."""
        folder = self._folder / str(uuid.uuid4())
        EdgeIndex.create(folder, 256)
        return EdgeIndex(folder)

    def upsert(self, index: EdgeIndex) -> None:
        for batch in _batches(len(self._chunks)):
            index.upsert(self._chunks[batch], self._vectors[batch])
        index.flush()


def _by_llamaindex(texts: list[str], folder: Path) -> float:
    """Seconds of LlamaIndex's pipeline with the same splitter, embeddings and collections."""
    from llama_index.core import Document as LlamaDocument
    from llama_index.core.ingestion import IngestionPipeline
    from llama_index.core.node_parser import SentenceSplitter

    with LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=folder, embedding_cache_mb=0))
    ) as client:
        client.create_collection("corpus")
        pipeline = IngestionPipeline(
            transformations=[
                SentenceSplitter(chunk_size=256, chunk_overlap=32),
                client.llamaindex.embed_model(),
            ],
            vector_store=client.llamaindex.vector_store("corpus"),
        )
        documents = [LlamaDocument(text=text) for text in texts]
        began = time.perf_counter()
        pipeline.run(documents=documents)
        seconds = time.perf_counter() - began
        assert client.get_collection("corpus").chunks == len(texts)
    return seconds


TXTAI = """
import json, sys, time
from pathlib import Path

import numpy, wordllama
from txtai.embeddings import Embeddings

texts = json.loads(Path(sys.argv[1]).read_text())
model = wordllama.WordLlama.load(cache_dir=Path(wordllama.__file__).parent, disable_download=True)

def vectors(batch):
    return numpy.asarray(model.embed(list(batch), norm=True), dtype=numpy.float32)

def ingest(texts):
    embeddings = Embeddings(
        method="external", transform=vectors, content=True, hybrid=True, encodebatch=int(sys.argv[2])
    )
    embeddings.index(enumerate(texts))
    embeddings.save(sys.argv[3])
    assert embeddings.count() == len(texts)

ingest(texts[:100])
began = time.perf_counter()
ingest(texts)
print(time.perf_counter() - began)
"""


def _by_txtai(python: Path, texts: list[str], folder: Path) -> float:
    """Seconds of txtai with the same vectors, BM25 and texts stored, in a Python that has it."""
    folder.mkdir(exist_ok=True)
    (folder / "texts.json").write_text(json.dumps(texts))
    command = [str(python), "-c", TXTAI, str(folder / "texts.json"), str(BATCH), str(folder / "index")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


def test_ingesting_keeps_up_and_repeating_costs_no_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Table, txtai: Path | None
) -> None:
    texts = passages(CHUNKS)
    bare = Bare(texts, tmp_path)
    embedded = 0
    embed = StaticEmbedder.embed

    async def counting(self: StaticEmbedder, given: Sequence[str], **how: Any) -> Any:
        nonlocal embedded
        embedded += len(given)
        return await embed(self, given, **how)

    monkeypatch.setattr(StaticEmbedder, "embed", counting)
    embedding, upserting, ingesting, again = Measured(), Measured(), Measured(), Measured()
    llamaindex: list[float] = []
    by_txtai: list[float] = []
    with _client(tmp_path / "data") as client:
        client.rag_ingest(passages(200, seed=1), "warm-up")
        for run in range(RUNS):
            embedding(bare.embed)
            index = bare.index()
            upserting(lambda index=index: bare.upsert(index))
            index.close()
            client.create_collection(f"run-{run}")  # as the bare engine's is there before it begins
            ingesting(lambda run=run: client.rag_ingest(texts, f"run-{run}"))
            info = client.get_collection(f"run-{run}")
            assert (info.documents, info.chunks) == (CHUNKS, CHUNKS)
            embedded = 0
            again(lambda run=run: client.rag_ingest(texts, f"run-{run}"))
            assert embedded == 0
            llamaindex.append(_by_llamaindex(texts, tmp_path / f"llamaindex-{run}"))
            if txtai is not None:
                by_txtai.append(_by_txtai(txtai, texts, tmp_path / f"txtai-{run}"))
    ours = statistics.median(ingesting.wall)
    slower = max(statistics.median(embedding.wall), statistics.median(upserting.wall))
    table(
        f"ingest of {CHUNKS} chunks in process, medians of {RUNS}",
        ("", "chunks/s", "processor µs a chunk"),
        embedding.row("bare embedding"),
        upserting.row("bare upsert: dense, BM25, payload"),
        ingesting.row("ingest"),
        again.row("ingest again, unchanged: 0 embeddings"),
        ("LlamaIndex's pipeline", CHUNKS / statistics.median(llamaindex), ""),
        *([("txtai", CHUNKS / statistics.median(by_txtai), "")] if by_txtai else []),
    )
    table(
        "ratios",
        ("ingest / slower of the bare parts", slower / ours),
        ("ingest / bare parts one after the other", (_median(embedding) + _median(upserting)) / ours),
        ("again / first", ours / _median(again)),
    )
    assert ours < statistics.median(llamaindex)


def _median(measured: Measured) -> float:
    return statistics.median(measured.wall)


def test_memory_does_not_grow_with_the_number_of_documents(tmp_path: Path, table: Table) -> None:
    rows: list[tuple[object, ...]] = []
    for name, program, count in (
        ("the index alone", BARE_MEMORY, 10_000),
        ("the index alone", BARE_MEMORY, 40_000),
        ("ingest", MEMORY, 10_000),
        ("ingest", MEMORY, 40_000),
        ("ingest, 1,000 a call", MEMORY_OF_CALLS, 10_000),
        ("ingest, 1,000 a call", MEMORY_OF_CALLS, 40_000),
        ("ingest of files", MEMORY_OF_FILES, 10_000),
        ("ingest of files", MEMORY_OF_FILES, 40_000),
    ):
        command = [sys.executable, "-c", program, str(tmp_path / f"{name} {count}"), str(count)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            assert process.stdout.readline() == "ready\n"
            watched = psutil.Process(process.pid)
            before = peak = _held(watched)
            process.stdin.write("go\n")
            process.stdin.flush()
            while process.poll() is None:
                try:
                    peak = max(peak, _held(watched))
                except psutil.NoSuchProcess:
                    break
                time.sleep(0.02)
        assert process.returncode == 0
        rows.append((name, count, before / 2**20, (peak - before) / 2**20))
    table(
        "memory of the process (MB), files that are mapped not counted",
        ("", "chunks", "before", "grows by"),
        *rows,
    )


def _held(process: psutil.Process) -> int:
    memory = process.memory_info()
    return int(memory.rss - memory.shared)


MEMORY = """
import sys
from pathlib import Path
from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.benchmarks.corpus import passages

folder, count = Path(sys.argv[1]), int(sys.argv[2])
texts = passages(count)
with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder))) as client:
    client.rag_ingest(texts[:1000], "warm-up")
    print("ready", flush=True)
    sys.stdin.readline()
    assert client.rag_ingest(texts, "corpus").chunks == count
"""

# Without the cache of vectors, which keeps 32 MB in memory.
NO_CACHE = MEMORY.replace("data_dir=folder", "data_dir=folder, embedding_cache_mb=0")
INGEST = 'assert client.rag_ingest(texts, "corpus").chunks == count'
MEMORY_OF_CALLS = NO_CACHE.replace(
    INGEST, 'for start in range(0, count, 1000): client.rag_ingest(texts[start : start + 1000], "corpus")'
)
MEMORY_OF_FILES = NO_CACHE.replace(
    "with LLMBackendClient",
    """(files := folder.with_name(folder.name + " files")).mkdir()
for start in range(0, count, 20):
    (files / f"{start}.txt").write_text("\\f".join(texts[start : start + 20]))
with LLMBackendClient""",
).replace(INGEST, 'assert client.rag_ingest_files(files, "corpus").chunks == count')


BARE_MEMORY = """
import sys, uuid
from pathlib import Path
import numpy
from llmbackend.engines.qdrant_edge import EdgeIndex
from llmbackend.engines.interface import Chunk
from tests.benchmarks.corpus import passages

folder, count = Path(sys.argv[1]) / str(uuid.uuid4()), int(sys.argv[2])
texts = passages(count)
EdgeIndex.create(folder, 256)
index = EdgeIndex(folder)
print("ready", flush=True)
sys.stdin.readline()
vectors = numpy.random.default_rng(0).normal(size=(500, 256)).astype(numpy.float32)
for start in range(0, count, 500):
    index.upsert([Chunk(str(n), "", 0, 1, texts[n]) for n in range(start, start + 500)], vectors)
index.close()
"""


FIRST = """
import json, sys
from pathlib import Path
from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

folder = Path(sys.argv[1])
with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder / "data"))) as client:
    client.rag_ingest(json.loads((folder / "texts.json").read_text()), "first")
    print("done", flush=True)
"""


def test_a_first_ingest_in_a_fresh_process(tmp_path: Path, table: Table) -> None:
    count = 1500
    (tmp_path / "texts.json").write_text(json.dumps(passages(count)))

    began = time.perf_counter()
    command = [sys.executable, "-c", FIRST, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        seconds = time.perf_counter() - began
    table(
        f"first ingest of a fresh process, imports included, {count} passages",
        ("seconds", seconds),
        ("passages/s", count / seconds),
    )
