"""Backups made while everything goes on, and restored: everywhere, wholly or not at all."""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmbackend import BackendError, Conflict, Forbidden, InvalidRequest, LLMBackendClient
from llmbackend.backup import archive, making
from llmbackend.local import LocalTransport
from llmbackend.responses import store
from llmbackend.restore import restore
from llmbackend.settings import Settings
from llmbackend.storage import database
from tests import qdrant
from tests.server import KEY, python, serving

SUPPORT = "key-of-support"
PATIENCE = 60


@contextmanager
def _client(kind: str, folder: Path, **options: Any) -> Iterator[LLMBackendClient]:
    if kind == "local":
        with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **options))) as client:
            yield client
    else:
        keys = {"api_key": KEY, "api_keys": f"support:{SUPPORT}"}
        with serving(folder, **keys, **options) as server, LLMBackendClient(server.url, KEY) as client:
            yield client


def _documents(count: int, version: int = 1) -> list[dict[str, Any]]:
    return [
        {
            "id": f"d{number}",
            "text": f"Report {number}, edition {version}. "
            + f"Case {number * 31} was closed. " * (number % 80),
            "metadata": {"number": number, "version": version, "of": {"deep": [1, "ä"]}},
        }
        for number in range(count)
    ]


def _made(client: LLMBackendClient, **params: Any) -> Any:
    return client.wait_for_job(client.submit_job("backup", params), timeout=PATIENCE)


def _restored(file: str | Path, folder: Path, **options: Any) -> dict[str, int]:
    return asyncio.run(restore(Path(file), Settings(data_dir=folder, **options), lambda *_: None))


def _found(client: LLMBackendClient, collection: str) -> list[Any]:
    """For each mode what is found, how well the best fits, and a document as it stands.

    Which of two copies is a hit, and which its duplicate, is left to chance.
    """
    found: list[Any] = []
    for mode in ("dense", "sparse", "hybrid"):
        hits = client.rag_search("case 217 of report 7", collection, mode=mode, top_k=100)
        copies = [(one.document_id, one.chunk) for hit in hits for one in (hit, *hit.duplicates)]
        found.append((sorted(copies), round(hits[0].score, 4), client.get_document("d7", collection)))
    return found


def _used(client: LLMBackendClient) -> list[Any]:
    """What was counted, but for operations that go on meanwhile."""
    rows = client.usage(by="project,key,model,operation,day")
    return [
        row for row in rows if row.operation in ("batch_embed", "embed", "delete_collection", "revoke_key")
    ]


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that in time"
        time.sleep(0.005)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any]]:
    """A backup of two collections, and what is found in one."""
    folder = tmp_path_factory.mktemp("kept")
    with _client("local", folder) as client:
        client.rag_ingest(_documents(60), "reports")
        client.rag_ingest(["Penguins live in the south."], "birds")
        made = _made(client)
        assert (made.collections, made.left_out) == (2, [])
        return Path(made.file), _found(client, "reports")


