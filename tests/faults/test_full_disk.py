"""A disk that is filled: nothing breaks, nothing acknowledged is lost, and all goes on once there is room."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from llmbackend import InsufficientStorage, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests import server
from tests.server import KEY
from tests.small_disk import SmallDisk, small_disk

MEGABYTES = 60
NAMES = ["one", "two"]
WORDS = [f"word{number}" for number in range(5000)]


def _documents(prefix: str) -> list[dict[str, str]]:
    picked = random.Random(prefix)
    return [
        {"id": f"{prefix}-{number}", "text": " ".join(picked.choices(WORDS, k=150))} for number in range(200)
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


def _check(client: LLMBackendClient, name: str, added: list[str]) -> None:
    there = {one.id for one in client.list_documents(name)}
    assert set(added) <= there
    assert client.rag_search("word1 word2", name, mode="hybrid")


def fills(client: LLMBackendClient) -> None:
    """Run in a process that has nothing but a small disk, or calls a server that has."""
    for name in NAMES:
        client.create_collection(name)
    with ThreadPoolExecutor(len(NAMES)) as threads:
        added = dict(zip(NAMES, threads.map(lambda name: _fill(client, name), NAMES), strict=True))
    # Smaller ones find room a little longer.
    for name in NAMES:
        with pytest.raises(InsufficientStorage):  # noqa: PT012
            for number in range(1000):
                client.rag_ingest(_documents(f"more{number}")[:30], name)
    for name in NAMES:
        _check(client, name, added[name])
    health = client.health()
    assert health.status == "failing"
    assert "DISK_RESERVE_MB" in health.problems[0]
    (data,) = [check for check in client.doctor().checks if check.name == "data"]
    assert not data.ok
    with pytest.raises(InsufficientStorage):
        client.create_collection("new")
    with pytest.raises(InsufficientStorage):
        client.submit_job("batch_embed", {"texts": ["a text"]})

    assert client.delete_documents("one", added["one"][:10]).deleted == 10  # writes, too
    client.delete_collection("one")
    assert client.health().status == "ok"
    client.rag_ingest(_documents("again"), "two")
    assert client.rag_search(_documents("again")[0]["text"], "two")[0].document_id == "again-0"
    _check(client, "two", added["two"])


@contextmanager
def _serving(disk: SmallDisk) -> Iterator[server.Server]:
    process = server.start(
        disk.folder / "data", inside=disk.inside, api_key=KEY, disk_reserve_mb=disk.reserve
    )
    try:
        yield server.Server(server.address(process), process)
    finally:
        process.terminate()
        process.wait(timeout=30)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", MEGABYTES) as disk:
        yield disk


def test_a_full_disk_over_http(disk: SmallDisk) -> None:
    with _serving(disk) as served, LLMBackendClient(served.url, KEY) as client:
        fills(client)
        there = len(client.list_documents("two"))
        served.process.send_signal(signal.SIGKILL)
        served.process.wait(timeout=30)
    with _serving(disk) as served, LLMBackendClient(served.url, KEY) as client:
        assert len(client.list_documents("two")) == there


def test_a_full_disk_in_process(disk: SmallDisk) -> None:
    for work in ("fills", "reads"):
        done = subprocess.run(
            [
                *disk.inside,
                sys.executable,
                "-m",
                __name__,
                work,
                str(disk.folder / "data"),
                str(disk.reserve),
            ],
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, f"{work}\n"), done.stderr


def test_jobs_wait_for_room(disk: SmallDisk) -> None:
    with _serving(disk) as served, LLMBackendClient(served.url, KEY) as client:
        client.create_collection("docs")
        documents = [one for number in range(12) for one in _documents(str(number))]
        filling = disk.fill(disk.free - 20)
        at_work = client.submit_job("rag_ingest", {"collection": "docs", "documents": documents})
        _wait(lambda: client.get_job_status(at_work).progress.stage == "waits for disk space")
        more = disk.fill(disk.free)
        _wait(lambda: client.health().status == "failing")
        time.sleep(6)  # it would have been tried again by now
        assert client.get_job_status(at_work).status == "queued"
        reply = requests.get(f"{served.url}/health/ready", timeout=10)
        assert reply.status_code == 503
        assert requests.get(f"{served.url}/health/live", timeout=10).status_code == 200
        more.unlink()
        filling.unlink()
        report = client.wait_for_job(at_work, timeout=60)
        assert report.added + report.unchanged == len(documents)
        assert len(client.list_documents("docs")) == len(documents)


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not until():
        assert time.monotonic() < end
        time.sleep(0.05)


def reads(client: LLMBackendClient) -> None:
    assert client.rag_search("word1 word2", "two")


if __name__ == "__main__":
    work, folder, reserve = sys.argv[1:]
    with LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=Path(folder), disk_reserve_mb=int(reserve)))
    ) as local:
        {"fills": fills, "reads": reads}[work](local)
    print(work)
