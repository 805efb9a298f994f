"""Filters on fields that Qdrant Edge has no index for: by columns they find what Edge finds in every payload."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmbackend.engines import bm25, columns, edge_filtering, edge_shard, qdrant_edge
from llmbackend.engines.edge_build import _build
from llmbackend.engines.filters import conditions
from llmbackend.engines.interface import Chunk, Layout, Physical, Search
from llmbackend.engines.qdrant_edge import EdgeIndex, QdrantEdge

VALUES: list[Any] = [
    [], [None], [[]], [[1]], [["x"]], {}, {"b": 1}, [{"b": 1}, {"b": "x"}], {"b": []}, "x", ["x", "y"], "", 1, 1.0, 1.5,
    True, [True, 2], False, 0, -1, 2**53, 2**53 + 1, -(2**63) + 1, 2**63 - 1, [[2026]], 2026, [2025, "2026"], "2026",
    "2026-03-01", "2026-3-1", "2026-03-01T09:30", "2026-03-01 09:30", "2026-03-01T09:30:00",
    "2026-03-01t09:30:00z", "2026-03-01 09:30:00+02:00", "2026-03-01T09:30:00.123456789Z", "2026-03-01T09",
    "20260301", "2026-03-01T09:30:00+0200", "2026-03-01T09:30Z", "2026-02-31", "2026-03-01T09:30:00-00:30",
    ["2026-03-02", "1999-01-01"], "2026-03-01T24:00:00Z", "\u00e9", "e\u0301",
]  # fmt: skip

ASKED: list[dict[str, Any]] = [
    {"exists": True}, {"exists": False}, {"gte": 1}, {"gt": 1, "lt": 2026}, {"lte": -1}, {"gte": "2026-03-01"},
    {"gt": "2026-03-01T07:30:00Z", "lte": "2026-03-01T09:30:00Z"}, {"lt": "2026-01-01"}, {"not": "x"},
    {"not": [1, "2026"]},
]  # fmt: skip
EQUAL: list[Any] = ["x", ["x", "", 1], 1, 1.0, [1.5, 2026], True, False, [True, 0], 2**53, 2**53 + 1, [-(2**63) + 1, 2], "\u00e9",
                    "2026", ["2026-03-01", 2025.0], "2026-03-01", "2026-03-01T07:30:00Z", "2026-03-01T09:30Z",
                    ["2026-03-01T09:30:00+02:00", "1999-01-01", "x"]]  # fmt: skip


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Any]]:
    monkeypatch.setattr(edge_filtering, "COLUMNS_FROM", 1)
    monkeypatch.setattr(columns, "SORT_FROM", 10)
    engine = QdrantEdge(tmp_path)
    opened: list[Any] = []

    def make(documents: dict[str, dict[str, Any]]) -> Any:
        physical = Physical(str(uuid.uuid4()), uuid.UUID(int=7), bm25.NAME)
        engine.create(physical.id, Layout(2))
        index: Any = engine.open(physical)
        opened.append(index)
        _write(index, documents)
        return index

    yield make
    for index in opened:
        index.close()


def _write(index: Any, documents: dict[str, dict[str, Any]], digest: str = "h") -> None:
    chunks = [
        Chunk(name, digest, 0, 1, f"a text {name}", metadata, {"page": number})
        for number, (name, metadata) in enumerate(documents.items())
    ]
    index.upsert(chunks, np.random.default_rng(3).standard_normal((len(chunks), 2)).astype(np.float32))


def _found(index: Any, filters: dict[str, Any], mode: Any = "dense", top_k: int = 1000) -> set[str]:
    where = conditions(filters)
    hits = index.search(Search("text", np.ones(2, np.float32), mode=mode, top_k=top_k, conditions=where))
    return {hit.chunk.document_id for hit in hits}


def _read(index: Any, filters: dict[str, Any]) -> None:
    """Return when the fields that filters ask for are in columns."""
    ends = time.monotonic() + 20
    while index._filtering._covering(conditions(filters), index.about()) is None:
        assert time.monotonic() < ends
        time.sleep(0.002)


def test_columns_find_what_edge_finds_in_payloads(made: Callable[..., Any]) -> None:
    rng = random.Random(5)
    documents = {f"d{n}": {"a": value, "b": rng.choice(VALUES)} for n, value in enumerate(VALUES)}
    documents |= {"none": {}, "dotted": {"a.b": "x", "a": {"b": 2}}}
    index = made(documents)
    asked: list[dict[str, Any]] = [
        {field: one} for field in ("a", "b", "a.b", "a[].b", "a[]", "a[1]") for one in (*ASKED, *EQUAL)
    ]
    for _ in range(100):
        one, another, third = rng.sample(asked, 3)
        asked.append(
            rng.choice(
                [
                    {"and": [one, another]},
                    {"or": [one, another, third]},
                    {"not": {**one, "or": [another, third]}},
                ]
            )
        )
    for filters in asked:
        index._filtering._lookups = 10**6
        where = [index._condition(one) for one in conditions(filters)]
        expected = {
            index._payloads([point])[0][1]["document_id"]
            for point in index.ids_of(index.syntax.group(must=where), 1000)
        }
        _read(index, filters)
        columns = index._filtering._covering(conditions(filters), index.about())
        rows = columns.fitting(conditions(filters)).nonzero()[0]
        found = {index._payloads([uuid.UUID(one)])[0][1]["document_id"] for one in columns.ids(rows)}
        assert found == expected, filters
        assert _found(index, filters) == expected, filters


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_what_is_written_and_deleted_is_found_or_not_at_once(made: Callable[..., Any], mode: Any) -> None:
    index = made({f"d{n}": {"team": n % 5} for n in range(50)})
    _read(index, {"team": 1})
    expected = {f"d{n}" for n in range(50) if n % 5 == 1}
    assert _found(index, {"team": 1}, mode) == expected
    _write(index, {"d1": {"team": 2}, "new": {"team": 1}}, digest="other")
    index.keep_only([("d1", "other")])
    index.delete(["d6"])
    assert index._filtering._covering(conditions({"team": 1}), index.about()), "they are kept up with it"
    assert _found(index, {"team": 1}, mode) == expected - {"d1", "d6"} | {"new"}
    assert _found(index, {"team": {"not": [1, 2, 3]}}, mode) == {
        f"d{n}" for n in range(50) if n % 5 in (0, 4)
    }
    assert _found(index, {"team": 77}, mode) == set()


@pytest.mark.parametrize("limit", [20, 40])
def test_without_columns_each_is_found_once_where_many_have_the_same_score(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, limit: int
) -> None:
    monkeypatch.setattr(edge_filtering, "COLUMNS_FROM", 10**6)
    index, rng = made({}), random.Random(1)
    texts = [" ".join(f"word{rng.randrange(40)}" for _ in range(6)) for _ in range(1500)]
    chunks = [Chunk(f"d{n}", "h", 0, 1, text, {"team": n % 4}) for n, text in enumerate(texts)]
    index.upsert(chunks, np.ones((len(chunks), 2), np.float32))
    for question in texts[:10]:
        found = index.lists(question, None, ["sparse"], limit, conditions({"team": 1}))["sparse"]
        assert len({point for point, _ in found}) == limit
        there = index.chunks([point for point, _ in found]).values()
        assert {chunk.metadata["team"] for chunk in there} == {1}


def test_what_is_written_while_columns_are_read_is_in_them(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = made({f"d{n}": {"team": "a"} for n in range(40)})
    half, go_on = threading.Event(), threading.Event()
    pages = index.pages

    def slow(payload: list[str], size: int) -> Iterator[Any]:
        for page in pages(payload, 20):
            yield page
            half.set()
            assert go_on.wait(20)

    monkeypatch.setattr(index, "pages", slow)
    assert len(_found(index, {"team": "a"})) == 40
    assert half.wait(20)
    _write(index, {f"e{n}": {"team": "a"} for n in range(30)})
    go_on.set()
    _read(index, {"team": "a"})
    assert len(_found(index, {"team": "a"})) == 70
    assert _found(index, {"page": 29}) == {"d29", "e29"}, "a field that there is no column of yet"


@pytest.mark.parametrize("share", [2, 50], ids=["half", "one in fifty"])
def test_however_many_fit_the_best_of_them_are_found(
    made: Callable[..., Any], share: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for named, look in ((10_000, 10), (7, 10), (7, 0)):
        monkeypatch.setattr(edge_filtering, "NAMED_AT_ONCE", named)
        monkeypatch.setattr(edge_filtering, "A_LOOK", look)
        index = made({f"d{n}": {"n": n} for n in range(400)})
        where = conditions({"n": list(range(0, 400, share))})

        def ranked(index: Any = index, where: Any = where) -> list[str]:
            found = index.search(
                Search("text d4 d50", np.ones(2, np.float32), mode="dense", top_k=5, conditions=where)
            )
            return [hit.chunk.document_id for hit in found]

        index._filtering._lookups = 10**6
        before = ranked()
        _read(index, {"n": 1})
        assert ranked() == before
        assert len(before) == 5


@pytest.fixture(scope="module")
def with_graph(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, Any]:
    """A folder of points with a graph, which tests only read, their vectors and their values."""
    layout, rng = Layout(32, {"a": "float", "b": "float"}), np.random.default_rng(3)
    folder, vectors = tmp_path_factory.mktemp("graph") / str(uuid.uuid4()), rng.standard_normal((2500, 32))
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    values = rng.random((len(vectors), 2))
    EdgeIndex.create(folder, 32, layout.indexes)
    index = EdgeIndex(folder)
    index.upsert(
        [
            Chunk(f"d{n}", "h", 0, 1, "text", {"a": a, "b": b, "x": a, "y": b})
            for n, (a, b) in enumerate(values.tolist())
        ],
        vectors,
    )
    index.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_shard, "GRAPH_FROM", 10)
        patch.setattr(edge_shard, "FULL_SCAN", 10)
        _build(folder, layout, "graph")
    return folder, vectors, values


@pytest.mark.parametrize("looked_at", [10_000, 10], ids=["looked at", "near the top"])
@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("fields", ["a", "ab", "xy"])
def test_with_a_graph_the_best_that_fit_are_found(
    with_graph: tuple[Path, Any, Any],
    monkeypatch: pytest.MonkeyPatch,
    looked_at: int,
    share: float,
    fields: str,
) -> None:
    """Edge's own search of the graph by such a filter finds a third of them."""
    monkeypatch.setattr(edge_filtering, "LOOKED_AT", looked_at)
    monkeypatch.setattr(edge_filtering, "A_LOOK", 0 if looked_at == 10 else 10)
    monkeypatch.setattr(edge_shard, "GRAPH_FROM", 10)
    monkeypatch.setattr(edge_shard, "FULL_SCAN", 10)
    folder, vectors, values = with_graph
    index = EdgeIndex(folder)
    bound = share if len(fields) == 1 else share**0.5
    filters = {field: {"lt": bound} for field in fields}
    fitting = (values[:, : len(fields)] < bound).all(axis=1).nonzero()[0]
    if fields == "xy":
        _read(index, filters)
    hits = 0
    for query in np.random.default_rng(4).standard_normal((40, 32)).astype(np.float32):
        asked = Search("", query, mode="dense", top_k=10, conditions=conditions(filters))
        best = fitting[np.argsort(-(vectors[fitting] @ query))[:10]]
        hits += len({hit.chunk.document_id for hit in index.search(asked)} & {f"d{n}" for n in best})
    index.close()
    assert hits == 400 if looked_at == 10_000 else hits >= 390


