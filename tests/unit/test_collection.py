"""Collections: when they are opened and closed, what closing waits for, what is refused afterwards, what they count."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend import BackendError, NotFound
from llmbackend.access.names import QualifiedName
from llmbackend.engines import qdrant_edge
from llmbackend.engines.filters import conditions
from llmbackend.engines.interface import Chunk, Physical, Search, VectorIndex
from llmbackend.engines.qdrant_edge import IN_USE, EdgeIndex, QdrantEdge
from llmbackend.inference.cached_embedder import CachedEmbedder
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.knowledge.collections import documents, open_indexes, physical
from llmbackend.knowledge.collections.collection import Collection
from llmbackend.knowledge.collections.collections import Collections
from llmbackend.storage.database import connect

pytestmark = pytest.mark.usefixtures("in_default")


@pytest.fixture
def collections(tmp_path: Path) -> Iterator[Callable[..., Collections]]:
    """Makes the collections of a data directory, which are "a" and "b" and not open."""
    rows = connect(tmp_path / "state.db")

    def made(**settings: Any) -> Collections:
        embedder = CachedEmbedder(StaticEmbedder(), None)
        return Collections(rows, [QdrantEdge(tmp_path)], embedder, "here", **settings)

    async def begin() -> None:
        first = made()
        for name in ("a", "b"):
            await first.create(QualifiedName("default", name), None, None)
        await first.close()

    asyncio.run(begin())
    yield made
    rows.dispose()


class Reading:
    """A read of a collection that does not end until it may."""

    def __init__(self, collection: Collection) -> None:
        self.begun, self.may_end = threading.Event(), threading.Event()
        self.counts: list[tuple[int, int]] = []
        self.task = asyncio.create_task(collection._call(self._read))

    def _read(self, index: VectorIndex) -> None:
        self.begun.set()
        assert self.may_end.wait(10)
        self.counts.append(index.count())


@pytest.mark.parametrize("given_up", [False, True])
def test_closing_waits_for_those_who_still_read(
    collections: Callable[..., Collections], given_up: bool
) -> None:
    """For a thread that nobody waits for any more, too."""

    async def work() -> None:
        both = collections()
        collection = await both.get(QualifiedName("default", "a"))
        reading = Reading(collection)
        assert await asyncio.to_thread(reading.begun.wait, 10)
        if given_up:
            reading.task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading.task
        closing = asyncio.create_task(collection.close())
        await asyncio.sleep(0.05)
        assert not closing.done()
        with pytest.raises(NotFound, match="'a'"):
            await collection.count()
        with pytest.raises(NotFound, match="'a'"):
            await collection.documents(1, None)
        reading.may_end.set()
        await closing
        assert reading.counts == [(0, 0)]
        await both.close()

    asyncio.run(work())


def test_closing_all_closes_what_is_opened_meanwhile(
    collections: Callable[..., Collections], tmp_path: Path
) -> None:
    async def work() -> None:
        both = collections()
        reading = Reading(await both.get(QualifiedName("default", "a")))
        assert await asyncio.to_thread(reading.begun.wait, 10)
        opening = asyncio.create_task((await both.get(QualifiedName("default", "b"))).documents(1, None))
        await asyncio.sleep(0)  # it begins
        closing = asyncio.create_task(both.close())
        with suppress(NotFound):
            await opening
        reading.may_end.set()
        await reading.task
        await closing

    asyncio.run(work())
    assert list(tmp_path.rglob(IN_USE)) == []


async def _until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def _chunks(name: str, text: str = "A text.", digest: str = "h") -> list[Chunk]:
    return [Chunk(name, digest, 0, 1, text, {})]


async def _put(collection: Collection, name: str, **how: str) -> int:
    chunks = _chunks(name, **how)
    return await collection.upsert([(name, chunks[0].hash)], chunks, np.ones((1, 256), np.float32))


def test_a_short_search_is_done_on_the_event_loop(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Edge would hold the interpreter's lock in a thread, too."""
    searched: list[int] = []
    search = EdgeIndex.search

    def noted(index: EdgeIndex, *args: Any, **how: Any) -> Any:
        searched.append(threading.get_ident())
        return search(index, *args, **how)

    monkeypatch.setattr(EdgeIndex, "search", noted)

    async def work() -> None:
        both = collections()
        collection = await both.get(QualifiedName("default", "a"))
        await _put(collection, "one")
        here = threading.get_ident()
        for text, top_k, where, at_once in (
            ("text", 5, {}, True),
            ("text", 1000, {}, False),
            ("text " * 1000, 5, {}, False),
            ("text", 5, {"year": 2026}, False),
        ):
            found = await collection.search(
                Search(text, None, mode="sparse", top_k=top_k, conditions=conditions(where))
            )
            assert len(found) == (not where)
            assert (searched.pop() == here) == at_once
        await both.close()

    asyncio.run(work())


