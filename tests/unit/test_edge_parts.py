"""Qdrant Edge holds the interpreter's lock in each call: long work is done in parts, whatever metadata chunks have."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend.engines import bm25, edge_filtering, fusion, qdrant_edge
from llmbackend.engines.filters import conditions
from llmbackend.engines.interface import Chunk, Layout, Physical, Search, VectorIndex
from llmbackend.engines.qdrant_edge import QdrantEdge

CHUNKS = 80
TAGS = [f"tag {number}" for number in range(300)]
NOTHING = {"or": [{"tags": f"no tag {number}"} for number in range(32)]}
"""A filter for which each chunk's list is looked through 32 times, and that none fits."""


class _Counted:
    """A shard that counts its calls."""

    def __init__(self, shard: Any) -> None:
        self._shard = shard
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._shard, name)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes too long."""
    monkeypatch.setattr(edge_filtering, "HELD", 0)
    monkeypatch.setattr(qdrant_edge, "HELD", 0)


@pytest.fixture
def engine(tmp_path: Path) -> QdrantEdge:
    return QdrantEdge(tmp_path)


@pytest.fixture
def physical(engine: QdrantEdge) -> Physical:
    physical = Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)
    engine.create(physical.id, Layout(2, {"tags": "keyword"}))
    return physical


@pytest.fixture
def index(engine: QdrantEdge, physical: Physical) -> Iterator[Any]:
    index = engine.open(physical)
    chunks = [Chunk("a", "h", number, CHUNKS, "text", {"tags": TAGS}) for number in range(CHUNKS)]
    index.upsert(chunks, np.ones((CHUNKS, 2), np.float32))
    yield index
    index.close()


def _unindexed(index: Any) -> None:
    index._indexed = {path: kind for path, kind in index._indexed.items() if path[-1] != "tags"}


@pytest.mark.usefixtures("slow")
def test_a_document_of_many_chunks_is_deleted_in_parts(index: Any) -> None:
    counted = index._shard = _Counted(index._shard)
    assert index.delete(["a"]) == 1
    assert counted.calls.count("update") > CHUNKS // 2
    assert index.about() == 0
    assert index.passages(10, None).heads == []


def test_a_document_that_a_kill_leaves_half_deleted_is_gone_when_it_is_opened(
    engine: QdrantEdge, physical: Physical, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Any] = []
    update = index._update

    def killed(operation: Any) -> Any:
        if len(done) == 2:
            raise SystemExit
        done.append(operation)
        return update(operation)

    monkeypatch.setattr(index, "_update", killed)
    with pytest.raises(SystemExit):
        index.delete(["a"])
    assert 0 < index.about() < CHUNKS
    index._shard.flush()
    index._shard.close()
    again: VectorIndex = engine.open(physical)
    assert again.count() == (0, 0)
    index._shard = again._shard  # type: ignore[attr-defined]  # for the fixture to close


@pytest.mark.usefixtures("slow")
@pytest.mark.parametrize("indexed", [False, True], ids=["not indexed", "indexed"])
@pytest.mark.parametrize("call", ["search", "passages", "ids"])
def test_a_filter_on_long_lists_is_checked_in_parts(index: Any, call: str, indexed: bool) -> None:
    if not indexed:
        _unindexed(index)
    counted = index._shard = _Counted(index._shard)
    where = conditions({"not": {"not": NOTHING}})
    if call == "search":
        assert not index.search(Search("text", np.ones(2, np.float32), "dense", 10, where))
    elif call == "passages":
        assert not index.passages(10, None, None, where).heads
    else:
        assert not index.ids(10, None, where).documents
    assert counted.calls.count("scroll") > CHUNKS // 2


def test_what_fits_a_filter_is_listed_in_pages_of_any_size(index: Any) -> None:
    _unindexed(index)
    where = conditions({"tags": {"not": "no tag"}, "or": [{"tags": tag} for tag in TAGS[:9]]})
    for limit in (1, 7, CHUNKS - 1, CHUNKS, CHUNKS + 1):
        found: list[int] = []
        cursor = None
        while True:
            page = index.passages(limit, cursor, ["a", "b"], where)
            found += [chunk.number for chunk in page.heads]
            if (cursor := page.cursor) is None:
                break
        assert sorted(found) == list(range(CHUNKS))


@pytest.mark.usefixtures("slow")
def test_chunks_that_take_long_are_written_one_at_a_time(index: Any) -> None:
    index._written_at_once = 4
    counted = index._shard = _Counted(index._shard)
    index.upsert([Chunk("b", "h", number, 40, "text") for number in range(40)], np.ones((40, 2), np.float32))
    assert counted.calls.count("update") >= 30


def test_a_point_of_both_lists_is_one_hit_whichever_write_it_was_in(
    engine: QdrantEdge, physical: Physical
) -> None:
    index: Any = engine.open(physical)
    chunks = [Chunk(f"d{number}", "h", 0, 1, f"red {'blue ' * number}") for number in range(CHUNKS)]
    angles = np.linspace(0, 1.5, CHUNKS)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    half = CHUNKS // 2
    index.upsert(chunks[:half], vectors[:half])  # some in one update, and the rest in an update each
    for number in range(half, CHUNKS):
        index.upsert(chunks[number : number + 1], vectors[number : number + 1])
    asked = Search("blue", vectors[half], "hybrid", top_k=CHUNKS, weight=0.3)
    found = index.search(asked)
    apart = fusion.best(index.lists("blue", asked.vector, ["dense", "sparse"], 2 * CHUNKS), 0.3, CHUNKS)
    assert [hit.chunk.point_id(physical.namespace) for hit in found] == [point for point, _ in apart]
    assert [hit.scores for hit in found] == [scores for _, scores in apart]
    assert sum(hit.scores.keys() >= {"dense", "sparse"} for hit in found) > half
    index.close()