@pytest.mark.parametrize("kind", ["local", "http"])
def test_all_that_is_kept_comes_back(kind: str, tmp_path: Path) -> None:
    """While documents are replaced: each is there in one whole edition, and what was acknowledged before, all."""
    with _client(kind, tmp_path / "a", job_lease=2) as client:
        client.create_collection("reports", indexes={"number": "integer"})
        client.rag_ingest(_documents(40), "reports")
        client.rag_ingest(_documents(80), "changing")
        done = client.submit_job("batch_embed", {"texts": ["a", "b"]}, idempotency_key="nightly")
        rows = client.wait_for_job(done).embeddings
        later = client.submit_job(
            "rag_ingest", {"documents": ["x"], "collection": "late"}, run_at="2035-01-01T00:00:00Z"
        )
        client.set_schedule("nightly", "30 2 * * *", "backup", {"keep": 3})
        client.embed(["c", "d e"])
        client.delete_collection(client.create_collection("gone").name)
        client.revoke_key(client.create_key(project="hr").id)
        used, entries = _used(client), client.audit()
        assert {row.operation for row in used} == {"batch_embed", "embed", "delete_collection", "revoke_key"}
        assert {one.action for one in entries} == {
            "set_schedule",
            "delete_collection",
            "create_key",
            "revoke_key",
        }
        schedules, jobs = client.list_schedules(), {one.id: one.status for one in client.list_jobs()}
        stop = threading.Event()

        def write() -> None:
            version = 1
            while not stop.is_set():
                version += 1
                client.rag_ingest(_documents(80, version), "changing")

        writing = threading.Thread(target=write)
        writing.start()
        try:
            made = _made(client)
        finally:
            stop.set()
            writing.join()
        found, collections = _found(client, "reports"), client.list_collections()
    file = shutil.copy(made.file, tmp_path)
    shutil.rmtree(tmp_path / "a")
    _restored(file, tmp_path / "b")
    with _client(kind, tmp_path / "b", job_lease=2) as client:
        assert _used(client) == used
        assert [
            one for one in client.audit() if one.action != "submit_job"
        ] == entries  # of the backup itself
        assert _found(client, "reports") == found
        there = {one.name: (one.documents, one.indexes, one.created_at) for one in client.list_collections()}
        assert there == {one.name: (one.documents, one.indexes, one.created_at) for one in collections}
        editions: dict[str, set[tuple[int, str]]] = {}
        for document in client.list_documents("changing", limit=1000):
            editions.setdefault(document.id, set()).add((document.metadata["version"], document.id))
        assert len(editions) == 80
        assert all(len(versions) == 1 for versions in editions.values())
        assert client.rag_ingest(_documents(40), "reports").unchanged == 40
        assert client.list_schedules() == schedules
        assert {one.id: one.status for one in client.list_jobs() if one.id in jobs} == jobs
        assert client.wait_for_job(done).embeddings == rows
        assert client.submit_job("batch_embed", {"texts": ["a", "b"]}, idempotency_key="nightly") == done
        client.cancel_job(later)
        new = client.submit_job("rag_ingest", {"documents": ["y"], "collection": "late"})
        assert client.wait_for_job(new, timeout=PATIENCE).added == 1


def test_keys_come_back(tmp_path: Path) -> None:
    with _client("http", tmp_path / "a") as client:
        made = client.create_key(note="HR app", can=["read", "write"])
        file = _made(client).file
    _restored(file, tmp_path / "b")
    with (
        serving(tmp_path / "b", api_key=KEY) as server,
        LLMBackendClient(server.url, made.key) as client,
    ):
        assert client.list_collections() == []
        with pytest.raises(Forbidden):
            client.submit_job("backup", {})


def test_only_the_servers_own_key_makes_backups(tmp_path: Path) -> None:
    keys = {"api_key": KEY, "api_keys": f"support:{SUPPORT}"}
    with serving(tmp_path, **keys) as server, LLMBackendClient(server.url, SUPPORT) as client:
        with pytest.raises(Forbidden, match="the data of all projects"):
            client.submit_job("backup", {})
        with pytest.raises(Forbidden, match="the data of all projects"):
            client.set_schedule("mine", "30 2 * * *", "backup", {})
    assert not (tmp_path / "backups").exists()


@pytest.mark.parametrize("there", ["edge", "server"])
@pytest.mark.parametrize("here", ["edge", "server"])
def test_any_engine_takes_what_any_engine_had(here: str, there: str, tmp_path: Path) -> None:
    with qdrant.running() as (old, _), qdrant.running() as (new, _):
        with _client("local", tmp_path / "a", **{"qdrant_url": old} if here == "server" else {}) as client:
            client.rag_ingest(_documents(20), "reports")
            found, made = _found(client, "reports"), _made(client)
        options = {"qdrant_url": new} if there == "server" else {}
        assert _restored(made.file, tmp_path / "b", **options)["chunks"] == made.chunks
        with _client("local", tmp_path / "b", **options) as client:
            again = _found(client, "reports")
            assert [copies for copies, _, _ in again] == [copies for copies, _, _ in found]
            assert client.rag_ingest(_documents(20), "reports").unchanged == 20