def test_by_words_the_best_that_fit_are_found_however_many_these_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng, layout = random.Random(8), Layout(2, {"team": "integer"})
    words = ["quay", "crane", "tide", "mole", "dredger", "pilot", "buoy"]
    chunks = [
        Chunk(
            f"d{n}",
            "h",
            0,
            1,
            " ".join(rng.choices(words, k=rng.randrange(1, 9))),
            {"team": n % 4, "other": n % 4},
        )
        for n in range(1500)
    ]
    found = []
    for looked_at in (1, 500):
        monkeypatch.setattr(edge_shard, "LOOKED_AT", looked_at)
        folder = tmp_path / str(uuid.uuid4())
        EdgeIndex.create(folder, 2, layout.indexes)
        index = EdgeIndex(folder)
        index.upsert(chunks, np.ones((len(chunks), 2), np.float32))
        index.close()
        _build(folder, layout, "segments")
        index = EdgeIndex(folder)
        _read(index, {"other": 1})
        for field in ("team", "other"):
            asked = Search(
                "a crane or a buoy", None, mode="sparse", top_k=300, conditions=conditions({field: 1})
            )
            hits = index.search(asked)
            assert {hit.chunk.metadata[field] for hit in hits} == {1}
            found.append([round(hit.score, 4) for hit in hits])
        index.close()
    assert found[0] == found[1] == found[2] == found[3]
    assert 100 < len(found[0]) < 300


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
@pytest.mark.parametrize("clock", ["stands still", "was not indexed"])
def test_points_that_have_no_time_of_their_own_are_named_by_their_ids(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, clock: str, mode: Any
) -> None:
    monkeypatch.setattr(qdrant_edge, "LARGE", 1)
    index = made({})
    if clock == "stands still":
        monkeypatch.setattr(index, "_moment", lambda _: 7)
    else:
        index._update(index._edge.UpdateOperation.delete_field_index("written"))
        index._learn_indexes()
    _write(index, {f"d{n}": {"team": n % 5} for n in range(50)})
    _read(index, {"team": 1})
    for top_k in (3, 50):
        found = _found(index, {"team": 1}, mode, top_k)
        assert found <= {f"d{n}" for n in range(1, 50, 5)}
        assert len(found) == min(top_k, 10)
    assert index.lacks({}) == (clock == "was not indexed"), "then it is rebuilt"
    index.close()
    _build(index.folder, Layout(2), "indexes")
    again = EdgeIndex(index.folder)
    assert again.names_by_time
    again.close()