def test_documents_are_selected_without_their_texts(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Any] = []
    scroll = EdgeIndex._scroll

    def noted(index: EdgeIndex, where: Any, limit: int, offset: Any, payload: Any, **how: Any) -> Any:
        read.append(payload)
        return scroll(index, where, limit, offset, payload, **how)

    async def work() -> None:
        both = collections()
        collection = await both.get(QualifiedName("default", "a"))
        for number in range(5):
            chunks = [Chunk(f"d{number}", "h", 0, 1, "A text.", {"year": 2020 + number % 2})]
            await collection.upsert([(f"d{number}", "h")], chunks, np.ones((1, 256), np.float32))
        monkeypatch.setattr(documents, "PAGE", 2)
        monkeypatch.setattr(EdgeIndex, "_scroll", noted)
        assert sorted(await documents.selected(collection, conditions({"year": 2020}))) == ["d0", "d2", "d4"]
        assert await documents.selected(collection, conditions({"year": 1999})) == []
        assert read
        assert True not in read
        await both.close()

    asyncio.run(work())


def test_the_least_recently_used_are_released(collections: Callable[..., Collections]) -> None:
    async def work() -> None:
        all_of_them = collections(most_open=2, idle_seconds=1000)
        first, second = (
            await all_of_them.get(QualifiedName("default", "a")),
            await all_of_them.get(QualifiedName("default", "b")),
        )
        third = await all_of_them.create(QualifiedName("default", "c"), None, None)
        reading = Reading(first)
        assert await asyncio.to_thread(reading.begun.wait, 10)  # it is open before the others
        for one in (second, third):
            assert (await one.documents(1, None)).heads == []
        await _until(lambda: not second.is_open)
        assert first.is_open, "it is in use, though it was used first"
        assert third.is_open
        reading.may_end.set()
        await reading.task
        await second.documents(1, None)
        await _until(lambda: not first.is_open)
        await all_of_them.close()

    asyncio.run(work())


