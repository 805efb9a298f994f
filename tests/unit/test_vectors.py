"""Filters, and the embedded index: what is written, found, replaced, and repaired after a kill."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from llmbackend import BackendError, InvalidRequest
from llmbackend.knowledge.qdrant_edge import EdgeIndex
from llmbackend.knowledge.vectors import Chunk, Condition, conditions

# Filters

UNDERSTOOD: list[tuple[Any, Condition]] = [
    ("hr", Condition("key", equals="hr")),
    (2026, Condition("key", equals=2026)),
    (True, Condition("key", equals=True)),
    (1.5, Condition("key", range={"gte": 1.5, "lte": 1.5})),
    (["hr", "it"], Condition("key", any_of=["hr", "it"])),
    ([1, 2], Condition("key", any_of=[1, 2])),
    ({"gte": 1, "lt": 5}, Condition("key", range={"gte": 1.0, "lt": 5.0})),
]


@pytest.mark.parametrize(("value", "expected"), UNDERSTOOD, ids=str)
def test_a_filter_is_understood(value: Any, expected: Condition) -> None:
    assert conditions({"key": value}) == [expected]


# fmt: off
REFUSED: list[Any] = [
    None, [], {}, [1, "a"], [1.5], [True], [None], {"gte": "a"}, {"gte": True}, {"gte": None}, {"near": 1}, {"gte": 1, "x": 2},
]
# fmt: on


@pytest.mark.parametrize("value", REFUSED, ids=str)
def test_a_filter_that_makes_no_sense_is_refused_by_its_name(value: Any) -> None:
    with pytest.raises(InvalidRequest, match="'key'"):
        conditions({"key": value})


@pytest.mark.parametrize("key", ["", 'a"b'])
def test_a_filter_on_a_name_no_field_can_have_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest, match="filters"):
        conditions({key: 1})


def test_no_filters_are_no_conditions() -> None:
    assert conditions(None) == conditions({}) == []


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


def _write(index: EdgeIndex, chunks: list[Chunk]) -> None:
    index.upsert(chunks, _vectors(len(chunks)))


def _everything(index: EdgeIndex) -> set[tuple[str, str, int]]:
    found = index.search("", _vectors(1)[0], mode="dense", top_k=1000)
    return {(chunk.document_id, chunk.hash, chunk.number) for chunk, _ in found}


def _made(folder: Path) -> EdgeIndex:
    EdgeIndex.create(folder, 2)
    return EdgeIndex(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / str(uuid.uuid4())


@pytest.fixture
def index(folder: Path) -> Iterator[EdgeIndex]:
    index = _made(folder)
    yield index
    index.close()


def test_what_is_written_is_found_and_counted(index: EdgeIndex) -> None:
    _write(index, _document("a", "v1", "a red button") + _document("b", "v1", "thirty days of vacation"))
    assert index.count() == (2, 4)
    best = index.search("vacation days", None, mode="sparse", top_k=1)[0]
    assert best.chunk.document_id == "b"
    assert best.chunk.total == 2
    dense = index.search("", _vectors(1)[0], mode="dense", top_k=3)
    assert [found.score for found in dense] == sorted((found.score for found in dense), reverse=True)
    assert len(index.search("vacation days", _vectors(1)[0], mode="hybrid", top_k=3)) == 3


def test_writing_again_changes_nothing(index: EdgeIndex) -> None:
    for _ in range(2):
        _write(index, _document("a", "v1"))
    assert index.count() == (1, 2)


def test_a_version_without_its_head_is_not_stored(index: EdgeIndex) -> None:
    _write(index, _document("a", "v1") + _document("b", "v1")[:-1])
    assert index.stored([("a", "v1"), ("b", "v1"), ("a", "v2"), ("c", "v1")]) == {"a"}
    assert index.known(["a", "b", "c"]) == {"a"}
    assert index.count()[0] == 1


def test_only_the_version_kept_stays(index: EdgeIndex) -> None:
    _write(index, _document("a", "v1") + _document("a", "v2") + _document("b", "v1"))
    index.keep_only([("a", "v2")])
    assert {found[:2] for found in _everything(index)} == {("a", "v2"), ("b", "v1")}


def test_a_version_discarded_leaves_the_others(index: EdgeIndex) -> None:
    _write(index, _document("a", "v1") + _document("a", "v2") + _document("b", "v2"))
    index.discard([("a", "v2")])
    assert {found[:2] for found in _everything(index)} == {("a", "v1"), ("b", "v2")}


# A content hash does not depend on the document's id: two documents may swap their contents.
BEFORE = [("a", "x"), ("b", "y")]
AFTER = [("a", "y"), ("b", "x")]


def test_two_documents_that_swap_their_contents_keep_one_version_each(index: EdgeIndex) -> None:
    _write(index, [chunk for version in BEFORE + AFTER for chunk in _document(*version)])
    index.keep_only(AFTER)
    assert {found[:2] for found in _everything(index)} == set(AFTER)


def test_taking_a_swap_back_leaves_the_old_versions_alone(index: EdgeIndex) -> None:
    _write(index, [chunk for version in BEFORE + AFTER for chunk in _document(*version)])
    index.discard(AFTER)
    assert {found[:2] for found in _everything(index)} == set(BEFORE)


def test_deleting_tells_how_many_documents_there_were(index: EdgeIndex) -> None:
    _write(index, _document("a", "v1") + _document("b", "v1"))
    assert index.delete(["a", "a", "nobody"]) == 1
    assert index.delete(["nobody"]) == 0
    assert index.count() == (1, 2)


def test_documents_come_in_pages(index: EdgeIndex) -> None:
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
]


METADATA: dict[str, dict[str, Any]] = {
    "a": {"team": "hr", "year": 2020, "share": 0.5, "draft": False, "tags": ["red", "blue"]},
    "b": {"team": "it", "year": 2026, "share": 0.7, "draft": True, "a.dotted name": "x"},
}


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EdgeIndex]:
    """An index with two documents that have METADATA; nobody changes it."""
    index = _made(tmp_path_factory.mktemp("described") / str(uuid.uuid4()))
    _write(index, [chunk for name in METADATA for chunk in _document(name, "v1", **METADATA[name])])
    yield index
    index.close()


@pytest.mark.parametrize(("filters", "expected"), FILTERS, ids=str)
@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_filters_select_on_metadata(
    described: EdgeIndex, mode: Any, filters: dict[str, Any], expected: set[str]
) -> None:
    found = described.search("text", _vectors(1)[0], mode=mode, top_k=10, conditions=conditions(filters))
    assert {chunk.document_id for chunk, _ in found} == expected
    for chunk, _ in found:
        assert chunk.metadata == METADATA[chunk.document_id], "metadata come back as given"


@pytest.mark.parametrize(
    "filters", [{"n": 2**70}, {"n": [2**70]}, {"n": {"gte": 10**400}}], ids=["value", "list", "bound"]
)
def test_a_number_beyond_the_engine_is_the_callers_mistake(
    described: EdgeIndex, filters: dict[str, Any]
) -> None:
    with pytest.raises(InvalidRequest, match="'n'"):
        described.search("text", None, mode="sparse", top_k=1, conditions=conditions(filters))


def test_four_threads_write_while_two_search(index: EdgeIndex) -> None:
    documents, threads = 25, 4
    done = threading.Event()

    def write(thread: int) -> None:
        for number in range(documents):
            _write(index, _document(f"{thread}-{number}", "v1"))

    def search() -> int:
        searches = 0
        while not done.is_set() or not searches:
            index.search("a text", _vectors(1)[0], mode="hybrid", top_k=5)
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


def test_what_was_written_is_there_after_opening_again(folder: Path) -> None:
    index = _made(folder)
    _write(index, _document("a", "v1"))
    index.close()
    assert not (folder / "in-use").exists()
    again = EdgeIndex(folder)
    assert _everything(again) == {("a", "v1", 0), ("a", "v1", 1)}
    again.close()


def _writing(*writes: list[Chunk]) -> Callable[[EdgeIndex], None]:
    def write(index: EdgeIndex) -> None:
        for chunks in writes:
            _write(index, chunks)

    return write


# What a kill leaves, and what must be there afterwards.
KILLED: dict[str, tuple[Callable[[EdgeIndex], None], set[tuple[str, str]]]] = {
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
    folder: Path, left: Callable[[EdgeIndex], None], expected: set[tuple[str, str]]
) -> None:
    index = _made(folder)
    left(index)
    index.close()
    (folder / "in-use").touch()  # as a killed process leaves it
    again = EdgeIndex(folder)
    found = _everything(again)
    assert {version[:2] for version in found} == expected
    assert again.count() == (len(expected), len(found)) == (len(expected), 2 * len(expected))
    again.close()


def test_the_index_is_marked_while_it_is_open(folder: Path) -> None:
    index = _made(folder)
    assert (folder / "in-use").exists()
    index.close()


def test_what_the_engine_says_comes_as_a_backend_error(folder: Path) -> None:
    index = _made(folder)
    with pytest.raises(BackendError, match="Qdrant Edge"):
        index.upsert(_document("a", "v1"), np.ones((2, 5), dtype=np.float32))
    index.close()


def test_a_shard_that_is_gone_is_not_made_again(folder: Path) -> None:
    with pytest.raises(BackendError, match="Qdrant Edge"):
        EdgeIndex(folder)
    assert not folder.exists()
