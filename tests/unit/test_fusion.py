"""Lists of several collections are fused as the engine fuses those of one."""

from __future__ import annotations

import random
import uuid
from pathlib import Path

import numpy as np

from llmbackend.knowledge.engines.qdrant_edge import EdgeIndex
from llmbackend.knowledge.engines.vectors import Chunk, Mode
from llmbackend.knowledge.retrieval.retrieval import Candidate, fuse


def test_our_fusion_is_the_engines(tmp_path: Path) -> None:
    folder = tmp_path / str(uuid.uuid4())
    EdgeIndex.create(folder, 8)
    index = EdgeIndex(folder)
    randomly = random.Random(5)
    words = [f"word{number}" for number in range(30)]
    chunks = [Chunk(str(n), "v1", 0, 1, " ".join(randomly.choices(words, k=12))) for n in range(40)]
    numbers = np.random.default_rng(5)
    index.upsert(chunks, numbers.normal(size=(40, 8)).astype(np.float32))
    for _ in range(10):
        query, vector = " ".join(randomly.choices(words, k=3)), numbers.normal(size=8).astype(np.float32)

        def found(mode: Mode, query: str = query, vector: np.ndarray = vector) -> list[Candidate]:
            hits = index.search(query, vector, mode=mode, top_k=40)
            return [Candidate(chunk, "c", score, {}) for chunk, score in hits]

        ours, engines = fuse(found("dense"), found("sparse")), found("hybrid")
        assert len(ours) == len(engines)
        np.testing.assert_allclose([one.score for one in ours], [one.score for one in engines], rtol=1e-5)
        assert {one.key: round(one.score, 5) for one in ours} == {
            one.key: round(one.score, 5) for one in engines
        }
    index.close()
