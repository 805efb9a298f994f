"""How often the passage that answers a question is found, and how far up, on a corpus given with --data."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

TOP = 10


def _read(file: Path) -> list[dict[str, Any]]:
    with file.open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines if line.strip()]


@pytest.fixture
def corpus(tmp_path: Path, data: Path) -> Iterator[LLMBackendClient]:
    """A client whose collection `corpus` has the documents of corpus.jsonl."""
    documents = [{"id": one["id"], "text": one["text"]} for one in _read(data / "corpus.jsonl")]
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        report = client.rag_ingest(documents, "corpus")
        assert report.added == len(documents)
        yield client


def _ranked(client: LLMBackendClient, question: str, mode: Any) -> list[str]:
    """Documents, best first, each once: a long one may be found by several of its passages."""
    hits = client.rag_search(question, "corpus", top_k=2 * TOP, mode=mode)
    return list(dict.fromkeys(hit.document_id for hit in hits))[:TOP]


def _ndcg(ranked: list[str], gold: set[str]) -> float:
    gained = sum(1 / math.log2(place + 2) for place, name in enumerate(ranked) if name in gold)
    return gained / sum(1 / math.log2(place + 2) for place in range(min(len(gold), TOP)))


def test_hybrid_search_finds_what_answers(corpus: LLMBackendClient, data: Path, table: Table) -> None:
    queries = _read(data / "queries.jsonl")
    scores: dict[str, float] = {}
    rows: list[tuple[object, ...]] = [("", f"nDCG@{TOP}", "first", f"in {TOP}", "ms a search")]
    for mode in ("hybrid", "dense", "sparse"):
        began = time.perf_counter()
        found = [(_ranked(corpus, one["question"], mode), set(one["gold"])) for one in queries]
        milliseconds = 1000 * (time.perf_counter() - began) / len(queries)
        scores[mode] = sum(_ndcg(ranked, gold) for ranked, gold in found) / len(found)
        first = sum(ranked[:1] != [] and ranked[0] in gold for ranked, gold in found) / len(found)
        within = sum(not gold.isdisjoint(ranked) for ranked, gold in found) / len(found)
        rows.append((mode, scores[mode], first, within, milliseconds))
    info = corpus.get_collection("corpus")
    table(f"retrieval, {len(queries)} questions, {info.documents} documents, {info.chunks} passages", *rows)
    assert scores["hybrid"] >= 0.91