def test_idle_ones_are_released_and_those_with_unflushed_writes_are_not(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(open_indexes, "TICK", 0.01)
    monkeypatch.setattr(open_indexes, "WORTH", 0)

    async def work() -> None:
        both = collections(idle_seconds=0.05)
        a, b = await both.get(QualifiedName("default", "a")), await both.get(QualifiedName("default", "b"))
        for name in ("one", "two"):
            await _put(a, name)
        await b.documents(1, None)
        await _until(lambda: not b.is_open)
        assert a.is_open
        assert await a.delete(["one"]) == 1
        await a.flush()
        await _until(lambda: not list(tmp_path.rglob(IN_USE)))  # as at the end of a process
        assert not a.is_open
        assert await a.count() == (1, 1)
        assert not a.is_open
        assert (await a.documents(5, None)).heads[0].document_id == "two"
        await both.close()

    asyncio.run(work())


def test_listing_counting_and_deleting_open_nothing(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fill() -> None:
        both = collections()
        for name in ("one", "two"):
            await _put(await both.get(QualifiedName("default", "a")), name)
        await both.close()

    async def work() -> None:
        both = collections()
        monkeypatch.setattr(QdrantEdge, "open", None)
        infos = await both.infos(bool)
        assert [(one.name, one.documents, one.chunks) for one in infos] == [("a", 2, 2), ("b", 0, 0)]
        assert (await both.info(QualifiedName("default", "a"))).documents == 2
        assert await both.delete(QualifiedName("default", "a")) == 2
        assert both.names() == [("default", "b")]
        await both.close()

    asyncio.run(fill())
    asyncio.run(work())


def test_counts_are_told_anew_after_a_kill(collections: Callable[..., Collections]) -> None:
    """What was written since the counts were kept is in the index, and in them only once that is closed."""

    async def killed() -> None:
        both = collections()
        a = await both.get(QualifiedName("default", "a"))
        assert a.counts == (0, 0)
        await _put(a, "one")
        await a.flush()
        assert both.manifests.counts().keys() == {(await both.get(QualifiedName("default", "b"))).manifest.id}
        a._index._shard.close()  # type: ignore[union-attr]
        a._index = None

    async def work() -> None:
        both = collections()
        assert [one.documents for one in await both.infos(bool)] == [1, 0]
        await both.close()
        assert set(both.manifests.counts().values()) == {(1, 1), (0, 0)}

    asyncio.run(killed())
    asyncio.run(work())


def test_a_write_that_races_with_the_release_is_counted(collections: Callable[..., Collections]) -> None:
    async def work() -> None:
        both = collections()
        a = await both.get(QualifiedName("default", "a"))
        await a.documents(1, None)
        for number in range(5):
            await asyncio.gather(a.release(), _put(a, f"d{number}"))
            await a.flush()
        await a.release()
        assert not a.is_open
        assert await a.count() == (5, 5)
        await both.close()

    asyncio.run(work())


def test_a_slow_repair_and_a_slow_removal_delay_no_other(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is being opened, another removed: the third is searched, listed, made and deleted meanwhile."""

    async def work() -> None:
        some = collections()
        named = partial(QualifiedName, "default")
        a, b = await some.get(named("a")), await some.get(named("b"))
        third = await some.create(named("c"), None, None)
        go_on = threading.Event()
        opened, dropped = QdrantEdge.open, QdrantEdge.drop
        slow = {a.manifest.physical_collection.id, b.manifest.physical_collection.id}

        def open_slowly(engine: QdrantEdge, physical: Physical, **how: Any) -> EdgeIndex:
            assert physical.id not in slow or go_on.wait(30)
            return opened(engine, physical, **how)

        def drop_slowly(engine: QdrantEdge, physical_id: str) -> None:
            assert physical_id not in slow or go_on.wait(30)
            dropped(engine, physical_id)

        monkeypatch.setattr(QdrantEdge, "open", open_slowly)
        monkeypatch.setattr(QdrantEdge, "drop", drop_slowly)
        opening = [asyncio.create_task(a.documents(1, None)) for _ in range(3)]
        deleting = asyncio.create_task(some.delete(named("b")))
        async with asyncio.timeout(20):
            await _until(lambda: named("b") not in some.names())
            for _ in range(20):
                assert (await third.documents(1, None)).heads == []
            assert [one.name for one in await some.infos(bool)] == ["a", "c"]
            assert (await some.create(named("b"), None, None)).manifest.physical_collection.id not in slow
            assert await some.delete(named("b")) == 0
            assert await a.count() == (0, 0), "that needs no index"
        opening[0].cancel()
        assert not any(task.done() for task in (*opening[1:], deleting))
        go_on.set()
        for task in opening[1:]:
            assert (await task).heads == [], "opening went on for those who still wait"
        assert await deleting == 0
        await some.close()

    asyncio.run(work())


def test_a_listing_fails_with_the_engine_s_error(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(index: EdgeIndex) -> tuple[int, int]:
        raise BackendError("the disk is away")

    async def work() -> None:
        some = collections()
        for manifest in some.manifests.all():
            some.manifests.note_counts(manifest, None)
        await some.close()
        some = collections()
        monkeypatch.setattr(EdgeIndex, "count", fails)
        with pytest.raises(BackendError, match="the disk is away"):
            await some.infos(bool)
        monkeypatch.undo()
        assert [one.documents for one in await some.infos(bool)] == [0, 0]
        await some.close()

    asyncio.run(work())


MANY = 300


async def _fill(collection: Collection) -> None:
    """Documents, and one without its first chunk, as a kill leaves it."""
    chunks = [Chunk(f"d{number}", "v1", 0, 1, f"Machine {number}.") for number in range(MANY)]
    vectors = np.random.default_rng(1).standard_normal((MANY, 256)).astype(np.float32)
    await collection.upsert([(chunk.document_id, "v1") for chunk in chunks], chunks, vectors)
    half = [Chunk("half", "v1", 1, 2, "Machine half.")]
    await collection._call(lambda index: index.upsert(half, vectors[:1]))


def _kill(folder: Path, collections: Collections) -> Path:
    """What a killed process leaves of "a", after it was closed. Returns its folder."""
    [manifest] = [one for one in collections.manifests.all() if one.name == "a"]
    collections.manifests.note_counts(manifest, None)
    physical = folder / manifest.physical_collection.id
    (physical / IN_USE).touch()
    return physical


def _folders(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir() if one.is_dir()}


def _named(collections: Collections) -> set[str]:
    return {one.physical_collection.id for one in collections.manifests.all()}


def test_opening_many_chunks_is_left_to_another_process(
    tmp_path: Path, collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and repairing them holds the interpreter's lock."""

    async def killed_and_searched(before: Path, again: int) -> Path:
        some = collections()
        collection = await some.get(QualifiedName("default", "a"))
        hits = await collection.search(Search("Machine 7.", None, mode="sparse", top_k=1))
        assert [hit.chunk.document_id for hit in hits] == ["d7"]
        assert await collection.count() == (MANY, MANY), "what has no first chunk is gone"
        after = tmp_path / collection.manifest.physical_collection.id
        assert (after == before) is bool(again), "the second time, there is only something to repair"
        assert _folders(tmp_path) == _named(some), "nothing else is left"
        await _put(collection, "new")
        assert await collection.count() == (MANY + 1, MANY + 1)
        await collection.delete(["new"])
        await some.close()
        return after

    async def work() -> None:
        some = collections()
        await _fill(await some.get(QualifiedName("default", "a")))
        await some.close()
        monkeypatch.setattr(qdrant_edge, "SLOW_TO_OPEN", MANY - 1)
        monkeypatch.setattr(EdgeIndex, "_repair", lambda self: pytest.fail("repaired in this process"))
        for again in range(2):
            folder = await killed_and_searched(_kill(tmp_path, some), again)
        some = collections()
        assert some.manifests.counts()[(await some.get(QualifiedName("default", "a"))).manifest.id] == (
            MANY,
            MANY,
        )
        await some.close()
        built = [json.loads(file.read_text())["config"] for file in folder.glob("segments/*/segment.json")]
        kinds = {segment["sparse_vector_data"]["bm25"]["index"]["index_type"] for segment in built}
        assert kinds == {"Mmap", "MutableRam"}, "what is built is mapped"

    asyncio.run(work())


@pytest.mark.parametrize("ended_by", ["delete", "close"])
def test_deleting_and_closing_do_not_wait_for_another_process_to_make_opening_quick(
    tmp_path: Path, collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch, ended_by: str
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def never(*what: Any) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work() -> None:
        some = collections()
        await _fill(await some.get(QualifiedName("default", "a")))
        await some.close()
        folder = _kill(tmp_path, some)
        some = collections()
        collection = await some.get(QualifiedName("default", "a"))
        monkeypatch.setattr(qdrant_edge, "SLOW_TO_OPEN", MANY - 1)
        monkeypatch.setattr(physical, "built", never)
        reading = asyncio.create_task(collection.documents(1, None))
        async with asyncio.timeout(60):
            await begun.wait()
            if ended_by == "delete":
                await some.delete(QualifiedName("default", "a"))
            await some.close()
        assert ended.is_set()
        with pytest.raises(NotFound):
            await reading
        assert _folders(tmp_path) == _named(some)
        assert folder.exists() is (ended_by == "close"), "it is as it was"

    asyncio.run(work())


def test_what_another_process_fails_to_make_quick_to_open_is_opened_as_it_is(
    tmp_path: Path, collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*what: Any) -> None:
        raise BackendError("no memory is left")

    async def work() -> None:
        some = collections()
        await _fill(await some.get(QualifiedName("default", "a")))
        await some.close()
        folder = _kill(tmp_path, some)
        some = collections()
        collection = await some.get(QualifiedName("default", "a"))
        monkeypatch.setattr(qdrant_edge, "SLOW_TO_OPEN", MANY - 1)
        monkeypatch.setattr(physical, "built", fails)
        await collection.documents(1, None)
        assert await collection.count() == (MANY, MANY)
        assert tmp_path / collection.manifest.physical_collection.id == folder
        assert _folders(tmp_path) == _named(some)
        await some.close()

    asyncio.run(work())


def test_a_failed_write_leaves_the_version_that_was_there(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        both = collections()
        a = await both.get(QualifiedName("default", "a"))
        assert await _put(a, "one", text="Old.", digest="old") == 0

        def fails(index: EdgeIndex, versions: Any, older: Any) -> None:
            raise BackendError("no")

        with monkeypatch.context() as patched:
            patched.setattr(EdgeIndex, "keep_only", fails)
            with pytest.raises(BackendError, match="no"):
                await _put(a, "one", text="New.", digest="new")
        assert [chunk.text for chunk in (await a.read(10, None)).chunks] == ["Old."]
        assert await _put(a, "one", text="New.", digest="new") == 1
        assert [chunk.text for chunk in (await a.read(10, None)).chunks] == ["New."]
        await both.close()

    asyncio.run(work())


def test_what_is_written_while_an_empty_collection_goes_is_not_lost(
    collections: Callable[..., Collections], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        all_ = collections()
        new = QualifiedName("default", "new")
        writing: list[asyncio.Task[None]] = []

        async def write() -> None:
            async with all_.filling(new, None, None) as collection:
                await _fill(collection)

        count = Collection.count

        async def counted(self: Collection) -> tuple[int, int]:
            found = await count(self)
            if not writing:
                writing.append(asyncio.create_task(write()))
                for _ in range(20):  # it gets as far as it can
                    await asyncio.sleep(0.01)
            return found

        monkeypatch.setattr(Collection, "count", counted)
        with pytest.raises(BackendError, match="no more"):
            async with all_.filling(new, None, None):
                raise BackendError("no more")
        with pytest.raises(NotFound):
            await writing[0]
        assert new not in all_.names()
        await all_.close()

    asyncio.run(work())


def test_a_collection_made_to_be_filled_goes_where_nothing_came_into_it(
    collections: Callable[..., Collections],
) -> None:
    async def work() -> None:
        all_ = collections()
        new, kept = QualifiedName("default", "new"), QualifiedName("default", "a")

        async def fail(name: QualifiedName, until: asyncio.Event, begun: asyncio.Event) -> None:
            async with all_.filling(name, None, None):
                begun.set()
                await until.wait()
                raise BackendError("no more")

        async def failing(name: QualifiedName) -> tuple[asyncio.Task[None], asyncio.Event]:
            may_end, begun = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(fail(name, may_end, begun))
            await begun.wait()
            return task, may_end

        async def ended(task: asyncio.Task[None], may_end: asyncio.Event) -> None:
            may_end.set()
            with pytest.raises(BackendError, match="no more"):
                await task

        await ended(*await failing(new))
        assert new not in all_.names()
        await ended(*await failing(kept))
        assert kept in all_.names(), "it was there before"
        # Of several that fill it, the last to fail sees to it, and where one succeeds, it stays.
        first, second = await failing(new), await failing(new)
        await ended(*first)
        assert new in all_.names()
        await ended(*second)
        assert new not in all_.names()
        cancelled, _ = await failing(new)
        cancelled.cancel()
        with suppress(asyncio.CancelledError):
            await cancelled
        assert new not in all_.names()
        first = await failing(new)
        async with all_.filling(new, None, None):
            pass
        await ended(*first)
        assert new in all_.names()
        await all_.close()

    asyncio.run(work())
