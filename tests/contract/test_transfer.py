"""Collections that move: out of one place into a file, and from there into another, on both transports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound, Overloaded
from llmbackend.knowledge.collections.transfer import AT_ONCE
from llmbackend.schemas import CollectionManifest

DOCUMENTS = [
    {
        "id": f"d{number}",
        "text": f"Ticket {number} is about router {number * 31}. " * (1 + number % 3 * 20),
        "metadata": {"n": number, "tags": ["ä", None], "nested": {"deep": number / 2}},
    }
    for number in range(40)
]


@pytest.fixture
def other(client: LLMBackendClient, collection: str) -> Iterator[str]:
    """A second name no collection has yet."""
    name = f"{collection}-other"
    yield name
    if name in [one.name for one in client.list_collections()]:
        client.delete_collection(name)


@pytest.fixture
def exported(client: LLMBackendClient, collection: str, tmp_path: Path) -> Path:
    client.rag_ingest(DOCUMENTS, collection, chunk_size=64, chunk_overlap=8)
    client.set_indexes(collection, {"n": "float"})
    file = tmp_path / "exported.jsonl"
    result = client.export_collection(collection, file)
    assert result == {"collection": collection, "chunks": client.get_collection(collection).chunks}
    return file


@pytest.fixture(scope="module")
def _exports() -> dict[int, str]:
    """What was exported, by the client that did so."""
    return {}


@pytest.fixture
def lines(client: LLMBackendClient, request: pytest.FixtureRequest, _exports: dict[int, str]) -> list[str]:
    """Those of an export, which is made once for all tests that change nothing else."""
    if id(client) not in _exports:
        file: Path = request.getfixturevalue("exported")
        _exports[id(client)] = file.read_text(encoding="utf-8")
    return _exports[id(client)].splitlines()


def _without(info: Any, *names: str) -> dict[str, Any]:
    return {name: value for name, value in info.items() if name not in names}


def test_a_collection_moves_through_a_file(
    client: LLMBackendClient, collection: str, other: str, exported: Path
) -> None:
    result = client.import_collection(exported, collection=other)
    before, after = client.get_collection(collection), client.get_collection(other)
    assert result == {"collection": other, "documents": 40, "chunks": after.chunks}
    assert _without(before, "name", "created_at") == _without(after, "name", "created_at")

    def documents(name: str) -> list[Any]:
        return sorted(client.list_documents(name), key=lambda one: str(one.id))

    assert documents(other) == documents(collection)
    for mode in ("dense", "sparse"):
        first, second = (
            client.rag_search("router 93", name, top_k=3, mode=mode, filters={"n": {"lt": 10}})  # type: ignore[arg-type]
            for name in (collection, other)
        )
        assert sorted(hit.score for hit in first) == pytest.approx(
            sorted(hit.score for hit in second), rel=1e-4
        )
    # Its documents are known by their content, and changed as any others.
    again = client.rag_ingest(DOCUMENTS, other)
    assert (again.unchanged, again.chunks) == (40, 0)
    client.rag_ingest({"id": "d1", "text": "Now something else."}, other)
    client.delete_documents(other, ["d2"])
    assert client.get_collection(other).documents == 39


def test_a_collection_comes_back_under_its_own_name(
    client: LLMBackendClient, collection: str, exported: Path
) -> None:
    with pytest.raises(Conflict, match=collection):
        client.import_collection(exported)
    client.delete_collection(collection)
    assert client.import_collection(exported).collection == collection
    assert client.get_collection(collection).documents == 40


def test_an_empty_collection_moves_too(
    client: LLMBackendClient, collection: str, other: str, tmp_path: Path
) -> None:
    client.create_collection(collection, chunk_size=100)
    client.export_collection(collection, tmp_path / "empty")
    assert client.import_collection(tmp_path / "empty", collection=other).documents == 0
    assert client.get_collection(other).chunk_size == 100


def test_more_than_a_page_moves(
    client: LLMBackendClient, collection: str, other: str, tmp_path: Path
) -> None:
    client.rag_ingest([f"Machine {number} stands in the hall." for number in range(1300)], collection)
    client.export_collection(collection, tmp_path / "many")
    assert len((tmp_path / "many").read_text(encoding="utf-8").splitlines()) == 1302
    assert client.import_collection(tmp_path / "many", collection=other).chunks == 1300


def _damaged(lines: list[str], line: int, /, **changes: Any) -> list[str]:
    return [*lines[:line], json.dumps({**json.loads(lines[line]), **changes}), *lines[line + 1 :]]


def _of_several(lines: list[str]) -> int:
    """The first line with a chunk of a document that has others."""
    return next(number for number, line in enumerate(lines) if json.loads(line).get("total", 1) > 1)


DAMAGE: dict[str, Any] = {
    "nothing": lambda lines: [],
    "no manifest": lambda lines: lines[1:],
    "of another kind": lambda lines: _damaged(lines, 0, format="x"),
    "of a dimension of nothing": lambda lines: _damaged(lines, 0, dimension=0),
    "no JSON": lambda lines: [*lines[:5], lines[5][:100], *lines[6:]],
    "a fingerprint that is none": lambda lines: _damaged(
        lines, 0, fingerprint={"model": "m", "vectors": "?"}
    ),
    "a fingerprint of another dimension": lambda lines: _damaged(
        lines, 0, fingerprint={"model": "m", "vectors": "AACAPwAAgD8AAIA/"}
    ),
    "a field too many": lambda lines: _damaged(lines, 7, more=1),
    "a vector too short": lambda lines: _damaged(lines, 7, vector="AAAAAA=="),
    "a vector that is none": lambda lines: _damaged(lines, 7, vector="?"),
    "a number beyond the total": lambda lines: _damaged(lines, 7, number=99, total=3),
    "its end missing": lambda lines: lines[:-1],
    "a chunk missing": lambda lines: [*lines[:-2], lines[-1]],
    "a chunk twice in place of another": lambda lines: [*lines[:3], lines[4], *lines[4:]],
    "two versions of a document": lambda lines: _damaged(lines, _of_several(lines), hash="another"),
    "a chunk without its head": lambda lines: _damaged(lines, 3, document_id="new", number=1, total=2),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=list(DAMAGE))
def test_what_is_no_whole_export_leaves_nothing(
    client: LLMBackendClient, other: str, lines: list[str], tmp_path: Path, damage: Any
) -> None:
    file = tmp_path / "damaged.jsonl"
    file.write_text("\n".join(damage(lines)), encoding="utf-8")
    with pytest.raises(InvalidRequest):
        client.import_collection(file, collection=other)
    with pytest.raises(NotFound):
        client.get_collection(other)
    client.create_collection(other)  # the name is free


def test_nothing_is_seen_before_the_last_page(
    client: LLMBackendClient, collection: str, other: str, exported: Path
) -> None:
    head, *lines, _ = map(json.loads, exported.read_text(encoding="utf-8").splitlines())
    manifest = {name: head[name] for name in ("embedding_model", "dimension", "chunk_size", "chunk_overlap")}
    token = client._call("import_collection", collection=other, manifest=manifest, chunks=lines)["token"]
    with pytest.raises(NotFound):
        client.rag_search("router", other)
    with pytest.raises(NotFound, match="no such import"):
        client._call("import_collection", collection=collection, token=token, last=True)
    client.create_collection(other)  # somebody else is first
    with pytest.raises(Conflict, match=other):
        client._call("import_collection", collection=other, token=token, last=True)
    with pytest.raises(NotFound, match="no such import"):
        client._call("import_collection", collection=other, token=token, last=True)
    assert client.get_collection(other).documents == 0


@pytest.mark.parametrize("fingerprint", [None, {"model": "another", "digest": "0" * 64}])
def test_an_import_of_another_model_is_to_be_reindexed(
    client: LLMBackendClient, other: str, exported: Path, fingerprint: Any
) -> None:
    lines = exported.read_text(encoding="utf-8").splitlines()
    made = _damaged(lines, 0, embedding_model="another", fingerprint=fingerprint)
    exported.write_text("\n".join(made), encoding="utf-8")
    client.import_collection(exported, collection=other)
    assert len(client.list_documents(other)) == 40
    with pytest.raises(Conflict, match="reindex_collection"):
        client.rag_search("router", other)
    assert client.reindex_collection(other).from_model == "another"
    assert client.rag_search("router 93", other)


def test_files_that_cannot_be_are_told(client: LLMBackendClient, collection: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        client.import_collection(tmp_path / "missing", collection=collection)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequest, match="cannot be read: it is no text, so no exported collection"):
        client.import_collection(tmp_path / "binary", collection=collection)
    client.create_collection(collection)
    with pytest.raises(InvalidRequest, match="cannot be written"):
        client.export_collection(collection, tmp_path / "no" / "such" / "folder")


def test_an_export_that_fails_leaves_the_file_as_it_was(client: LLMBackendClient, tmp_path: Path) -> None:
    file = tmp_path / "kept"
    file.write_text("before")
    with pytest.raises(NotFound):
        client.export_collection("no-such-collection", file)
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_so_many_imports_of_a_project_are_under_way_at_most(
    client: LLMBackendClient, collection: str, exported: Path
) -> None:
    """Each has an open index, so hundreds that are begun and never ended would take the memory of all."""
    head = json.loads(exported.read_text(encoding="utf-8").splitlines()[0])
    manifest = {name: value for name, value in head.items() if name in CollectionManifest.model_fields}
    names = [f"{collection}-{number}" for number in range(AT_ONCE)]
    begun: dict[str, str] = {}
    try:
        for name in names:
            begun[name] = client._call("import_collection", collection=name, manifest=manifest)["token"]
        with pytest.raises(Overloaded, match=f"{AT_ONCE} imports of this project are under way"):
            client._call("import_collection", collection=f"{collection}-more", manifest=manifest)
    finally:
        for name, token in begun.items():
            client._call("import_collection", collection=name, token=token, abort=True)
    assert client.import_collection(exported, collection=f"{collection}-more").documents == 40
    client.delete_collection(f"{collection}-more")
