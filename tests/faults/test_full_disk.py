"""A disk that is filled: nothing breaks, nothing acknowledged is lost, and all goes on once there is room."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbackend import InsufficientStorage, LLMBackendClient, schemas
from llmbackend.backend import Backend
from llmbackend.inference.cached_embedder import CachedEmbedder
from llmbackend.inference.embeddings import EmbeddingBatch
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests import server
from tests.server import KEY
from tests.small_disk import SmallDisk, small_disk

pytestmark = pytest.mark.usefixtures("in_default")

MEGABYTES = 14
"""For documents, once collections are made."""
NAMES = ["one", "two"]
WORDS = [f"word{number}" for number in range(5000)]


def _documents(prefix: str, notes: int = 120) -> list[dict[str, Any]]:
    """A hundred documents; most of what each takes is its notes, of so many words, which need not be embedded."""
    picked = random.Random(prefix)

    def words(count: int) -> str:
        return " ".join(picked.choices(WORDS, k=count))

    return [
        {"id": f"{prefix}-{number}", "text": words(30), "metadata": {"notes": words(notes)}}
        for number in range(100)
    ]


def _fill(client: LLMBackendClient, name: str) -> list[str]:
    """Ingest until there is no room; the ids of what was acknowledged."""
    added: list[str] = []
    with pytest.raises(InsufficientStorage, match="remove files or collections") as caught:  # noqa: PT012
        for number in range(1000):
            documents = _documents(f"{name}{number}")
            assert client.rag_ingest(documents, name).added == len(documents)
            added += [document["id"] for document in documents]
    error = caught.value
    assert error.details["free"] < error.details["needed"]
    assert error.details["path"] in error.message
    return added


def _check(client: LLMBackendClient, name: str, added: list[str], mode: str = "hybrid") -> None:
    there = {one.id for one in client.list_documents(name)}
    assert set(added) <= there
    assert client.rag_search("word1 word2", name, mode=mode)


def fills(client: LLMBackendClient, disk: SmallDisk) -> list[str]:
    """Run in a process on a small disk, or calls a server that is; returns what is in the collection `two` in the end."""
    for name in NAMES:
        client.rag_ingest(_documents(name), name)
    filling = disk.fill(disk.free - MEGABYTES)
    with ThreadPoolExecutor(len(NAMES)) as threads:
        added = dict(zip(NAMES, threads.map(lambda name: _fill(client, name), NAMES), strict=True))
    # Smaller ones find room a little longer.
    for name in NAMES:
        with pytest.raises(InsufficientStorage):  # noqa: PT012
            for number in range(1000):
                client.rag_ingest(_documents(f"more{number}")[:30], name)
    for name in NAMES:
        _check(client, name, added[name])
    with suppress(InsufficientStorage):
        client.create_collection("new")  # takes more room than is left, or all of it
    rest = disk.fill(disk.free)
    health = client.health()
    assert health.status == "failing"
    assert "DISK_RESERVE_MB" in health.problems[0]
    (data,) = [check for check in client.doctor().checks if check.name == "data"]
    assert not data.ok
    with pytest.raises(InsufficientStorage):
        client.create_collection("another")
    with pytest.raises(InsufficientStorage):
        client.submit_job("batch_embed", {"texts": ["a text"]})

    assert client.delete_documents("one", added["one"][:10]).deleted == 10  # writes, too
    filling.unlink()
    rest.unlink()
    client.delete_collection("one")
    assert client.health().status == "ok"
    client.rag_ingest(_documents("again"), "two")
    assert client.rag_search(_documents("again")[0]["text"], "two")[0].document_id == "again-0"
    _check(client, "two", added["two"])
    return [*added["two"], *(document["id"] for document in _documents("again"))]


@contextmanager
def _serving(disk: SmallDisk) -> Iterator[server.Server]:
    (disk.outside / "data").mkdir()
    options = {"api_key": KEY, "disk_reserve_mb": disk.reserve}
    process = server.start(disk.folder / "data", namespaces=disk.namespaces, warm=True, **options)
    try:
        yield server.Server(server.address(process), process)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 80) as disk:
        yield disk


def test_a_full_disk_over_http(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(disk.folder))  # where forms' files wait
    with _serving(disk) as served, LLMBackendClient(served.url, KEY) as client:
        there = fills(client, disk)
        _jobs_wait(client, served.url, disk)
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(timeout=30)
    _in_process(disk, "finds", *there)


def test_a_full_disk_in_process(disk: SmallDisk) -> None:
    _in_process(disk, "fills")


def _in_process(disk: SmallDisk, work: str, *names: str) -> None:
    """Do this module's `work` in a process that has the disk."""
    checkout = Path(__file__).parents[2]
    arguments = ["-m", __name__, work, str(disk.folder), str(disk.reserve), *names]
    process = server.python(arguments, cwd=checkout, namespaces=disk.namespaces, PYTHONPATH=str(checkout))
    out, said = process.communicate(timeout=240)
    assert (process.returncode, out) == (0, f"{work}\n"), said


