"""An open collection: what closing it waits for, and what is refused afterwards."""

from __future__ import annotations

import asyncio
import threading
import uuid
from pathlib import Path

import pytest

from llmbackend import NotFound
from llmbackend.knowledge.collections.collection import Collection
from llmbackend.knowledge.collections.live_index import LiveIndex
from llmbackend.knowledge.collections.manifests import Manifest
from llmbackend.knowledge.engines.qdrant_edge import EdgeIndex


def test_closing_waits_for_those_who_still_read(tmp_path: Path) -> None:
    asyncio.run(_closed_while_read(tmp_path))


async def _closed_while_read(tmp_path: Path) -> None:
    manifest = Manifest("notes", str(uuid.uuid4()), "a-model", 4, 256, 32, "2026-01-01T00:00:00+00:00")
    EdgeIndex.create(tmp_path / manifest.id, manifest.dimension)
    collection = Collection(manifest, LiveIndex(EdgeIndex(tmp_path / manifest.id)))
    reading, may_end = threading.Event(), threading.Event()

    def read() -> tuple[int, int]:
        reading.set()
        assert may_end.wait(10)
        return collection.index.count()

    counted = asyncio.create_task(collection.run(read))
    assert await asyncio.to_thread(reading.wait, 10)
    closing = asyncio.create_task(collection.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    with pytest.raises(NotFound, match="'notes'"):
        await collection.run(collection.index.count)
    may_end.set()
    assert await counted == (0, 0)
    await closing


def test_closing_waits_for_a_thread_that_nobody_waits_for_any_more(tmp_path: Path) -> None:
    asyncio.run(_closed_after_giving_up(tmp_path))


async def _closed_after_giving_up(tmp_path: Path) -> None:
    manifest = Manifest("notes", str(uuid.uuid4()), "a-model", 4, 256, 32, "2026-01-01T00:00:00+00:00")
    EdgeIndex.create(tmp_path / manifest.id, manifest.dimension)
    collection = Collection(manifest, LiveIndex(EdgeIndex(tmp_path / manifest.id)))
    reading, may_end = threading.Event(), threading.Event()
    counts: list[tuple[int, int]] = []

    def read() -> None:
        reading.set()
        assert may_end.wait(10)
        counts.append(collection.index.count())

    counting = asyncio.create_task(collection.run(read))
    assert await asyncio.to_thread(reading.wait, 10)
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    closing = asyncio.create_task(collection.close())
    await asyncio.sleep(0.05)
    assert not closing.done()
    may_end.set()
    await closing
    assert counts == [(0, 0)]
