"""Calls that hang in threads: what waits for something else goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests import qdrant
from tests.server import serving

HANGING = 60
LEASE = 2  # seconds
PATIENCE = 20  # seconds, for what takes milliseconds on an idle machine


@pytest.fixture
def server() -> Iterator[tuple[str, qdrant.OneAtATime]]:
    with qdrant.running() as (url, behind):
        yield url, behind
        behind.hangs = False


@pytest.fixture(params=["local", "http"])
def client(
    request: pytest.FixtureRequest, tmp_path: Path, server: tuple[str, qdrant.OneAtATime]
) -> Iterator[LLMBackendClient]:
    """One with a collection `here`, in its own engine, and `there`, on the server."""
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as before:
        before.rag_ingest(["Penguins live in the south."], "here")
    url, _ = server
    if request.param == "local":
        options = Settings(data_dir=tmp_path, qdrant_url=url, job_lease=LEASE)
        with LLMBackendClient(transport=LocalTransport(options)) as client:
            client.rag_ingest(["Bears live in the north."], "there")
            yield client
    else:
        with (
            serving(tmp_path, qdrant_url=url, job_lease=LEASE) as process,
            LLMBackendClient(process.url) as client,
        ):
            client.rag_ingest(["Bears live in the north."], "there")
            yield client


def test_searches_that_hang_hold_up_nobody_else(
    client: LLMBackendClient, server: tuple[str, qdrant.OneAtATime], tmp_path: Path
) -> None:
    _, behind = server
    began = time.monotonic()
    job: Any = client.submit_job("note", {"file": str(tmp_path / "notes"), "seconds": 3 * LEASE})
    behind.hangs = True
    with ThreadPoolExecutor(HANGING) as callers:
        searches = [
            callers.submit(client.rag_search, f"Where do bears live? {number}", "there")
            for number in range(HANGING)
        ]
        try:
            while not behind.asked:
                assert time.monotonic() - began < PATIENCE
                time.sleep(0.02)
            while client.get_job_status(job).status != "completed":
                assert time.monotonic() - began < PATIENCE
                assert client.health().status == "ok"
                assert [one.id for one in client.list_jobs()] == [job]
                assert len(client.embed(["a text", f"embedded at {time.time()}"])) == 2
                [hit] = client.rag_search("Where do penguins live?", "here")
                assert "Penguins" in hit.text
                client.rag_ingest([f"Penguins were seen at {time.time()}."], "more")
                client.delete_collection("more")
                time.sleep(0.2)
            assert not any(search.done() for search in searches), "they hang all the time"
        finally:
            behind.hangs = False
        assert all("Bears" in search.result(PATIENCE)[0].text for search in searches)
    assert client.get_job_status(job).attempts == 1, "its lease was extended all the time"
