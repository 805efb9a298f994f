"""What an index of chunks does, on each engine: written, found, replaced, paged, repaired after a kill.

The server's engine runs on a stand-in for the server (tests/qdrant.py).
"""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbackend import BackendError, InvalidRequest
from llmbackend.engines import bm25, columns, edge_filtering, qdrant_edge
from llmbackend.engines.filters import conditions
from llmbackend.engines.indexes import Indexes
from llmbackend.engines.interface import Chunk, Layout, Physical, Search, VectorEngine, VectorIndex
from llmbackend.engines.qdrant import QdrantIndex
from llmbackend.engines.qdrant_edge import EdgeIndex, QdrantEdge
from llmbackend.engines.qdrant_server import QdrantServer
from tests.qdrant import OneAtATime

# The index


def _vectors(count: int) -> NDArray[np.float32]:
    """Unit vectors, all different."""
    angles = np.arange(count, dtype=np.float32) * 0.01
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def _document(name: str, digest: str, text: str = "a text", total: int = 2, **metadata: Any) -> list[Chunk]:
    """A version of a document, its head last, as ingest writes it."""
    chunks = [
        Chunk(name, digest, number, total, f"{text} {name} {digest} {number}", metadata)
        for number in range(total)
    ]
    return [*chunks[1:], chunks[0]]


def _write(index: VectorIndex, chunks: list[Chunk]) -> None:
    index.upsert(chunks, _vectors(len(chunks)))


def _everything(index: VectorIndex) -> set[tuple[str, str, int]]:
    found = index.search(Search("", _vectors(1)[0], mode="dense", top_k=1000))
    return {(chunk.document_id, chunk.hash, chunk.number) for chunk, *_ in found}


def _engine(kind: str, folder: Path) -> VectorEngine:
    if kind == "edge":
        return QdrantEdge(folder)
    return QdrantServer("http://in-memory", None, 10, folder, client=OneAtATime())


def _physical() -> Physical:
    return Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)


def _made(engine: VectorEngine, physical: Physical | None = None) -> VectorIndex:
    physical = physical or _physical()
    engine.create(physical.id, Layout(2))
    return engine.open(physical)