def _jobs_wait(client: LLMBackendClient, url: str, disk: SmallDisk) -> None:
    documents = [one for number in range(4) for one in _documents(f"job{number}", notes=1500)]
    filling = disk.fill(disk.free - 20)  # the job's parameters need seventeen
    at_work = client.submit_job("rag_ingest", {"collection": "two", "documents": documents})
    _wait(lambda: client.get_job_status(at_work).progress.stage == "waits for disk space")
    more = disk.fill(disk.free)
    _wait(lambda: client.health().status == "failing")
    assert client.get_job_status(at_work).status == "queued"
    assert requests.get(f"{url}/health/ready", timeout=60).status_code == 503
    assert requests.get(f"{url}/health/live", timeout=60).status_code == 200
    refused = requests.post(
        f"{url}/v1/rag/ingest/files",
        data={"collection": "two"},
        files={"files": ("large.txt", b"a word " * 2**19)},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=60,
    )
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (507, "insufficient_storage"), error
    assert error["details"]["path"] == str(disk.folder), "before the file was written there"
    more.unlink()
    filling.unlink()
    report = client.wait_for_job(at_work, timeout=120)
    assert report.added + report.unchanged == len(documents)


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def finds(client: LLMBackendClient, names: list[str]) -> None:
    _check(client, "two", names, mode="sparse")  # which takes no model


def test_nothing_is_embedded_that_could_not_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embedded: list[str] = []
    embed = CachedEmbedder.embed

    async def noted(self: CachedEmbedder, texts: Sequence[str], **options: Any) -> EmbeddingBatch:
        embedded.extend(texts)
        return await embed(self, texts, **options)

    def ingest(text: str, **options: Any) -> schemas.RagIngestRequest:
        return schemas.RagIngestRequest(documents=[text], collection="docs", **options)

    async def work() -> None:
        backend = await Backend.open(Settings(data_dir=tmp_path))
        try:
            await backend.rag_ingest(ingest("the first text"))
            monkeypatch.setattr(CachedEmbedder, "embed", noted)
            backend.parts.disk.reserve = 2**60
            for number in range(3):
                with pytest.raises(InsufficientStorage):
                    await backend.rag_ingest(ingest(f"another text, the {number}th"))
            assert embedded == []
            with pytest.raises(InsufficientStorage):
                await backend.reindex_collection(schemas.ReindexRequest(collection="docs"))
            assert "the first text" not in embedded
            # What is there already takes no room, nor does a plan.
            assert (await backend.rag_ingest(ingest("the first text"))).unchanged == 1
            assert (await backend.rag_ingest(ingest("another text", plan=True))).added == 1
        finally:
            await backend.close()

    asyncio.run(work())


if __name__ == "__main__":
    work, folder, reserve, *names = sys.argv[1:]
    here = SmallDisk(Path(folder), None, int(reserve), Path(folder))
    options = Settings(data_dir=Path(folder) / "data", disk_reserve_mb=int(reserve))
    if work == "fills":
        with LLMBackendClient(transport=LocalTransport(options)) as local:
            names = fills(local, here)
    with LLMBackendClient(transport=LocalTransport(options)) as local:
        finds(local, names)
    print(work)
