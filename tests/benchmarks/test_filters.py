"""A search by a filter that keeps 2 % of the chunks beside the same search without, and what indexes of the fields cost."""

from __future__ import annotations

import gc
import itertools
import statistics
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from llmbackend.engines.edge_build import _build
from llmbackend.engines.filters import conditions
from llmbackend.engines.indexes import Indexes
from llmbackend.engines.interface import LISTS, Chunk, Layout, Mode, Search
from llmbackend.engines.qdrant_edge import EdgeIndex
from llmbackend.knowledge.collections.index_building import GROWN

from .test_search import BATCH, Corpus, Table, _disk

pytestmark = [pytest.mark.benchmark, pytest.mark.timeout(3 * 3600)]

TOP, QUERIES = 10, 30
DIMENSION = 256
INDEXES: Indexes = {"kind": "keyword", "price": "float", "signed": "datetime", "tags": "keyword"}
KINDS, TAGS = 50, 150


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "points" in metafunc.fixturenames:
        metafunc.parametrize("points", metafunc.config.getoption("--points", None) or [10_000, 25_000])


def _metadata(number: int) -> dict[str, Any]:
    """Fields that are declared, and the same by other names, that are not."""
    mixed = number * 2_654_435_761 % 2**32  # spread over the corpus, without a generator's time
    fields = {
        "kind": f"k{mixed % KINDS}",
        "price": (mixed >> 8) % 10_000 / 100,
        "signed": f"2026-{1 + (mixed >> 4) % 12:02}-{1 + (mixed >> 12) % 28:02}",
        "tags": [f"t{(mixed + step) % TAGS}" for step in (0, 37, 91)],
    }
    return fields | {f"other_{name}": value for name, value in fields.items()}


def _price(low: float, share: float) -> dict[str, float]:
    return {"gte": low, "lt": low + share}


def _filters(before: str, n: int) -> dict[str, dict[str, Any]]:
    """What keeps 2 % of the chunks; each `n` gives others."""
    kind, price, signed, tags = (before + name for name in INDEXES)
    month, day = 1 + n % 12, 1 + n % 21
    return {
        "a text": {kind: f"k{n % KINDS}"},
        "the same text": {kind: "k7"},
        "numbers": {price: _price(2 * (n % 49), 2)},
        "times": {signed: {"gte": f"2026-{month:02}-{day:02}", "lt": f"2026-{month:02}-{day + 7:02}"}},
        "one of a list": {tags: f"t{n % TAGS}"},
        "two fields": {kind: [f"k{(n + step) % KINDS}" for step in range(10)], price: _price(n, 10)},
        "three fields": {
            kind: [f"k{(n + step) % KINDS}" for step in range(10)],
            price: _price(n, 25),
            tags: [f"t{(n + step) % TAGS}" for step in range(20)],
        },
        "not": {price: _price(n, 4), "not": {kind: [f"k{even}" for even in range(0, KINDS, 2)]}},
        "not, and, or": {
            "and": [
                {"or": [{kind: f"k{n % KINDS}"}, {kind: f"k{(n + 7) % KINDS}"}]},
                {"not": {price: {"gte": 50}}},
            ]
        },
        "or": {"or": [{kind: f"k{n % KINDS}", price: _price(0, 50)}, {price: _price(n, 1)}]},
    }


def _written(corpus: Corpus, points: int) -> Iterator[tuple[list[Chunk], Any]]:
    for start in range(0, points, BATCH):
        texts = corpus.texts(min(BATCH, points - start))
        yield (
            [
                Chunk(f"d{number}", "v1", 0, 1, text, metadata=_metadata(number))
                for number, text in enumerate(texts, start)
            ],
            corpus.vectors(len(texts)),
        )


Asked = tuple[str, Any]
"""A query's text and its vector."""


def _search(index: EdgeIndex, asked: Asked, mode: Mode, filters: dict[str, Any] | None = None) -> list[Any]:
    text, vector = asked
    found: list[Any] = index.search(
        Search(text, vector, mode=mode, top_k=TOP, conditions=conditions(filters))
    )
    return found


def _medians(
    index: EdgeIndex, queries: Sequence[Asked], mode: Mode, before: str, name: str
) -> tuple[float, float]:
    """Milliseconds of the processor, without and with the filter, taking turns."""
    without: list[float] = []
    within: list[float] = []
    for number, asked in enumerate(queries):
        for spent, filters in ((without, None), (within, _filters(before, number)[name])):
            began = time.process_time()
            _search(index, asked, mode, filters)
            spent.append(1000 * (time.process_time() - began))
    return statistics.median(without), statistics.median(within)