def test_a_clock_that_stands_still_gives_each_chunk_a_time_of_its_own(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 7)
    index = made({f"d{n}": {"team": n % 5} for n in range(50)})
    assert len({chunk.written for chunk in index.read(100, None).chunks}) == 50


@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_what_fits_a_filter_is_found_out_once_until_something_is_written(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, mode: Any
) -> None:
    index = made({f"d{number}": {"a": number % 50} for number in range(1000)})
    _read(index, {"a": 7})
    asked: list[Any] = []
    columns = index._filtering._columns
    fitting = columns.fitting
    monkeypatch.setattr(columns, "fitting", lambda of: asked.append(of) or fitting(of))
    for _ in range(3):
        assert len(_found(index, {"a": 7}, mode, 12)) == 12
    assert len(asked) == 1
    _write(index, {"new": {"a": 7}})
    assert len(_found(index, {"a": 7}, mode, 1000)) == 21
    assert len(asked) == 2


def test_long_lists_are_looked_at_but_not_kept_in_memory(made: Callable[..., Any]) -> None:
    index = made({f"d{n}": {"tags": [f"{n} {value}" for value in range(200)], "n": n} for n in range(3)})
    assert _found(index, {"tags": "1 199"}) == {"d1"}
    assert _found(index, {"tags": ["0 0", "2 7"], "n": {"gte": 1}}) == {"d2"}
    assert index._filtering._covering(conditions({"tags": "1 199"}), index.about()) is None
    assert not index._filtering._asked