@pytest.fixture(params=["edge", "qdrant"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorEngine]:
    engine = _engine(request.param, tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def physical() -> Physical:
    return _physical()


@pytest.fixture
def index(engine: VectorEngine, physical: Physical) -> Iterator[VectorIndex]:
    index = _made(engine, physical)
    yield index
    index.close()


def test_edge_gives_way_before_each_point_that_it_makes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine("edge", tmp_path)
    physical = Physical(str(uuid.uuid4()), uuid.uuid4(), bm25.NAME)
    engine.create(physical.id, Layout(2))
    index = engine.open(physical)
    made = 0
    ways: list[int] = []
    point = index._edge.Point  # type: ignore[attr-defined]

    def counted(**given: Any) -> Any:
        nonlocal made
        made += 1
        return point(**given)

    monkeypatch.setattr(index, "_edge", SimpleNamespace(**{**vars(index._edge), "Point": counted}))  # type: ignore[attr-defined]
    monkeypatch.setattr(qdrant_edge.slices, "give_way", lambda: ways.append(made))
    try:
        _write(index, _document("a", "1", total=20))
        assert set(ways) >= set(range(20))
    finally:
        index.close()


def test_what_is_written_is_found_and_counted(index: VectorIndex) -> None:
    _write(index, _document("a", "v1", "a red button") + _document("b", "v1", "thirty days of vacation"))
    assert index.count() == (2, 4)
    best = index.search(Search("vacation days", None, mode="sparse", top_k=1))[0]
    assert best.chunk.document_id == "b"
    assert best.chunk.total == 2
    dense = index.search(Search("", _vectors(1)[0], mode="dense", top_k=3))
    assert [found.score for found in dense] == sorted((found.score for found in dense), reverse=True)
    assert len(index.search(Search("vacation days", _vectors(1)[0], mode="hybrid", top_k=3))) == 3


def test_writing_again_changes_nothing(index: VectorIndex) -> None:
    for _ in range(2):
        _write(index, _document("a", "v1"))
    assert index.count() == (1, 2)


def test_a_listing_has_what_is_replaced_between_its_pages(index: VectorIndex) -> None:
    names = {f"d{number}" for number in range(40)}
    for name in sorted(names):
        _write(index, _document(name, "v1", total=1))
    page = index.documents(15, None)
    found = {head.document_id: head.hash for head in page.heads}
    assert len(found) == 15
    for name in sorted(names):
        _write(index, _document(name, "v2", total=1))
        index.keep_only([(name, "v2")])
    index.delete(["d7"])
    while page.cursor:
        page = index.documents(15, page.cursor)
        listed = [head.document_id for head in page.heads]
        assert len(listed) == len(set(listed)) <= 15
        found |= {head.document_id: head.hash for head in page.heads}
    assert found.keys() - {"d7"} == names - {"d7"}
    assert {digest for name, digest in found.items() if name != "d7"} == {"v2"}


def test_a_version_without_its_head_is_not_stored(index: VectorIndex) -> None:
    _write(index, _document("a", "v1") + _document("b", "v1")[:-1])
    assert index.stored([("a", "v1"), ("b", "v1"), ("a", "v2"), ("c", "v1")]) == {"a"}
    assert index.known(["a", "b", "c"]) == {"a": {"v1"}}
    assert index.count()[0] == 1


def test_only_the_version_kept_stays(index: VectorIndex) -> None:
    _write(index, _document("a", "v1") + _document("a", "v2") + _document("b", "v1"))
    index.keep_only([("a", "v2")])
    assert {found[:2] for found in _everything(index)} == {("a", "v2"), ("b", "v1")}


def test_a_version_discarded_leaves_the_others(index: VectorIndex) -> None:
    _write(index, _document("a", "v1") + _document("a", "v2") + _document("b", "v2"))
    index.discard([("a", "v2")])
    assert {found[:2] for found in _everything(index)} == {("a", "v1"), ("b", "v2")}


# A content hash does not depend on the document's id: two documents may swap their contents.
BEFORE = [("a", "x"), ("b", "y")]
AFTER = [("a", "y"), ("b", "x")]


def test_two_documents_that_swap_their_contents_keep_one_version_each(index: VectorIndex) -> None:
    _write(index, [chunk for version in BEFORE + AFTER for chunk in _document(*version)])
    index.keep_only(AFTER)
    assert {found[:2] for found in _everything(index)} == set(AFTER)


def test_taking_a_swap_back_leaves_the_old_versions_alone(index: VectorIndex) -> None:
    _write(index, [chunk for version in BEFORE + AFTER for chunk in _document(*version)])
    index.discard(AFTER)
    assert {found[:2] for found in _everything(index)} == set(BEFORE)


def test_deleting_tells_how_many_documents_there_were(index: VectorIndex) -> None:
    _write(index, _document("a", "v1") + _document("b", "v1"))
    assert index.delete(["a", "a", "nobody"]) == 1
    assert index.delete(["nobody"]) == 0
    assert index.count() == (1, 2)


def test_documents_come_in_pages(index: VectorIndex) -> None:
    names = {f"d{number}" for number in range(7)}
    _write(index, [chunk for name in names for chunk in _document(name, "v1")])
    found: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        page = index.documents(3, cursor)
        found += [head.document_id for head in page.heads]
        cursor = page.cursor
    assert cursor is None
    assert len(found) == 7
    assert set(found) == names
    with pytest.raises(InvalidRequest, match="cursor"):
        index.documents(3, "not-a-cursor")


FILTERS: list[tuple[dict[str, Any], set[str]]] = [
    ({"team": "hr"}, {"a"}),
    ({"team": ["hr", "it"]}, {"a", "b"}),
    ({"year": 2026}, {"b"}),
    ({"year": {"gte": 2020, "lt": 2026}}, {"a"}),
    ({"year": [2020, 2026]}, {"a", "b"}),
    ({"team": "hr", "year": 2026}, set()),
    ({"share": 0.5}, {"a"}),
    ({"draft": True}, {"b"}),
    ({"a.dotted name": "x"}, {"b"}),
    ({"tags": "red"}, {"a"}),
    ({"nothing": 1}, set()),
    ({"page": 7}, {"b"}),
    ({"headings": "Reset"}, {"b"}),
    ({"draft": {"exists": True}}, {"a", "b"}),
    ({"tags": {"exists": True}}, {"a"}),
    ({"tags": {"exists": False}}, {"b"}),
    ({"page": {"exists": True}}, {"b"}),
    ({"page": {"exists": False}}, {"a"}),
    ({"team": {"not": "hr"}}, {"b"}),
    ({"page": {"not": 7}}, {"a"}),
    ({"year": {"gte": 2000, "not": [2020]}}, {"b"}),
    ({"or": [{"team": "hr"}, {"year": 2026}]}, {"a", "b"}),
    ({"or": [{"team": "hr", "year": 2026}, {"share": 0.7}]}, {"b"}),
    ({"and": [{"team": "hr"}, {"year": 2026}]}, set()),
    ({"not": {"team": "hr"}}, {"b"}),
    ({"not": {"team": "hr", "year": 2026}}, {"a", "b"}),
    ({"not": {"or": [{"team": "hr"}, {"team": "it"}]}}, set()),
    ({"draft": False, "or": [{"tags": "blue"}, {"page": 7}]}, {"a"}),
    # Numbers are numbers, and nothing else is one.
    ({"level": 3}, {"a", "b"}),
    ({"level": 3.0}, {"a", "b"}),
    ({"level": [3, 4]}, {"a", "b"}),
    ({"level": [3.0]}, {"a", "b"}),
    ({"level": {"not": 3}}, set()),
    ({"level": list(range(-500, 0))}, set()),
    ({"level": list(range(1000))}, {"a", "b"}),
    ({"level": "3"}, set()),
    ({"page": 7.0}, {"b"}),
    ({"year": ["2020", 2026.0]}, {"b"}),
    ({"big": 2**60}, {"a"}),
    ({"big": [2**60 + 1]}, set()),
    ({"draft": [True, False]}, {"a", "b"}),
    ({"draft": 1}, set()),
    ({"draft": 0.0}, set()),
    ({"one": True}, set()),
    ({"one": 1}, {"b"}),
    # Fields within fields
    ({"author.name": "Ada"}, {"a"}),
    ({"author.name": {"not": "Ada"}}, {"b"}),
    ({"author.born.year": {"lt": 1900}}, {"a"}),
    ({"author": "Ada"}, set()),
    ({"author.name": {"exists": True}}, {"a"}),
    ({"author.nobody": {"exists": True}}, set()),
    ({"parts[].kind": "pump"}, {"b"}),
    ({"parts[].kind": ["seal", "valve"]}, {"b"}),
    ({"parts[1].kind": "pump"}, set()),
    ({"parts[].weight": {"gt": 2}}, {"b"}),
    ({"price [EUR].net": 5}, {"b"}),
    # Names and texts in either form of Unicode
    ({"gr\u00f6\u00dfe": "h\u00f6he"}, {"a"}),
    ({"gro\u0308\u00dfe": "ho\u0308he"}, {"a"}),
    ({"gro\u0308\u00dfe": ["ho\u0308he", 1]}, {"a"}),
    # Moments
    ({"signed": {"gte": "2024-03-01"}}, {"a", "b"}),
    ({"signed": {"lte": "2024-03-01"}}, {"a", "b"}),
    ({"signed": {"lt": "2024-03-01T22:30:00Z"}}, {"a"}),
    ({"signed": {"gt": "2024-03-01T12:00:00"}}, {"b"}),
    ({"signed": {"gt": "2024-03-01"}}, set()),
    ({"signed": {"gte": "2024-03-02T00:30:00+02:00", "lt": "2024-03-03"}}, {"b"}),
    ({"signed": {"gt": "2024-03-01T22:30:00Z"}}, set()),
    ({"signed": "2024-03-01"}, {"a", "b"}),
    ({"signed": "2024-03-02"}, set()),
    ({"signed": {"not": {"gte": "2024-03-02"}}}, {"a", "b"}),
    ({"team": {"gte": "2024-03-01"}}, set()),
]


# fmt: off
METADATA: dict[str, dict[str, Any]] = {
    "a": {"team": "hr", "year": 2020, "share": 0.5, "draft": False, "tags": ["red", "blue"], "level": 3.0,
          "big": 2**60, "author": {"name": "Ada", "born": {"year": 1815}}, "signed": "2024-03-01",
          "gr\u00f6\u00dfe": "h\u00f6he"},
    "b": {"team": "it", "year": 2026, "share": 0.7, "draft": True, "a.dotted name": "x", "level": [1, 3], "one": 1,
          "parts": [{"kind": "pump", "weight": 3}, {"kind": "valve", "weight": 1.5}], "price [EUR]": {"net": 5.0},
          "signed": "2024-03-02T00:30:00+02:00"},
}


# fmt: on


@pytest.fixture(scope="module", params=["edge", "qdrant"])
def described(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[VectorIndex]:
    """An index with two documents that have METADATA, the second on page 7; nobody changes it."""
    index = _made(_engine(request.param, tmp_path_factory.mktemp("described")))
    chunks = [chunk for name in METADATA for chunk in _document(name, "v1", **METADATA[name])]
    place = {"page": 7, "headings": ["Manual", "Reset"]}
    _write(index, [replace(chunk, place=place) if chunk.document_id == "b" else chunk for chunk in chunks])
    yield index
    index.close()


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=[str(filters)[:60] for filters, _ in FILTERS])
@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_filters_select_on_metadata(
    described: VectorIndex, mode: Any, filters: dict[str, Any], expected: set[str]
) -> None:
    found = described.search(
        Search("text", _vectors(1)[0], mode=mode, top_k=10, conditions=conditions(filters))
    )
    assert {chunk.document_id for chunk, *_ in found} == expected
    for chunk, *_ in found:
        assert chunk.metadata == METADATA[chunk.document_id], "metadata come back as given"


@pytest.mark.parametrize(
    "filters", [{"n": 2**70}, {"n": [2**70]}, {"n": {"gte": 10**400}}], ids=["value", "list", "bound"]
)
def test_a_number_beyond_the_engine_is_the_callers_mistake(
    described: VectorIndex, filters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="'n'"):
        described.search(Search("text", None, mode="sparse", top_k=1, conditions=conditions(filters)))


def test_four_threads_write_while_two_search(index: VectorIndex) -> None:
    documents, threads = 25, 4
    done = threading.Event()

    def write(thread: int) -> None:
        for number in range(documents):
            _write(index, _document(f"{thread}-{number}", "v1"))

    def search() -> int:
        searches = 0
        while not done.is_set() or not searches:
            index.search(Search("a text", _vectors(1)[0], mode="hybrid", top_k=5))
            index.count()
            searches += 1
        return searches

    with ThreadPoolExecutor(threads + 2) as pool:
        searching = [pool.submit(search) for _ in range(2)]
        try:
            for writing in [pool.submit(write, thread) for thread in range(threads)]:
                writing.result()
        finally:
            done.set()
        assert all(one.result() > 0 for one in searching)
    assert index.count() == (threads * documents, 2 * threads * documents)


# Opening again


def _mark(index: VectorIndex) -> Path:
    """The file that is there while an index is open."""
    assert isinstance(index, QdrantIndex)
    return index._in_use


def test_what_was_written_is_there_after_opening_again(engine: VectorEngine, physical: Physical) -> None:
    index = _made(engine, physical)
    _write(index, _document("a", "v1"))
    assert _mark(index).exists()
    index.close()
    assert not _mark(index).exists()
    again = engine.open(physical)
    assert _everything(again) == {("a", "v1", 0), ("a", "v1", 1)}
    again.close()


def _writing(*writes: list[Chunk]) -> Callable[[VectorIndex], None]:
    def write(index: VectorIndex) -> None:
        for chunks in writes:
            _write(index, chunks)

    return write


# What a kill leaves, and what must be there afterwards.
KILLED: dict[str, tuple[Callable[[VectorIndex], None], set[tuple[str, str]]]] = {
    "before the head of a new document": (_writing(_document("a", "v1", total=3)[:-1]), set()),
    "before the head of a new version": (
        _writing(_document("a", "v1"), _document("a", "v2", total=3)[:-1]),
        {("a", "v1")},
    ),
    "before the old version was removed": (
        _writing(_document("a", "v1"), _document("a", "v2")),
        {("a", "v2")},
    ),
    "back to an earlier content": (
        _writing(_document("a", "v2"), _document("a", "v1")),
        {("a", "v1")},
    ),
    "between two documents": (
        _writing(_document("a", "v1"), _document("b", "v1"), _document("c", "v1")[:-1]),
        {("a", "v1"), ("b", "v1")},
    ),
    "of documents that swapped their contents": (
        _writing(*(_document(*version) for version in BEFORE + AFTER)),
        set(AFTER),
    ),
    "with nothing written": (_writing(), set()),
}


@pytest.mark.parametrize(("left", "expected"), KILLED.values(), ids=list(KILLED))
def test_a_kill_leaves_every_document_wholly_old_or_wholly_new(
    engine: VectorEngine,
    physical: Physical,
    left: Callable[[VectorIndex], None],
    expected: set[tuple[str, str]],
) -> None:
    index = _made(engine, physical)
    left(index)
    index.close()
    _mark(index).touch()  # as a killed process leaves it
    again = engine.open(physical)
    found = _everything(again)
    assert {version[:2] for version in found} == expected
    assert again.count() == (len(expected), len(found)) == (len(expected), 2 * len(expected))
    again.close()


def test_edge_gives_way_between_the_few_chunks_that_a_repair_looks_at(
    tmp_path: Path, physical: Physical, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call holds the interpreter's lock: others would wait for as long."""
    edge = _engine("edge", tmp_path)
    index = _made(edge, physical)
    for number in range(50):
        _write(index, _document(f"document {number}", "v1", total=4))
    index.close()
    _mark(index).touch()
    steps: list[str | int] = []
    scroll = EdgeIndex._scroll

    def scrolled(self: EdgeIndex, where: Any, limit: int, *others: Any) -> Any:
        steps.append(limit)
        return scroll(self, where, limit, *others)

    monkeypatch.setattr(EdgeIndex, "_scroll", scrolled)
    monkeypatch.setattr(qdrant_edge.slices, "give_way", lambda: steps.append("gives way"))
    edge.open(physical).close()
    assert steps[:8] == ["gives way", 64] * 4


def test_a_repair_leaves_what_another_process_is_writing(tmp_path: Path, physical: Physical) -> None:
    server = OneAtATime()
    killed, other = (
        QdrantServer("http://in-memory", None, 10, tmp_path / name, writer=name, client=server)
        for name in ("killed", "other")
    )
    index = _made(killed, physical)
    _write(index, _document("of the killed", "v1")[:-1])
    index.close()
    _mark(index).touch()
    written = _document("of the other", "v1", total=3)
    writing = other.open(physical)
    _write(writing, written[:-1])
    again = killed.open(physical)
    _write(writing, written[-1:])
    assert _everything(again) == {("of the other", "v1", number) for number in range(3)}


def test_what_the_engine_says_comes_as_a_backend_error(index: VectorIndex) -> None:
    with pytest.raises(BackendError, match="Qdrant"):
        index.upsert(_document("a", "v1"), np.ones((2, 5), dtype=np.float32))


def test_an_index_that_is_gone_is_not_made_again(engine: VectorEngine, physical: Physical) -> None:
    for _ in range(2):
        with pytest.raises(BackendError, match="Qdrant"):
            engine.open(physical)


def test_what_is_dropped_is_gone(engine: VectorEngine, physical: Physical) -> None:
    _made(engine, physical).close()
    for _ in range(2):  # the second finds nothing to do
        engine.drop(physical.id)
    with pytest.raises(BackendError, match="Qdrant"):
        engine.open(physical)
    engine.create(physical.id, Layout(2))
    engine.open(physical).close()


def test_everything_is_read_in_pages_with_its_vectors(index: VectorIndex) -> None:
    chunks = [chunk for number in range(9) for chunk in _document(f"d{number}", "v1", n=number)]
    vectors = _vectors(len(chunks))
    index.upsert(chunks, vectors)
    expected = {
        (chunk.document_id, chunk.number): (chunk, row) for chunk, row in zip(chunks, vectors, strict=True)
    }
    found: dict[tuple[str, int], Any] = {}
    cursor: str | None = None
    pages = 0
    while pages == 0 or cursor:
        page = index.read(5, cursor)
        assert len(page.chunks) == len(page.vectors) <= 5
        for chunk, row in zip(page.chunks, page.vectors, strict=True):
            assert expected[chunk.document_id, chunk.number][0] == chunk
            assert row == pytest.approx(expected[chunk.document_id, chunk.number][1], abs=1e-6)
            found[chunk.document_id, chunk.number] = chunk
        cursor = page.cursor
        pages += 1
    assert (found.keys(), pages) == (expected.keys(), 4)
    some = index.read(100, None, ["d3", "d5", "nobody"])
    assert {chunk.document_id for chunk in some.chunks} == {"d3", "d5"}
    assert (len(some.chunks), some.cursor) == (4, None)
    empty = index.read(100, None, ["nobody"])
    assert (empty.chunks, empty.cursor) == ([], None)


def test_deleting_removes_versions_without_a_head_too(index: VectorIndex) -> None:
    _write(index, _document("a", "v1", total=3)[:-1])
    assert index.delete(["a"]) == 0
    assert index.count() == (0, 0)


def test_a_query_without_words_finds_by_its_vector_alone(index: VectorIndex) -> None:
    _write(index, _document("a", "v1"))
    assert index.search(Search("…?", None, mode="sparse", top_k=3)) == []
    hybrid = index.search(Search("…?", _vectors(1)[0], mode="hybrid", top_k=3))
    dense = index.search(Search("…?", _vectors(1)[0], mode="dense", top_k=3))
    assert [found.chunk for found in hybrid] == [found.chunk for found in dense]
    assert hybrid[0].score < dense[0].score


def test_both_engines_rank_alike(tmp_path: Path) -> None:
    texts = [
        "the red button",
        "thirty days of vacation",
        "press the button to reset",
        "a vacation by the sea",
    ]
    chunks = [Chunk(f"d{number}", "v1", 0, 1, text) for number, text in enumerate(texts)]
    ranked: list[list[Any]] = []
    *_, last = _vectors(4)  # no two of them are equally near to it
    for kind in ("edge", "qdrant"):
        index = _made(_engine(kind, tmp_path))
        _write(index, chunks)
        for mode in ("hybrid", "dense", "sparse"):
            found = index.search(Search("press a button", last, mode=mode, top_k=3))  # type: ignore[arg-type]
            ranked.append([(chunk.document_id, pytest.approx(score, rel=1e-3)) for chunk, score, _ in found])
        index.close()
    assert ranked[:3] == ranked[3:]


def _fits(metadata: dict[str, Any], filters: dict[str, Any]) -> bool:
    """Return whether a document's metadata fit, looked at one by one. Of operators it knows those of `_asked`."""

    def fits(key: str, asked: Any) -> bool:
        if key in ("and", "or"):
            return (all if key == "and" else any)(_fits(metadata, one) for one in asked)
        if key == "not":
            return not _fits(metadata, asked)
        there = metadata.get(key, [])
        there = there if isinstance(there, list) else [there]
        if not isinstance(asked, dict):
            return any(value in (asked if isinstance(asked, list) else [asked]) for value in there)
        if "exists" in asked:
            return bool(there) is bool(asked["exists"])
        return any(asked["gte"] <= value < asked["lt"] for value in there)

    return all(fits(key, asked) for key, asked in filters.items())


def _asked(rng: random.Random, levels: int) -> dict[str, Any]:
    """A filter on one to three fields, or a combination of such filters."""
    if levels and rng.random() < 0.6:
        inside = [_asked(rng, levels - 1) for _ in range(rng.choice([1, 2, 3]))]
        return rng.choice([{"and": inside}, {"or": inside}, {"not": inside[0]}, {**inside[0], "or": inside}])
    low, month = rng.randrange(90), rng.randrange(1, 9)
    fields: dict[str, list[Any]] = {
        "kind": [f"k{rng.randrange(9)}", [f"k{number}" for number in range(rng.randrange(1, 9))]],
        "price": [{"gte": low, "lt": low + rng.choice([1, 10, 60])}, {"exists": rng.random() < 0.5}],
        "signed": [{"gte": f"2026-0{month}-01", "lt": f"2026-0{month + 1}-01"}],
        "tags": [f"t{rng.randrange(12)}", ["t1", "t2", "nothing"]],
    }
    return {name: rng.choice(fields[name]) for name in rng.sample(sorted(fields), rng.choice([1, 1, 2, 3]))}


@pytest.mark.parametrize(
    ("engine", "indexed", "rounds"),
    [
        ("edge", "declared", 80),
        ("edge", "declared, in columns", 80),
        ("edge", "not declared", 80),
        ("qdrant", "declared", 30),  # the stand-in looks at each point, which takes longer
        ("qdrant", "not declared", 30),
    ],
    indirect=["engine"],
)
def test_any_combination_of_filters_finds_what_a_look_at_each_document_finds(
    engine: VectorEngine, indexed: str, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edge_filtering, "COLUMNS_FROM", 1)
    monkeypatch.setattr(columns, "SORT_FROM", 100)
    if indexed == "declared, in columns":
        monkeypatch.setattr(edge_filtering, "LOOKED_AT", 0)
        monkeypatch.setattr(edge_filtering, "CHECKED", 0)
    kinds: Indexes = {"kind": "keyword", "price": "float", "signed": "datetime", "tags": "keyword"}
    rng, physical, vectors = random.Random(4), _physical(), _vectors(300)
    documents: dict[str, dict[str, Any]] = {}
    for number in range(len(vectors)):
        month, day = rng.randrange(1, 10), rng.randrange(1, 28)
        metadata = {
            "kind": f"k{rng.randrange(9)}",
            "price": rng.randrange(10_000) / 100,
            "signed": f"2026-0{month}-{day:02}",
            "tags": [f"t{tag}" for tag in rng.sample(range(12), 3)],
        }
        documents[f"d{number}"] = {name: metadata[name] for name in metadata if rng.random() < 0.9}
    engine.create(physical.id, Layout(2, {} if indexed == "not declared" else kinds))
    index = engine.open(physical)
    index.upsert([Chunk(name, "v1", 0, 1, f"text {name}", documents[name]) for name in documents], vectors)
    try:
        for _ in range(rounds):
            filters = _asked(rng, 2)
            expected = [name for name in documents if _fits(documents[name], filters)]
            for top_k in (300, 5):
                where = conditions(filters)
                found = index.search(Search("text", vectors[0], mode="dense", top_k=top_k, conditions=where))
                assert [hit.chunk.document_id for hit in found] == expected[:top_k], filters
    finally:
        index.close()


@pytest.mark.parametrize("teams", [[1, 3], [77], [99]], ids=["common", "rare", "none"])
@pytest.mark.parametrize("mode", ["dense", "sparse", "hybrid"])
def test_a_filter_looked_up_in_parts_finds_what_it_finds_at_once(
    tmp_path: Path, mode: Any, teams: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = _engine("edge", tmp_path)
    index: Any = _made(engine)
    chunks = [
        Chunk(
            f"d{number}",
            "h",
            0,
            1,
            f"router {'button ' * (1 + number)} {number}",
            {"team": 77 if number % 41 == 7 else number % 5},
        )
        for number in range(400)
    ]
    index.upsert(chunks, np.random.default_rng(3).standard_normal((400, 2)).astype(np.float32))
    query = np.array([1, 2], np.float32)
    where = conditions({"or": [{"team": team} for team in [*teams, 98]]})

    def found(lookups: int) -> dict[str, float]:
        index._filtering._lookups = lookups
        hits = index.search(Search("router button", query, mode=mode, top_k=40, conditions=where))
        assert all(hit.chunk.metadata["team"] in teams for hit in hits)
        return {hit.chunk.document_id: hit.score for hit in hits}

    at_once = found(10**6)
    assert len(at_once) == {1: 40, 77: 10, 99: 0}[teams[0]]
    parts: list[int] = []
    filtering = index._filtering._part
    monkeypatch.setattr(edge_filtering, "MOST_LOOKUPS", 200)
    monkeypatch.setattr(
        index._filtering, "_part", lambda lookups: parts.append(lookups) or filtering(lookups)
    )
    in_parts = found(200)
    assert parts
    assert max(parts) <= 200
    assert sorted(in_parts.values()) == pytest.approx(sorted(at_once.values()), abs=2e-3)
    if mode == "dense":
        assert in_parts.keys() == at_once.keys()
    index.close()