def test_what_is_there_is_not_written_over(kept: tuple[Path, list[Any]], tmp_path: Path) -> None:
    with _client("local", tmp_path) as client:
        client.rag_ingest(["mine"], "reports")
        with pytest.raises(Conflict, match="in use by process"):
            _restored(kept[0], tmp_path)
    with pytest.raises(Conflict, match="rows in collections"):
        _restored(kept[0], tmp_path)
    with _client("local", tmp_path) as client:
        assert [one.name for one in client.list_collections()] == ["reports"]


def test_nor_is_a_conversation_that_is_kept(kept: tuple[Path, list[Any]], tmp_path: Path) -> None:
    said = store.Stored("resp_1", "default", None, None, "completed", [], {"id": "resp_1"})
    engine = database.connect(tmp_path / "state.db")
    with database.transaction(engine) as connection:
        store.add(connection, said)
    with pytest.raises(Conflict, match="rows in responses"):
        _restored(kept[0], tmp_path)
    with engine.connect() as connection:
        assert store.find(connection, "default", "resp_1") == said
    engine.dispose()


def _lines(file: Path) -> list[bytes]:
    return gzip.decompress(file.read_bytes()).splitlines(keepends=True)


def _of(lines: list[bytes]) -> bytes:
    return gzip.compress(b"".join(lines))


def _flipped(file: Path) -> bytes:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0x10
    return bytes(data)


