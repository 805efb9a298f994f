"""How fast documents get into a collection, against its two engines with nothing around them."""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import qdrant_edge

from llmbackend import LLMBackendClient
from llmbackend.inference.embedded import EmbeddedEmbedder
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

PASSAGES = 1500
DOCUMENTS_A_BATCH = 256
WORDS = 75
RUNS = 3


def passages(seed: int = 0) -> list[str]:
    """Sentences of made-up words, common ones more often, as in a language."""
    chance = random.Random(seed)
    syllables = [a + b for a in "bdfgklmnprst" for b in ("a", "e", "i", "o", "u", "an", "er", "is")]
    words = ["".join(chance.choices(syllables, k=chance.randint(1, 3))) for _ in range(4000)]
    weights = [1 / rank for rank in range(1, len(words) + 1)]

    def passage() -> str:
        drawn = chance.choices(words, weights, k=WORDS)
        sentences = [drawn[start : start + 15] for start in range(0, WORDS, 15)]
        return " ".join(" ".join(sentence).capitalize() + "." for sentence in sentences)

    return [passage() for _ in range(PASSAGES)]


def _client(folder: Path) -> LLMBackendClient:
    # Without the cache of vectors: each run is to cost what the first does.
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, embedding_cache_mb=0)))


def _speed(action: Callable[[], Any], count: int = PASSAGES) -> float:
    """Passages a second."""
    began = time.perf_counter()
    action()
    return count / (time.perf_counter() - began)


def _bare(texts: list[str], folder: Path) -> None:
    """Embeddings and points of the same batches, straight into Qdrant Edge."""
    folder.mkdir()
    shard = qdrant_edge.EdgeShard.create(
        str(folder),
        qdrant_edge.EdgeConfig(
            vectors={"dense": qdrant_edge.EdgeVectorParams(size=256, distance=qdrant_edge.Distance.Cosine)},
            sparse_vectors={"bm25": qdrant_edge.EdgeSparseVectorParams(modifier=qdrant_edge.Modifier.Idf)},
        ),
    )
    bm25 = qdrant_edge.Bm25()
    embedder = EmbeddedEmbedder()
    asyncio.run(embedder.embed(["a text, to load the weights"]))

    async def work() -> None:
        for start in range(0, len(texts), DOCUMENTS_A_BATCH):
            batch = texts[start : start + DOCUMENTS_A_BATCH]
            vectors = (await embedder.embed(batch)).values
            points = [
                qdrant_edge.Point(
                    id=uuid.uuid4(),
                    vector={"dense": vector.tolist(), "bm25": bm25.embed_document(text)},
                    payload={"text": text},
                )
                for text, vector in zip(batch, vectors, strict=True)
            ]
            shard.update(qdrant_edge.UpdateOperation.upsert_points(points))
        shard.flush()

    asyncio.run(work())
    shard.close()


def test_ingesting_keeps_up_and_repeating_costs_no_embedding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, table: Table
) -> None:
    texts = passages()
    embedded = 0
    embed = EmbeddedEmbedder.embed

    async def counting(self: EmbeddedEmbedder, given: Sequence[str], **how: Any) -> Any:
        nonlocal embedded
        embedded += len(given)
        return await embed(self, given, **how)

    monkeypatch.setattr(EmbeddedEmbedder, "embed", counting)
    with _client(tmp_path / "data") as client:
        client.rag_ingest(passages(seed=1)[:200], "warm-up")
        names = [f"run-{number}" for number in range(RUNS)]
        speeds = [_speed(partial(client.rag_ingest, texts, name)) for name in names]
        info = client.get_collection(names[0])
        assert (info.documents, info.chunks) == (PASSAGES, PASSAGES)
        embedded = 0
        again = _speed(lambda: client.rag_ingest(texts, names[0]))
        assert embedded == 0
        bare = [_speed(partial(_bare, texts, tmp_path / f"bare-{run}")) for run in range(RUNS)]
    warm, engines = statistics.median(speeds), statistics.median(bare)
    table(
        f"ingest, {PASSAGES} passages of {WORDS} words, median of {RUNS} (passages/s)",
        ("warm client, in process", warm),
        ("bare embedding and bare Qdrant Edge", engines),
        ("ratio", warm / engines),
        ("second time, unchanged (0 embeddings)", again),
    )
    assert warm >= 1000


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
    (tmp_path / "texts.json").write_text(json.dumps(passages()))

    began = time.perf_counter()
    command = [sys.executable, "-c", FIRST, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "done\n"
        seconds = time.perf_counter() - began
    table(
        f"first ingest of a fresh process, imports included, {PASSAGES} passages",
        ("seconds", seconds),
        ("passages/s", PASSAGES / seconds),
    )