def test_of_many_fields_the_last_asked_for_stay(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_filtering, "MOST_COLUMNS", 2)
    monkeypatch.setattr(edge_filtering, "REST", 0)
    index = made({f"d{n}": {"a": 1, "b": 1, "c": 1, "d": 1} for n in range(10)})
    for field in ("a", "b", "c"):
        _read(index, {field: 1})
    _read(index, {"d": 1})
    assert index._filtering._columns.paths == {"metadata.b", "metadata.c", "metadata.d"}
    for number in range(20):
        assert _found(index, {f"made-up-{number}": 1}) == set()
    _read(index, {"made-up-19": 1})
    _read(index, {"last": 1})
    paths = index._filtering._columns.paths
    assert {"metadata.c", "metadata.d"} <= paths, "names that are made up take no place from them"
    assert len(paths) <= 4


def test_names_that_are_made_up_are_looked_for_seldom(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_filtering, "REST", 10**9)
    index = made({f"d{n}": {"a": 1, "b": n} for n in range(10)})
    for field in ("a", "b"):
        _read(index, {field: 1})
    _read(index, {"nobody": 1})
    ends = time.monotonic() + 20
    while not index._filtering._not_before:
        assert time.monotonic() < ends
        time.sleep(0.002)
    for number in range(5):
        assert _found(index, {f"made-up-{number}": 1}) == set()
        assert _found(index, {"b": number}) == {f"d{number}"}
    assert index._filtering._columns.paths == {"metadata.a", "metadata.b", "metadata.nobody"}


def test_another_index_with_the_same_chunks_takes_columns_over(made: Callable[..., Any]) -> None:
    index, another = made({f"d{n}": {"team": n % 5} for n in range(20)}), made({})
    stored = index.read(100, None)
    another.upsert(stored.chunks, stored.vectors)
    _read(index, {"team": 1})
    another.take_over(index)
    assert another._filtering._covering(conditions({"team": 1}), another.about())
    _write(another, {"new": {"team": 1}})
    assert _found(another, {"team": 1}) == {"d1", "d6", "d11", "d16", "new"}


def test_columns_of_what_is_gone_are_read_anew(
    made: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = made({f"d{n}": {"team": 1} for n in range(20)})
    _read(index, {"team": 1})
    index._filtering._most_rows = 40
    for edition in range(3):
        _write(index, {f"d{n}": {"team": 1} for n in range(20)}, digest=str(edition))
        index.keep_only([(f"d{n}", str(edition)) for n in range(20)])
    ends = time.monotonic() + 20
    while len(index._filtering._columns) == 4 * 20:
        assert time.monotonic() < ends
        time.sleep(0.002)
    assert len(_found(index, {"team": 1})) == 20
