"""Vectors kept by the content of their texts: right, bounded, and never in the way."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import threading
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from anyio import to_thread

from llmbackend import InvalidRequest, LLMBackendClient, threads
from llmbackend.inference import cache, cache_writer, cached_embedder
from llmbackend.inference.cache import Cache
from llmbackend.inference.cached_embedder import CachedEmbedder
from llmbackend.inference.embeddings import (
    Cut,
    EmbeddingBatch,
    TextRefused,
    TokenIds,
    TooLong,
    no_tokens,
    unit,
)
from llmbackend.inference.fingerprint import Fingerprint
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

TEXTS = ["a cat sat on the mat", "the quarterly report is late", "naïve café ☕", "a\0b", "\ud800"]


class Counting:
    """A model that makes vectors up and counts the texts it is asked for."""

    def __init__(self, name: str = "counting", dimension: int = 256) -> None:
        self.name = name
        self.dimension = dimension
        self.asked: list[str] = []

        self.names = (name,)
        rows = np.random.default_rng(len(name)).normal(size=(3, dimension))
        self.made_by = Fingerprint(name, vectors=unit(np.array(rows, np.float32)))

    async def fingerprint(self) -> Fingerprint:
        return self.made_by

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        self.asked += texts
        for text in texts:
            if text == "refused":
                raise TextRefused(text, "it is refused", {})
        seeds = [sum(text.encode(errors="surrogatepass")) + len(self.name) for text in texts]
        rows = [np.random.default_rng(seed).normal(size=dimensions or self.dimension) for seed in seeds]
        cut = [Cut(index, 900, 512, 2) for index, text in enumerate(texts) if text == "long"]
        return EmbeddingBatch(unit(np.array(rows, dtype=np.float32)), [len(text) for text in texts], cut)

    def at_once(self, text: str, dimensions: int | None) -> None:
        pass

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        raise no_tokens(self.name)

    async def close(self) -> None:
        pass


def _through(embedder: CachedEmbedder, texts: list[str], **how: Any) -> EmbeddingBatch:
    """Embedded, and what is new written to the file."""

    async def work() -> EmbeddingBatch:
        try:
            return await embedder.embed(texts, **how)
        finally:
            await embedder.close()

    return asyncio.run(work())


def _embed(model: Counting | StaticEmbedder, file: Path, texts: list[str], **how: Any) -> EmbeddingBatch:
    """Through a cache of its own on this file."""
    return _through(CachedEmbedder(model, Cache(file, 256)), texts, **how)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "embeddings.db"


def test_what_was_embedded_once_is_not_embedded_again(file: Path) -> None:
    model = Counting()
    first = _embed(model, file, TEXTS)
    assert model.asked == TEXTS
    again = _embed(model, file, [*TEXTS[::-1], "one more"])
    assert model.asked == [*TEXTS, "one more"]
    assert np.array_equal(again.values[:5], first.values[::-1])
    assert again.tokens == [*first.tokens[::-1], 8]


def test_a_vector_in_memory_waits_for_no_thread(file: Path) -> None:
    async def work() -> tuple[EmbeddingBatch, EmbeddingBatch]:
        embedder = CachedEmbedder(Counting(), Cache(file, 256))
        try:
            first = await embedder.embed(["long"])
            leave = threading.Event()
            taken = [asyncio.ensure_future(threads.files(leave.wait)) for _ in range(threads.files.free)]
            while threads.files.free:  # noqa: ASYNC110  # they begin in threads
                await asyncio.sleep(0.01)
            try:
                again = await asyncio.wait_for(embedder.embed(["long"]), 20)
            finally:
                leave.set()
                await asyncio.gather(*taken)
            return first, again
        finally:
            await embedder.close()

    first, again = asyncio.run(work())
    assert again.values.tobytes() == first.values.tobytes()
    assert (again.tokens, again.cut) == (first.tokens, first.cut)


def test_kept_vectors_are_the_same_bits(file: Path) -> None:
    model = StaticEmbedder()
    texts = TEXTS[:4]
    plain = asyncio.run(model.embed(texts))
    for _ in range(2):
        cached = _embed(model, file, texts)
        assert cached.values.tobytes() == plain.values.tobytes()
        assert cached.tokens == plain.tokens


def test_a_text_that_comes_again_is_asked_for_once(file: Path) -> None:
    model = Counting()
    vectors = _embed(model, file, ["a", "b", "a"])
    assert model.asked == ["a", "b"]
    assert np.array_equal(vectors.values[0], vectors.values[2])
    assert vectors.tokens == [1, 1, 1]


def test_models_dimensions_and_ways_of_cutting_do_not_mix(file: Path) -> None:
    one, other = Counting("one"), Counting("the other")
    mixed = [_embed(one, file, TEXTS).values, _embed(other, file, TEXTS).values]
    assert not np.array_equal(*mixed)
    assert _embed(one, file, TEXTS, dimensions=64).values.shape[1] == 64
    _embed(one, file, TEXTS, too_long="truncate")
    assert (len(one.asked), len(other.asked)) == (3 * len(TEXTS), len(TEXTS))
    assert np.array_equal(_embed(one, file, TEXTS).values, mixed[0])


def test_what_was_cut_is_told_again(file: Path) -> None:
    for texts in (["long", "short"], ["short", "long"]):
        assert _embed(Counting(), file, texts).cut == [Cut(texts.index("long"), 900, 512, 2)]


def test_a_refused_text_is_named_by_its_place_among_all(file: Path) -> None:
    _embed(Counting(), file, TEXTS)
    with pytest.raises(InvalidRequest, match=r"input\[6\]: it is refused") as caught:
        _embed(Counting(), file, [*TEXTS, "new", "refused"])
    assert caught.value.details == {"index": 6}


def test_a_model_is_known_by_its_vectors_whatever_it_is_called(file: Path) -> None:
    _embed(Counting(), file, TEXTS)
    same, another = Counting(), Counting()
    assert same.made_by.vectors is not None
    # On other hardware, numbers differ a little.
    noise = np.random.default_rng(0).normal(scale=0.004, size=same.made_by.vectors.shape)
    same.made_by = Fingerprint("renamed", vectors=unit(np.float32(same.made_by.vectors + noise)))
    another.made_by = Fingerprint("counting", vectors=-same.made_by.vectors)
    _embed(same, file, TEXTS)
    assert same.asked == []
    _embed(another, file, TEXTS)
    assert another.asked == TEXTS


def test_a_model_that_changes_between_two_calls_shares_nothing(file: Path) -> None:
    model = Counting()

    async def work() -> None:
        embedder = CachedEmbedder(model, Cache(file, 256))
        await embedder.embed(["a", "b"])
        model.made_by = Counting("another name").made_by
        assert (await embedder.embed(["a", "b", "c"])).made_by is model.made_by
        await embedder.close()

    asyncio.run(work())
    assert model.asked == ["a", "b", "a", "b", "c"]


def test_tokens_that_are_not_told_stay_unknown(file: Path) -> None:
    model = Counting()
    made = model.embed

    async def untold(texts: Sequence[str], **how: Any) -> EmbeddingBatch:
        return (await made(texts, **how))._replace(tokens=[None] * len(texts))

    model.embed = untold  # type: ignore[method-assign]
    for _ in range(2):
        assert _embed(model, file, ["a", "b"]).tokens == [None, None]
    model.embed = made  # type: ignore[method-assign]
    vectors = _embed(model, file, ["a", "b", "c"])
    assert (list(vectors.tokens), vectors.total) == ([None, None, 1], None)
    assert model.asked == ["a", "b", "c"]


def test_vectors_of_another_length_are_not_mixed_with_those_kept(file: Path) -> None:
    _embed(Counting(dimension=256), file, ["a", "b"])
    vectors = _embed(Counting(dimension=384), file, ["a", "b", "c"])
    assert vectors.values.shape == (3, 384)
    assert _embed(Counting(dimension=384), file, ["a", "b", "c"]).values.shape == (3, 384)


# Its size


def _texts(start: int, count: int) -> list[str]:
    return [f"text {number}" for number in range(start, start + count)]


def test_the_bound_holds_and_the_least_recently_used_go_first(file: Path) -> None:
    model, cache = Counting(), Cache(file, 1)
    embedder = CachedEmbedder(model, cache)

    def written() -> None:
        """How far the disk is behind is not the matter here."""
        while cache._queue._bytes:
            time.sleep(0.001)

    async def asked(texts: list[str]) -> int:
        before = len(model.asked)
        await embedder.embed(texts)
        await asyncio.to_thread(written)
        return len(model.asked) - before

    async def work() -> None:
        favourite, rival = _texts(0, 20), _texts(20, 20)
        for texts in (favourite, rival):
            assert await asked(texts) == len(texts)
        for start in range(100, 3000, 100):
            assert await asked(_texts(start, 100)) == 100
            assert await asked(favourite) == 0
        assert await asked(_texts(2700, 300)) == 0
        assert await asked(rival) == len(rival)
        await embedder.close()

    asyncio.run(work())
    assert file.stat().st_size <= 2**20


def test_more_at_once_than_fits_is_answered(file: Path) -> None:
    model = Counting()
    embedder = CachedEmbedder(model, Cache(file, 1))
    texts = _texts(0, 3000)
    plain = asyncio.run(model.embed(texts))
    assert np.array_equal(_through(embedder, texts).values, plain.values)
    assert 2**19 < file.stat().st_size <= 2**20


def test_a_smaller_bound_than_before_holds_at_once(file: Path) -> None:
    _embed(Counting(), file, _texts(0, 3000))
    assert file.stat().st_size > 2**20
    embedder = CachedEmbedder(Counting(), Cache(file, 1))
    for _ in range(2):
        _through(embedder, ["a"])
    assert file.stat().st_size <= 2**20


def test_none_is_kept_if_so_set(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, embedding_cache_mb=0)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        assert client.embed(["a text"]) == client.embed(["a text"])
    assert not (tmp_path / "embeddings.db").exists()


# Its faults


def _scrambled(file: Path, start: int) -> None:
    whole = bytearray(file.read_bytes())
    noise = np.random.default_rng(0).bytes(len(whole) - start)
    file.write_bytes(whole[:start] + noise)


def _overwrite_a_vector(file: Path) -> None:
    with sqlite3.connect(file) as database:
        database.execute("UPDATE vectors SET vector = zeroblob(length(vector)) WHERE place = 2")
    database.close()


def _another_table(file: Path) -> None:
    file.unlink()
    with sqlite3.connect(file) as database:
        database.execute("CREATE TABLE vectors (something INTEGER)")
    database.close()


DAMAGES = {
    "not a database": lambda file: file.write_text("not a database at all, but a text" * 100),
    "its end is missing": lambda file: file.write_bytes(file.read_bytes()[:5000]),
    "noise from the second page on": lambda file: _scrambled(file, 4096),
    "a vector is another": _overwrite_a_vector,
    "another program's table": _another_table,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_begun_anew(file: Path, caplog: pytest.LogCaptureFixture, damage: str) -> None:
    texts = _texts(0, 50)
    first = _embed(Counting(), file, texts)
    DAMAGES[damage](file)
    for _ in range(2):  # what is thrown away while reading is written again, at the second call at the latest
        assert np.array_equal(_embed(Counting(), file, texts).values, first.values)
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert str(file) in caplog.text
    model = Counting()
    assert np.array_equal(_embed(model, file, texts).values, first.values)
    assert model.asked == []


def test_damage_while_it_is_open_is_no_error_of_a_call(file: Path) -> None:
    embedder = CachedEmbedder(Counting(), Cache(file, 256))

    async def work() -> None:
        expected = (await embedder.embed(TEXTS)).values
        for start in range(0, 9000, 3000):
            await embedder.embed(_texts(start, 1000))
            await to_thread.run_sync(file.write_bytes, b"nonsense" * 1000)
            assert np.array_equal((await embedder.embed(TEXTS)).values, expected)
        await embedder.close()

    asyncio.run(work())


def test_a_file_that_cannot_be_written_costs_no_result(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    file.mkdir()
    for _ in range(3):
        assert len(_embed(Counting(), file, TEXTS).values) == len(TEXTS)
    assert file.is_dir()
    caplog.clear()
    embedder = CachedEmbedder(Counting(), Cache(file, 256))
    for number in range(3):
        _through(embedder, [f"text {number}"])
    assert len(caplog.records) == 1, "it is told once"


def test_threads_may_share_it(file: Path) -> None:
    model, cache = Counting(), Cache(file, 1)
    embedder = CachedEmbedder(model, cache)
    expected = asyncio.run(model.embed(_texts(0, 600))).values
    together = threading.Barrier(6)

    def work(number: int) -> None:
        together.wait()
        for start in range(0, 500, 50):
            start = (start + number * 130) % 500
            vectors = asyncio.run(embedder.embed(_texts(start, 100)))
            assert np.array_equal(vectors.values, expected[start : start + 100])

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(work, range(6)))
    cache.close()


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class _Slow(sqlite3.Connection):
    """A connection to a disk that is at a standstill until told otherwise."""

    moves = threading.Event()
    reads = threading.Event()

    def __exit__(self, *error: Any) -> Any:
        assert self.moves.wait(60)
        return super().__exit__(*error)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        assert not sql.startswith("SELECT key") or self.reads.wait(60)
        return super().execute(sql, *values)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[_Slow]]:
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **more: connect(*args, **more, factory=_Slow))
    _Slow.moves.clear()
    _Slow.reads.set()
    yield _Slow
    _Slow.moves.set()
    _Slow.reads.set()


@pytest.mark.anyio
async def test_what_a_slow_disk_has_no_room_for_is_not_kept(
    file: Path, slow: type[_Slow], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_writer, "QUEUED", 2**20)
    monkeypatch.setattr(cache, "MEMORY", 2**20)
    model = Counting(dimension=1024)
    embedder = CachedEmbedder(model, Cache(file, 256))
    texts = [f"text {number}" for number in range(4000)]
    await embedder.embed(["a text"])
    tracemalloc.start()
    for start in range(0, len(texts), 20):
        await embedder.embed(texts[start : start + 20])
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 6 * 2**20, "of 16 MB of vectors"
    assert caplog.text.count("not kept") == 1
    slow.moves.set()
    await embedder.close()
    assert caplog.text.count("not kept") == 2
    model.asked.clear()
    again = CachedEmbedder(model, Cache(file, 256))
    await again.embed(texts)
    assert model.asked[0] not in texts[:200]
    assert 200 < 4000 - len(model.asked) < 400
    await again.close()


@pytest.mark.anyio
async def test_closing_waits_for_a_slow_disk_for_a_while(
    file: Path, slow: type[_Slow], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cache_writer, "CLOSING", 0.3)
    embedder = CachedEmbedder(Counting(), Cache(file, 256))
    await embedder.embed(["one"])
    await embedder.embed(["two", "three"])
    with anyio.fail_after(30):
        await embedder.close()
    assert "entries are not kept" in caplog.text


@pytest.mark.anyio
async def test_what_is_in_memory_does_not_wait_for_a_slow_disk(file: Path, slow: type[_Slow]) -> None:
    model = Counting()
    embedder = CachedEmbedder(model, Cache(file, 256))
    await embedder.embed(["one", "two"])
    slow.reads.clear()
    async with anyio.create_task_group() as hanging:
        hanging.start_soon(embedder.embed, ["three"])
        await anyio.sleep(0.2)
        with anyio.fail_after(20):
            await embedder.embed(["one"])
            await embedder.embed(["one", "two"])
        assert model.asked == ["one", "two"]
        slow.reads.set()
    slow.moves.set()
    await embedder.close()


def test_a_great_many_new_texts_go_by_without_the_cache(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quick model makes them anew in the time that keeping them would take."""
    monkeypatch.setattr(cached_embedder, "BULK", 200)
    model = Counting()
    batches = [[f"{number}: {place}" for place in range(100)] for number in range(5)]

    async def asked(embedder: CachedEmbedder, texts: list[str]) -> int:
        before = len(model.asked)
        vectors = await embedder.embed(texts)
        assert len(vectors.values) == len(texts)
        return len(model.asked) - before

    async def work(keeps_bulk: bool) -> list[int]:
        embedder = CachedEmbedder(
            model, Cache(file.with_suffix(f".{keeps_bulk}"), 256), keeps_bulk=keeps_bulk
        )
        try:
            for batch in batches:
                assert await asked(embedder, batch) == 100
            assert embedder.misses == 500
            # What was kept before is found all the same, and from then on all is kept again.
            again = [
                await asked(embedder, batch) for batch in (batches[4], batches[0], batches[4], batches[4])
            ]
            few = [await asked(embedder, ["one", "two"]) for _ in range(2)]
            return again + few
        finally:
            await embedder.close()

    assert asyncio.run(work(True)) == [0, 0, 0, 0, 2, 0]
    assert asyncio.run(work(False)) == [100, 0, 100, 0, 2, 0]
