"""How often the passage that answers a question is found, and how far up, on a corpus given with --data."""

from __future__ import annotations

import json
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


def test_hybrid_search_finds_what_answers(corpus: LLMBackendClient, data: Path, table: Table) -> None:
    queries = _read(data / "queries.jsonl")
    questions = [{"question": one["question"], "gold": one["gold"]} for one in queries]
    result = corpus.evaluate("corpus", questions, k=TOP)
    scores = {one.mode: one for one in result.scores}
    info = corpus.get_collection("corpus")
    table(
        f"retrieval, {len(queries)} questions, {info.documents} documents, {info.chunks} passages",
        ("", f"nDCG@{TOP}", f"MRR@{TOP}", f"recall@{TOP}", "ms a search"),
        *((one.mode, one.ndcg, one.mrr, one.recall, one.ms) for one in result.scores),
    )
    assert scores["hybrid"].ndcg >= 0.93
    assert scores["hybrid"].ndcg > max(scores["dense"].ndcg, scores["sparse"].ndcg)