_BROKEN: dict[str, Callable[[Path], bytes]] = {
    "empty": lambda file: b"",
    "half": lambda file: file.read_bytes()[: file.stat().st_size // 2],
    "all but its last byte": lambda file: file.read_bytes()[:-1],
    "a flipped bit": _flipped,
    "without its end": lambda file: _of(_lines(file)[:-1]),
    "without a chunk": lambda file: _of(
        [one for n, one in enumerate(_lines(file)) if n != len(_lines(file)) - 3]
    ),
    "no JSON": lambda file: _of([*_lines(file)[:5], b"{\n", *_lines(file)[5:]]),
    "something else": lambda file: gzip.compress(b'{"a": 1}\n'),
    "no gzip": lambda file: b"PK\x03\x04 something else",
    "another version": lambda file: _of(
        [json.dumps({**json.loads(_lines(file)[0]), "schema": "9999"}).encode() + b"\n", *_lines(file)[1:]]
    ),
    "a chunk without its vector": lambda file: _of(
        [one.replace(b'"vector"', b'"rotcev"') for one in _lines(file)]
    ),
}


@pytest.mark.parametrize("how", _BROKEN)
def test_a_damaged_file_is_refused_before_anything_is_written(
    how: str, kept: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    file = tmp_path / "broken.jsonl.gz"
    file.write_bytes(_BROKEN[how](kept[0]))
    with pytest.raises(InvalidRequest, match=r"broken\.jsonl\.gz"):
        _restored(file, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        _restored(tmp_path / "none", tmp_path / "b")


def test_a_restore_that_is_killed_leaves_nothing_and_is_done_again(
    kept: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "b"
    process = python(
        ["-m", "llmbackend", "restore", str(kept[0])], cwd=tmp_path, LLMBACKEND_DATA_DIR=str(folder)
    )
    _until(lambda: (folder / "restoring").exists() or process.poll() is not None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    if (folder / "restoring").exists():  # the machine was not faster
        with pytest.raises(BackendError, match="interrupted"):
            LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder)))
        _restored(kept[0], folder)
    with _client("local", folder) as client:
        assert _found(client, "reports") == kept[1]
    assert len(list((folder / "collections").iterdir())) == 2


def test_a_restore_that_fails_leaves_nothing(
    kept: tuple[Path, list[Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(line: Any) -> Any:
        raise BackendError("the disk is gone", details={})

    with monkeypatch.context() as patched:
        checked = archive.check(kept[0], lambda _: None)
        patched.setattr(archive, "check", lambda *_: checked)
        patched.setattr(archive, "chunk_of", fail)
        with pytest.raises(BackendError, match="the disk is gone"):
            _restored(kept[0], tmp_path)
    assert not list((tmp_path / "collections").iterdir())
    with _client("local", tmp_path) as client:
        assert client.list_collections() == []
    _restored(kept[0], tmp_path)


def test_a_restore_that_was_broken_off_between_two_databases_begins_anew(
    kept: tuple[Path, list[Any]], tmp_path: Path
) -> None:
    """One had been committed already."""
    _restored(kept[0], tmp_path)
    (tmp_path / "restoring").touch()
    _restored(kept[0], tmp_path, database_url=f"sqlite:///{tmp_path}/jobs.db")
    with _client("local", tmp_path, database_url=f"sqlite:///{tmp_path}/jobs.db") as client:
        assert _found(client, "reports") == kept[1]
        assert [one.type for one in client.list_jobs()] == ["backup"]
    assert len(list((tmp_path / "collections").iterdir())) == 2


def test_a_backup_that_is_killed_is_made_by_the_next_attempt(tmp_path: Path) -> None:
    with serving(tmp_path, api_key=KEY) as server, LLMBackendClient(server.url, KEY) as client:
        client.rag_ingest(_documents(200), "reports")
        job = client.submit_job("backup", {})
        backups = tmp_path / "backups"
        _until(lambda: backups.exists() and any(backups.iterdir()))
        server.process.send_signal(signal.SIGKILL)
        server.process.wait()
    with serving(tmp_path, api_key=KEY) as server, LLMBackendClient(server.url, KEY) as client:
        made = client.wait_for_job(job, timeout=PATIENCE)
    assert [one.name for one in backups.iterdir()] == [Path(made.file).name]
    assert _restored(made.file, tmp_path / "b")["chunks"] == made.chunks


def test_a_damaged_collection_is_told_and_the_others_are_saved(tmp_path: Path) -> None:
    with _client("local", tmp_path) as client:
        client.rag_ingest(["Penguins live in the south."], "birds")
        client.rag_ingest(["Bears live in the north."], "bears")
    for file in next((tmp_path / "collections").iterdir()).rglob("*.json"):
        file.write_text("{")
    with _client("local", tmp_path) as client:
        made = _made(client)
    assert made.collections == 1
    [left] = made.left_out
    assert left.collection in ("birds", "bears")
    assert "damaged" in left.error
    assert _restored(made.file, tmp_path / "b")["collections"] == 1


def test_so_many_are_kept(tmp_path: Path) -> None:
    with _client("local", tmp_path, backup_dir=tmp_path / "elsewhere") as client:
        files = [Path(_made(client, keep=2).file) for _ in range(3)]
    assert [file.exists() for file in files] == [False, True, True]
    assert {file.parent for file in files} == {tmp_path / "elsewhere"}
    assert files[-1].stat().st_mode & 0o077 == 0, "others may not read what is every project's"


def test_a_collection_that_other_processes_write_to_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document of which a part is gone already is not whole: the collection is read anew, and told if that never ends."""
    with _client("local", tmp_path) as client:
        client.rag_ingest(_documents(60), "reports")
        chunks = archive.Writer.chunks
        reads = 0

        def torn(writer: archive.Writer, stored: Any) -> None:
            nonlocal reads
            reads += 1
            if reads <= torn_reads:
                stored.chunks.remove(next(chunk for chunk in stored.chunks if chunk.total > 1))
            chunks(writer, stored._replace(vectors=stored.vectors[: len(stored.chunks)]))

        monkeypatch.setattr(making, "PAGE", 10_000)
        monkeypatch.setattr(archive.Writer, "chunks", torn)
        torn_reads = 1
        made = _made(client)
        assert reads == 2
        assert made.left_out == []
        assert _restored(made.file, tmp_path / "b")["chunks"] == made.chunks
        reads, torn_reads = 0, 100
        made = _made(client)
        assert "kept writing" in made.left_out[0].error
        assert (made.collections, made.chunks) == (0, 0)
        shutil.rmtree(tmp_path / "b")
        assert _restored(made.file, tmp_path / "b")["collections"] == 0
