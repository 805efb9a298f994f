"""Writing documents to an index when it fails half-way: each document stays in one version, the old or the new one."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend import BackendError
from llmbackend.engines import bm25
from llmbackend.engines.interface import Chunk, Layout, Physical, VectorIndex
from llmbackend.engines.qdrant_edge import QdrantEdge
from llmbackend.engines.qdrant_server import QdrantServer
from llmbackend.knowledge.collections.storing import store
from tests.qdrant import OneAtATime

NAMES = ["a", "b", "c"]


@pytest.fixture(params=["edge", "qdrant"])
def index(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorIndex]:
    edge = request.param == "edge"
    server = None if edge else QdrantServer("http://in-memory", None, 10, tmp_path, client=OneAtATime())
    engine = server or QdrantEdge(tmp_path)
    physical = Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)
    engine.create(physical.id, Layout(2))
    index = engine.open(physical)
    yield index
    index.close()
    engine.close()


def _store(index: VectorIndex, digest: str) -> int:
    chunks = [Chunk(name, digest, 0, 1, f"{name} {digest}") for name in NAMES]
    return store(
        index, [(name, digest) for name in NAMES], chunks, np.ones((3, 2), np.float32), lambda _: None
    )


def test_a_failure_while_older_versions_are_removed_loses_no_document(
    index: VectorIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = "_supersede" if hasattr(index, "_supersede") else "_delete"
    _store(index, "old")
    monkeypatch.setattr(type(index), "_named_at_once", 1)
    removed: list[Any] = []
    remove = getattr(index, method)

    def failing(where: Any) -> None:
        if len(removed) == 1:
            removed.append(None)
            raise ValueError("broken")
        removed.append(where)
        remove(where)

    monkeypatch.setattr(index, method, failing)
    with pytest.raises((ValueError, BackendError)):
        _store(index, "new")
    assert len(removed) > 1
    known = index.known(NAMES)
    assert sorted(known) == NAMES
    assert all(len(digests) == 1 for digests in known.values())
    assert {digest for digests in known.values() for digest in digests} == {"old", "new"}
