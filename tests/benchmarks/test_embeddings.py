"""Embedding: against a loop by hand on a server, the cache against the embedded model, and the bytes on the wire."""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.chunks.chunking import split
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.knowledge.ingest.ingest import EMBEDDED_AT_ONCE
from llmbackend.local import LocalTransport
from llmbackend.schemas import Document
from llmbackend.settings import Settings
from tests.benchmarks.corpus import passages
from tests.benchmarks.embedding_server import IN_FLIGHT, LATENCY, MODEL, openai_by_hand, tei_by_hand
from tests.server import KEY, serving

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

ROUNDS = 5
TEXTS = 6144
ROOT = Path(__file__).parents[2]


@contextmanager
def _embedding_server(seconds: float = LATENCY) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.benchmarks.embedding_server", str(port), str(seconds)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline:
                try:
                    requests.get(f"{url}/info", timeout=5)
                    break
                except requests.ConnectionError:
                    time.sleep(0.1)
            yield url
        finally:
            process.terminate()


def _client(folder: Path, **settings: object) -> LLMBackendClient:
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **settings)))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["TEI", "OpenAI"])
def test_embed_is_as_fast_as_a_loop_by_hand(tmp_path: Path, table: Table, kind: str) -> None:
    """The same batches, as many at once, by a server that takes 50 ms for each; the cache is off."""
    texts = [f"{number} {text}" for number, text in enumerate(passages(1500) * 5)][:TEXTS]
    with _embedding_server() as url:
        where = {"tei_url": url} if kind == "TEI" else {"openai_base_url": url, "embedding_model": MODEL}
        by_hand = tei_by_hand if kind == "TEI" else openai_by_hand
        with _client(tmp_path, **where, embedding_cache_mb=0) as client:
            calls: dict[str, Callable[[], object]] = {
                "by hand": lambda: asyncio.run(by_hand(url, texts)),
                "llmbackend": lambda: client.embed(texts).numpy(),
            }
            times: dict[str, list[float]] = {name: [] for name in calls}
            for lap in range(ROUNDS + 1):
                for name, call in calls.items():
                    began = time.perf_counter()
                    call()
                    if lap:  # the first is a warm-up
                        times[name].append(time.perf_counter() - began)
    speeds = {name: TEXTS / statistics.median(found) for name, found in times.items()}
    ratio = speeds["llmbackend"] / speeds["by hand"]
    table(f"embedding by {kind}, texts/s, medians of {ROUNDS}", *speeds.items(), ("ratio", ratio))
    assert ratio >= 0.95


@pytest.mark.parametrize("seconds", [0.05, 0.2])
def test_ingest_keeps_an_embedding_server_busy(tmp_path: Path, table: Table, seconds: float) -> None:
    """Long documents by a server that takes so long for a batch, with as many requests at once by hand."""
    short = passages(TEXTS)
    documents = ["\n\n".join(short[start : start + 24]) for start in range(0, TEXTS, 24)]
    chunks = [
        chunk.in_context
        for number, text in enumerate(documents)
        for chunk in split(Document(id=str(number), text=text), "", 256, 32)
    ]
    at_once = IN_FLIGHT * EMBEDDED_AT_ONCE
    by_hand, ours = [], []
    with (
        _embedding_server(seconds) as url,
        _client(tmp_path, tei_url=url, embedding_cache_mb=0) as client,
    ):
        client.rag_ingest(documents[:20], "warm-up")
        for lap in range(3):
            began = time.perf_counter()
            asyncio.run(tei_by_hand(url, chunks, at_once))
            by_hand.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert client.rag_ingest(documents, f"lap-{lap}").chunks == len(chunks)
            ours.append(time.perf_counter() - began)
    bare, ingest = (len(chunks) / statistics.median(times) for times in (by_hand, ours))
    table(
        f"ingest of {len(chunks)} chunks, {1000 * seconds:.0f} ms a batch, chunks/s",
        ("embedding by hand", bare),
        ("ingest", ingest),
        ("ratio", ingest / bare),
    )
    assert ingest / bare >= 0.8


@pytest.mark.parametrize("words", [75, 600])
def test_a_warm_cache_beats_the_embedded_model(tmp_path: Path, table: Table, words: int) -> None:
    """Once as the core sees it (an embedder, with and without a cache), once through the client."""
    from llmbackend.inference.factory import embedders

    short = passages(1500)
    texts = [" ".join(short[start : start + words // 75]) for start in range(0, len(short), words // 75)]

    async def rates() -> tuple[float, float]:
        model = StaticEmbedder()
        cached, _ = embedders(Settings(data_dir=tmp_path))
        await cached.embed(texts)
        bare, warm = [], []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            await model.embed(texts)
            bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            await cached.embed(texts)
            warm.append(time.perf_counter() - began)
        await cached.close()
        return len(texts) / statistics.median(bare), len(texts) / statistics.median(warm)

    bare, warm = asyncio.run(rates())
    with _client(tmp_path) as client:
        client.embed(texts)
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            client.embed(texts)
            times.append(time.perf_counter() - began)
    called = len(texts) / statistics.median(times)
    table(
        f"embedding {len(texts)} texts of {words} words, texts/s",
        ("embedded model", bare),
        ("warm cache", warm),
        ("ratio", warm / bare),
        ("client.embed, warm", called),
        ("ratio", called / bare),
    )
    assert warm / bare >= 20
    assert called / bare >= 20


class _Counter:
    """A TCP proxy that counts the bytes coming back."""

    def __init__(self, port: int) -> None:
        self.received = 0
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self._port))
            threading.Thread(target=self._pump, args=(near, far, False), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, True), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, counted: bool) -> None:
        while piece := source.recv(2**16):
            if counted:
                self.received += len(piece)
            target.sendall(piece)
        target.close()

    def close(self) -> None:
        self._listener.close()


def test_vectors_cost_little_more_than_their_own_bytes(tmp_path: Path, table: Table) -> None:
    texts = [f"{number} {text}" for number, text in enumerate(passages(1500) * 7)][:10_000]
    with serving(tmp_path, warm=False, api_key=KEY) as server:
        port = int(server.url.rsplit(":", 1)[1])
        counter = _Counter(port)
        with LLMBackendClient(counter.url, KEY) as client:
            vectors = client.embed(texts)
        ours, counter.received = counter.received, 0
        for start in range(0, len(texts), 2000):
            body = {"input": texts[start : start + 2000], "encoding_format": "base64"}
            requests.post(
                f"{counter.url}/v1/embeddings",
                json=body,
                headers={"Authorization": f"Bearer {KEY}"},
                timeout=60,
            ).json()
        theirs = counter.received
        counter.close()
    own = vectors.numpy().nbytes
    assert vectors.numpy().shape == (10_000, 256)
    table(
        "10,000 vectors of 256 dimensions over HTTP, bytes by their float32",
        ("llmbackend's client", ours / own),
        ("OpenAI's wire, base64, packed", theirs / own),
    )
    assert ours <= 1.3 * own
    assert theirs <= 1.3 * own