def _first_filters(index: EdgeIndex, queries: Sequence[Asked]) -> None:
    """What the first filters on fields without an index cost, and how long other searches take meanwhile."""
    waits: list[float] = []
    ended = threading.Event()

    def ask(seconds: float = 1e9) -> None:
        until = time.perf_counter() + seconds
        for asked in itertools.cycle(queries):
            if ended.is_set() or time.perf_counter() > until:
                return
            began = time.perf_counter()
            _search(index, asked, "hybrid")
            waits.append(1000 * (time.perf_counter() - began))
            time.sleep(0.02)

    def told() -> str:
        waits.sort()
        last = waits[len(waits) * 99 // 100]
        told = (
            f"p50 {statistics.median(waits):.1f}, p99 {last:.0f}, longest {waits[-1]:.0f} ms of {len(waits)}"
        )
        waits.clear()
        return told

    memory = _anonymous()
    ask(5)
    quiet = told()
    other = threading.Thread(target=ask)
    other.start()
    spent, began, firsts = time.process_time(), time.perf_counter(), []
    for filters in _filters("other_", 1).values():
        asked = time.perf_counter()
        assert _search(index, queries[0], "hybrid", filters)
        firsts.append(time.perf_counter() - asked)
    _wait_for_columns(index)
    took, spent = time.perf_counter() - began, time.process_time() - spent
    ended.set()
    other.join()
    print(
        f"    the first filter {firsts[0]:.2f} s, {len(firsts) - 1} others {statistics.median(firsts[1:]):.2f}; fields read after "
        f"{took:.1f} s, {spent:.1f} of the processor (other searches included), {_anonymous() - memory:,.0f} MB\n"
        f"    other searches before: {quiet}\n    meanwhile: {told()}",
        flush=True,
    )


def _wait_for_columns(index: EdgeIndex) -> None:
    while index._filtering._thread is not None:
        time.sleep(0.05)


def _anonymous() -> float:
    """Megabytes of this process's memory, without pages of files."""
    gc.collect()
    about = psutil.Process().memory_info()
    return float(about.rss - about.shared) / 2**20


def test_search_with_a_filter(tmp_path: Path, points: int, table: Table) -> None:
    folder = tmp_path / str(uuid.uuid4())
    began, corpus = time.process_time(), Corpus(points, DIMENSION)
    EdgeIndex.create(folder, DIMENSION, INDEXES)
    index = EdgeIndex(folder)
    for chunks, vectors in _written(corpus, points):
        index.upsert(chunks, vectors)
    index.close()
    print(f"\n{points:,} chunks: written in {time.process_time() - began:.0f} s of the processor", flush=True)
    if graph := points >= GROWN:
        began = time.process_time()
        _build(folder, Layout(DIMENSION, INDEXES), "graph")
        print(f"    the graph in {time.process_time() - began:.0f}", flush=True)
    index = EdgeIndex(folder)
    queries = list(zip(corpus.texts(QUERIES, words=6), corpus.vectors(QUERIES), strict=True))
    rows: list[tuple[object, ...]] = [("", "mode", "without ms", "with ms", "ratio")]
    ratios = []
    try:
        for before in ("", "other_"):
            if before:
                _first_filters(index, queries)
            for name, filters in _filters(before, 0).items():
                _search(index, queries[0], "hybrid", filters)  # has its fields read, if it needs them
                _wait_for_columns(index)
                for mode in LISTS:
                    without, within = _medians(index, queries, mode, before, name)
                    ratios.append(within / without)
                    rows.append(
                        (f"{'not ' if before else ''}declared: {name}", mode, without, within, ratios[-1])
                    )
        table(f"{points:,} chunks {'with' if graph else 'without'} a graph", *rows)
        assert statistics.median(ratios) <= 3
    finally:
        index.close()


def test_what_indexes_cost(tmp_path: Path, table: Table) -> None:
    """Of 20,000 chunks, written in turns, a batch each."""
    kinds: dict[str, Indexes] = {"none": {}, "four": INDEXES}
    spent = dict.fromkeys(kinds, 0.0)
    memory = dict.fromkeys(kinds, 0.0)
    for name, indexes in kinds.items():
        EdgeIndex.create(tmp_path / str(uuid.uuid5(uuid.NAMESPACE_OID, name)), DIMENSION, indexes)
    opened = {name: EdgeIndex(tmp_path / str(uuid.uuid5(uuid.NAMESPACE_OID, name))) for name in kinds}
    for chunks, vectors in _written(Corpus(20_000, DIMENSION), 20_000):
        for name, index in opened.items():
            before, began = _anonymous(), time.process_time()
            index.upsert(chunks, vectors)
            spent[name] += time.process_time() - began
            memory[name] += _anonymous() - before
    for index in opened.values():
        index.close()
    table(
        "20,000 chunks with eight fields",
        ("indexes", "s of the processor", "MB of memory", "MB of disk"),
        *((name, spent[name], memory[name], _disk(opened[name].folder)) for name in kinds),
    )
