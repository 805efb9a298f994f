"""Collections that cannot be read: none is made by what a caller sends, and one that is there stops no other."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import shutil
import sqlite3
import struct
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import requests
from project_jobs import panic

from llmbackend import BackendError, InvalidRequest, LLMBackendClient, NotFound, panics, threads
from llmbackend.access.names import QualifiedName
from llmbackend.backend import Backend
from llmbackend.engines import edge_refusals
from llmbackend.engines.interface import Chunk, Physical
from llmbackend.engines.qdrant_edge import EdgeIndex
from llmbackend.knowledge.collections import current_index
from llmbackend.local import LocalTransport
from llmbackend.operations import call
from llmbackend.schemas.metadata import BYTES, METADATA_DEPTH, VALUES
from llmbackend.settings import Settings
from llmbackend.tracing import Trace
from tests.server import KEY, serving

WITH_KEY = {"Authorization": f"Bearer {KEY}"}


@contextmanager
def on(transport: str, folder: Path, models_dir: Path) -> Iterator[LLMBackendClient]:
    """A client of a core on this folder; leaving it ends the core."""
    if transport == "local":
        options = Settings(data_dir=folder, models_dir=models_dir)
        with LLMBackendClient(transport=LocalTransport(options)) as client:
            yield client
    else:
        with (
            serving(folder, models_dir=models_dir, api_key=KEY) as server,
            LLMBackendClient(server.url, KEY) as client,
        ):
            yield client


def nested(depth: int) -> Any:
    """A value that has so many lists and objects in one another."""
    value: Any = "core"
    for number in range(depth):
        value = [value] if number % 2 else {"a": value}
    return value


AT_THE_LIMITS: dict[str, dict[str, Any]] = {
    "depth": {"a": nested(METADATA_DEPTH - 1)},
    "values": {f"k{number}": number for number in range(VALUES)},
    "one list": {"k": list(range(VALUES - 1))},
    "bytes": {"k": "v" * (BYTES - 1)},
    "a long name": {"k" * (BYTES - 8): 1},
    "wide characters": {"ü" * 100: "\U0001f600" * (BYTES // 4 - 50)},
    "integers": {"a": 2**63 - 1, "b": -(2**63), "c": 2**64 - 1},
    "floats": {"a": -0.0, "b": 5e-324, "c": 1.7976931348623157e308, "d": 0.1},
    "odd names": {"": 1, 'a"b.c\\[0]': 2, "a\0b": "x\0y", "metadata": {"document_id": None}, "$": [[], {}]},
}

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "depth": ({"a": nested(METADATA_DEPTH)}, f"more than {METADATA_DEPTH} deep"),
    "twice the depth": ({"a": nested(2 * METADATA_DEPTH)}, f"more than {METADATA_DEPTH} deep"),
    "values": ({"k": list(range(VALUES))}, f"more than {VALUES} values"),
    "bytes": ({"k": "v" * BYTES}, f"more than {BYTES} bytes"),
    "bytes of names": ({f"{n:03}" + "k" * 700: n for n in range(100)}, f"more than {BYTES} bytes"),
    "integer": ({"a": [{"b": 2**64}]}, "'a.0.b'"),
    "negative": ({"a": -(2**63) - 1}, "64 bits"),
}


@pytest.mark.parametrize("transport", ["local", "http"])
def test_what_is_accepted_at_the_limits_is_read_back_for_good(
    transport: str, tmp_path: Path, models_dir: Path
) -> None:
    documents = [
        {"id": name, "text": f"About {name}.", "metadata": metadata}
        for name, metadata in AT_THE_LIMITS.items()
    ]

    def same(client: LLMBackendClient) -> None:
        listed = {one.id: one["metadata"] for one in client.list_documents("limits")}
        assert listed == AT_THE_LIMITS
        assert len(client.rag_search("About depth.", "limits", top_k=20)) == len(AT_THE_LIMITS)

    with on(transport, tmp_path / "data", models_dir) as client:
        assert client.rag_ingest(documents, "limits").added == len(documents)
        same(client)
        client.reindex_collection("limits")
        same(client)
    with on("local", tmp_path / "data", models_dir) as client:
        same(client)
        client.export_collection("limits", tmp_path / "exported.jsonl")
        client.import_collection(tmp_path / "exported.jsonl", collection="again")
        again = {one.id: one["metadata"] for one in client.list_documents("again")}
        assert again == AT_THE_LIMITS
        assert client.delete_documents("limits", list(AT_THE_LIMITS)).deleted == len(documents)


@pytest.mark.parametrize(("metadata", "says"), REFUSED.values(), ids=list(REFUSED))
def test_metadata_beyond_the_limits_is_refused(
    client: LLMBackendClient, collection: str, metadata: dict[str, Any], says: str
) -> None:
    good = {"id": "good", "text": "This is fine."}
    with pytest.raises(InvalidRequest) as refused:
        client.rag_ingest([good, {"id": "bad", "text": "x", "metadata": metadata}], collection)
    assert "documents[1]" in refused.value.message
    assert says in refused.value.message
    with pytest.raises(InvalidRequest, match=r"more than|bits"):
        client.submit_job(
            "rag_ingest",
            {"collection": collection, "documents": [{"id": "b", "text": "x", "metadata": metadata}]},
        )
    assert collection not in [one.name for one in client.list_collections()]


@pytest.mark.parametrize("value", ["1e400", "-1e400", "NaN", "Infinity", "1" * 5000, "[" * 300])
def test_json_that_no_client_of_ours_writes_is_refused(server_url: str, value: str) -> None:
    for path, body in (
        ("/v1/rag/ingest", '{"collection": "odd", "documents": [{"id": "a", "text": "t", "metadata": {"m": %s}}]}'),
        ("/v1/rag/search", '{"collection": "odd", "query": "t", "min_score": %s}'),
        ("/v1/rag/search", '{"collection": "odd", "query": "t", "filters": {"m": {"gte": %s}}}'),
        ("/v1/embeddings", '{"input": [%s]}'),
        ("/v1/embeddings", '{"input": "t", "dimensions": %s}'),
        ("/v1/rerank", '{"query": "t", "documents": ["t"], "top_n": %s}'),
        ("/v1/jobs", '{"job_type": "rag_ingest", "params": {"collection": "odd", "documents": [{"id": "a", "text": "t", "metadata": {"m": %s}}]}}'),
    ):  # fmt: skip
        reply = requests.post(
            server_url + path,
            data=body % value,
            headers={**WITH_KEY, "Content-Type": "application/json"},
            timeout=30,
        )
        assert reply.status_code in (404, 422), (path, reply.text)
        json.loads(reply.text, parse_constant=lambda name: pytest.fail(f"{name} in a reply"))


def test_half_a_character_in_metadata_is_replaced_and_read_back(server_url: str) -> None:
    with LLMBackendClient(server_url, KEY) as client:
        body = (
            '{"collection": "halves", "documents": [{"id": "a", "text": "t", "metadata": {"m": "x\\ud800"}}]}'
        )
        headers = {**WITH_KEY, "Content-Type": "application/json"}
        reply = requests.post(f"{server_url}/v1/rag/ingest", data=body, headers=headers, timeout=30)
        assert reply.status_code == 200
        [document] = client.list_documents("halves")
        assert document.metadata == {"m": "x\ufffd"}
        client.delete_collection("halves")


# What is damaged all the same


def _folder(data: Path, name: str) -> Path:
    with sqlite3.connect(data / "state.db") as database:
        (id_,) = database.execute(
            "select coalesce(physical, id) from collections where name = ?", [name]
        ).fetchone()
    return data / "collections" / str(id_)


def _past_the_door(folder: Path) -> None:
    index = EdgeIndex(folder)
    vectors = np.ones((1, 256), np.float32)
    index.upsert([Chunk("deep", "h", 0, 1, "a text", {"a": nested(150)})], vectors)
    index._shard.close()  # without a flush: it is in the log


def _garbled_log(folder: Path) -> None:
    for file in (folder / "wal").iterdir():
        if file.is_file():
            file.write_bytes(b"\xff" * 1000)


def _garbled_segments(folder: Path) -> None:
    for file in (folder / "segments").rglob("*"):
        if file.is_file():
            file.write_bytes(b"\x00garbage")


def _cut_config(folder: Path) -> None:
    (file,) = folder.glob("*config*.json")
    file.write_bytes(file.read_bytes()[:10])


def _file_is_a_folder(folder: Path) -> None:
    (file,) = folder.glob("*config*.json")
    file.unlink()
    file.mkdir()


DAMAGE: list[Callable[[Path], None]] = [
    _past_the_door,
    _garbled_log,
    _garbled_segments,
    _cut_config,
    _file_is_a_folder,
    shutil.rmtree,
]
BROKEN = [damage.__name__.strip("_") for damage in DAMAGE]


@pytest.fixture(scope="module")
def damaged_data(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Path:
    """A data directory with a collection for each kind of damage, and one that is whole."""
    data = tmp_path_factory.mktemp("damaged") / "data"
    with on("local", data, models_dir) as client:
        for name in [*BROKEN, "whole"]:
            client.rag_ingest([{"id": "d", "text": "The router has a red button."}], name)
    for name, damage in zip(BROKEN, DAMAGE, strict=True):
        damage(_folder(data, name))
    return data


@pytest.mark.parametrize("transport", ["local", "http"])
def test_damaged_collections_are_told_and_stop_no_other(
    transport: str, tmp_path: Path, models_dir: Path, damaged_data: Path
) -> None:
    data, broken = tmp_path / "data", BROKEN
    shutil.copytree(damaged_data, data)
    with on(transport, data, models_dir) as client:
        for name in broken:  # which are not opened to be listed
            with pytest.raises(BackendError, match=name):
                client.rag_search("button", name)
        listed = {one.name: one for one in client.list_collections()}
        assert set(listed) == {*broken, "whole"}
        assert "damaged" not in listed["whole"]
        assert (listed["whole"].documents, listed["whole"].chunks) == (1, 1)
        for name in broken:
            assert listed[name].damaged is True, name
            assert "delete_collection" in listed[name].problem
            assert listed[name].documents is None
            assert client.get_collection(name).damaged is True
            for asked in (
                lambda name=name: client.rag_search("button", name),
                lambda name=name: client.list_documents(name),
                lambda name=name: client.rag_ingest(["a text"], name),
                lambda name=name: client.reindex_collection(name),
                lambda name=name: client.delete_documents(name, ["d"]),
                lambda name=name: client.export_collection(name, tmp_path / "none.jsonl"),
            ):
                with pytest.raises(BackendError, match=name) as told:
                    asked()
                assert told.value.details["damaged"] is True
                assert told.value.details["collection"] == name
                assert "delete_collection" in told.value.message
        assert client.rag_search("button", "whole")[0].document_id == "d"
        repr(client.list_collections())
        for name in broken:
            assert client.delete_collection(name).documents is None
            with pytest.raises(NotFound):
                client.get_collection(name)
        assert client.rag_ingest(["a text"], name).added == 1, "the name is free"
        assert not any("damaged" in one for one in client.list_collections())


WORDS = "corrupt, failed to decode, to deserialize, to decompress: checksum, recursion limit exceeded"


def test_words_of_a_caller_set_no_collection_aside(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([{"id": WORDS, "text": WORDS, "metadata": {WORDS: WORDS}}], collection)
    for key in (WORDS, f"a[{WORDS}]", f"{WORDS}.", f"]{WORDS}[", f"\0{WORDS}", f"{WORDS}\n", "a[", "", "."):
        for value in (
            WORDS,
            [WORDS],
            2**63 - 1,
            {"gte": 1e299},
            {"exists": True},
            {"not": WORDS},
            f"\0{WORDS}",
        ):
            with contextlib.suppress(InvalidRequest):
                client.rag_search(WORDS, collection, filters={key: value}, mode="sparse")
    for cursor in (WORDS, "\0", str(uuid.UUID(int=2**128 - 1))):
        with contextlib.suppress(InvalidRequest):
            client._call("list_documents", collection=collection, cursor=cursor)
    assert client.delete_documents(collection, [WORDS, f"\0{WORDS}"]).deleted == 1
    assert not client.get_collection(collection).get("damaged")


@pytest.mark.parametrize(
    ("error", "is_damage"),
    [
        (Exception("Failed to decode value"), True),
        (TypeError(WORDS), False),
        (ValueError(WORDS), False),
    ],
)
def test_what_the_engine_was_given_is_no_damage(tmp_path: Path, error: Exception, is_damage: bool) -> None:
    with pytest.raises(BackendError) as told, edge_refusals.translated(tmp_path):
        raise error
    assert told.value.details.get("damaged", False) is is_damage


def test_a_collection_that_was_put_back_is_opened_again(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with on("local", tmp_path / "data", models_dir) as client:
        client.rag_ingest(["a text"], "facts")
    folder = _folder(tmp_path / "data", "facts")
    folder.rename(tmp_path / "away")
    with on("local", tmp_path / "data", models_dir) as client:
        with pytest.raises(BackendError, match="delete_collection"):
            client.rag_search("text", "facts")
        assert client.get_collection("facts").damaged
        (tmp_path / "away").rename(folder)
        assert client.get_collection("facts").damaged, "it is not tried at each call"
        known = current_index.time.monotonic() + 1000
        # Of that module only: asyncio's loops go by the same clock.
        monkeypatch.setattr(current_index, "time", SimpleNamespace(monotonic=lambda: known))
        assert client.get_collection("facts").documents == 1


# Panics


class _Panicking:
    """A shard whose queries panic."""

    def __init__(self, shard: Any) -> None:
        self._shard = shard

    def query(self, request: Any) -> None:
        panic()

    query_batch = query

    def __getattr__(self, name: str) -> Any:
        return getattr(self._shard, name)


@pytest.mark.parametrize("mode", ["hybrid", "dense", "sparse"])
def test_a_panic_of_the_engine_sets_its_collection_aside(mode: str, tmp_path: Path, models_dir: Path) -> None:
    async def asked(backend: Backend, name: str, **body: Any) -> Any:
        return json.loads(await call(backend, Trace(name), json.dumps(body).encode()))

    async def run() -> None:
        backend = await Backend.open(Settings(data_dir=tmp_path, models_dir=models_dir))
        try:
            for name in ("one", "other"):
                await asked(backend, "rag_ingest", documents=["a text"], collection=name)
            one = await backend._collections.get(QualifiedName("default", "one"))
            index: Any = one._index
            index._shard = _Panicking(index._shard)
            for _ in range(2):
                with pytest.raises(BackendError, match="'one' is damaged") as told:
                    await asked(backend, "rag_search", query="a", collection="one", mode=mode)
                assert told.value.details["damaged"] is True
            listed = (await asked(backend, "list_collections"))["collections"]
            assert [one.get("damaged", False) for one in listed] == [True, False]
            assert (await asked(backend, "rag_search", query="a", collection="other"))["hits"]
            one._damage = None  # as after a while
            assert (await asked(backend, "rag_search", query="a", collection="one"))["hits"], "reopened"
        finally:
            await backend.close()

    asyncio.run(run())


def test_panics_anywhere_else_are_errors_too(tmp_path: Path, models_dir: Path, monkeypatch: Any) -> None:
    async def run() -> None:
        with pytest.raises(BackendError, match="capacity overflow"):
            await threads.processor(panic)
        backend = await Backend.open(Settings(data_dir=tmp_path, models_dir=models_dir))
        try:

            async def on_the_loop(request: Any) -> None:
                panic()

            monkeypatch.setattr(backend, "models", on_the_loop)
            with pytest.raises(BackendError, match="capacity overflow"):
                await call(backend, Trace("models"), b"{}")
            with pytest.raises(BackendError, match="capacity overflow"):
                await backend._database.write(lambda connection: panic())
            await backend._database.write(lambda connection: None)
        finally:
            await backend.close()

    asyncio.run(run())


def test_a_panic_in_a_job_fails_that_job_only(client: LLMBackendClient) -> None:
    ids = [
        client.submit_job(kind, params) for kind, params in (("panic", {}), ("count_words", {"texts": ["a"]}))
    ]
    with pytest.raises(BackendError, match="capacity overflow"):
        client.wait_for_job(ids[0], timeout=60)
    assert client.wait_for_job(ids[1], timeout=60)["words"] == [{"text": "a", "words": 1}]


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, asyncio.CancelledError, GeneratorExit])
def test_what_is_no_panic_passes_through(kind: type[BaseException]) -> None:
    with pytest.raises(kind), panics.caught():
        raise kind


# Imports


def _row(**changes: Any) -> dict[str, Any]:
    vector = changes.pop("values", [1.0, 0.0, 0.0, 0.0])
    return {
        "document_id": "d",
        "hash": "h",
        "number": 0,
        "total": 1,
        "text": "a text",
        "vector": base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode(),
        **changes,
    }


ODD: dict[str, dict[str, Any]] = {
    "headings of numbers": {"place": {"headings": [1, 2]}},
    "headings as a text": {"place": {"headings": "title"}},
    "headings of null": {"place": {"headings": None}},
    "headings in one another": {"place": {"headings": [["a"]]}},
    "sections as a text": {"place": {"sections": "title"}},
    "many headings": {"place": {"headings": ["a"] * 1000}},
    "long headings": {"place": {"headings": ["a" * 2**21]}},
    "a page of text": {"place": {"page": "1"}},
    "a page that is true": {"place": {"page": True}},
    "page 0": {"place": {"page": 0}},
    "a page beyond": {"place": {"page": 2**70}},
    "another place": {"place": {"line": 1}},
    "deep metadata": {"metadata": {"a": nested(60)}},
    "a huge integer": {"metadata": {"a": 2**70}},
    "a number beyond": {"number": 2**70, "total": 2**70 + 1},
    "NaN": {"values": [1.0, float("nan"), 0.0, 0.0]},
    "infinite": {"values": [1.0, float("inf"), 0.0, 0.0]},
    "huge": {"values": [3e38, 3e38, 3e38, 3e38]},
    "too short": {"values": [1.0, 0.0, 0.0]},
    "too long": {"values": [1.0] * 5},
    "empty": {"values": []},
}


@pytest.mark.parametrize("changes", ODD.values(), ids=list(ODD))
def test_an_import_that_cannot_be_kept_is_refused_and_leaves_nothing(
    client: LLMBackendClient, collection: str, changes: dict[str, Any]
) -> None:
    manifest = {"embedding_model": "m", "dimension": 4, "chunk_size": 64, "chunk_overlap": 0}
    begun = client._call(
        "import_collection", collection=collection, manifest=manifest, chunks=[_row(document_id="fine")]
    )
    with pytest.raises(InvalidRequest, match=r"chunks\[1\]"):
        client._call(
            "import_collection",
            collection=collection,
            token=begun["token"],
            chunks=[_row(document_id="fine", hash="h2"), _row(**changes)],
            last=True,
        )
    with contextlib.suppress(NotFound):  # what is refused by its shape alone leaves the import as it was
        client._call("import_collection", collection=collection, token=begun["token"], abort=True)
    assert collection not in [one.name for one in client.list_collections()]


def test_one_collection_that_takes_long_to_open_holds_up_no_other(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run() -> None:
        backend = await Backend.open(Settings(data_dir=tmp_path, models_dir=models_dir))
        collections, go_on = backend._collections, asyncio.Event()
        slow, quick, new = (QualifiedName("default", name) for name in ("slow", "quick", "new"))
        try:
            for name in (slow, quick):
                await collections.create(name, None, None)
            opened, opening_slow = collections.physical.open, asyncio.Event()

            async def slowly(manifest: Any, **options: Any) -> Any:
                if manifest.qualified == slow:
                    opening_slow.set()
                    await go_on.wait()
                return await opened(manifest, **options)

            monkeypatch.setattr(type(collections.physical), "open", staticmethod(slowly))
            opening = asyncio.create_task((await collections.get(slow)).documents(10, None))
            async with asyncio.timeout(20):
                await opening_slow.wait()
                await (await collections.get(quick)).documents(10, None)
                await (await collections.create(new, None, None)).documents(10, None)
                await collections.delete(new)
            assert not opening.done()
            go_on.set()
            await opening
        finally:
            go_on.set()  # else a failure would wait here for what is being opened
            await backend.close()

    asyncio.run(run())


def test_a_physical_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(BackendError) as told:
        EdgeIndex(tmp_path / "none", Physical("none", uuid.uuid4(), "bm25-multilingual"))
    assert told.value.details["damaged"] is True
