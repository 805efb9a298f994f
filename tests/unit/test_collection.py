"""An open collection: what closing it waits for, and what is refused afterwards."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llmbackend import NotFound
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.knowledge.collections.collection import Collection
from llmbackend.knowledge.collections.collections import Collections
from llmbackend.knowledge.collections.live_index import LiveIndex
from llmbackend.knowledge.collections.manifests import Manifest
from llmbackend.knowledge.engines.qdrant_edge import IN_USE, EdgeIndex, QdrantEdge
from llmbackend.storage.database import connect


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


@pytest.fixture
def collections(tmp_path: Path) -> Iterator[Callable[[], Collections]]:
    """Makes the collections of a data directory, which are "a" and "b" and not open."""
    rows = connect(tmp_path / "state.db")

    def made() -> Collections:
        return Collections(rows, [QdrantEdge(tmp_path)], StaticEmbedder(), "here")

    async def begin() -> None:
        first = made()
        for name in ("a", "b"):
            await first.create(name, None, None)
        await first.close()

    asyncio.run(begin())
    yield made
    rows.dispose()


def test_closing_all_closes_what_is_opened_meanwhile(
    collections: Callable[[], Collections], tmp_path: Path
) -> None:
    async def work() -> None:
        both = collections()
        a = await both.open("a")
        reading, may_end = threading.Event(), threading.Event()

        def read() -> None:
            reading.set()
            assert may_end.wait(10)

        running = asyncio.create_task(a.run(read))
        assert await asyncio.to_thread(reading.wait, 10)
        opening = asyncio.create_task(both.open("b"))
        await asyncio.sleep(0)  # it begins
        closing = asyncio.create_task(both.close())
        await opening
        may_end.set()
        await running
        await closing

    asyncio.run(work())
    assert list(tmp_path.rglob(IN_USE)) == []
