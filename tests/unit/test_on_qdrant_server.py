"""A backend whose collections are on a Qdrant server: the same operations, and those from before stay in Edge."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InsufficientStorage, NotFound, schemas
from llmbackend.backend import Backend
from llmbackend.settings import Settings
from tests.qdrant import OneAtATime

pytestmark = pytest.mark.usefixtures("in_default")

TEXTS = [
    "To reset the router, hold the red button.",
    "Employees get thirty days of vacation.",
    "The office has a gym.",
]


def _in_a_backend(
    folder: Path, work: Callable[[Backend], Awaitable[None]], server: OneAtATime | None, **settings: Any
) -> None:
    async def run() -> None:
        url = "http://in-memory" if server else None
        backend = await Backend.open(Settings(data_dir=folder, qdrant_url=url, **settings))
        try:
            if server is not None:
                assert backend.parts.qdrant is not None
                backend.parts.qdrant.connection._client = server
            await work(backend)
        finally:
            await backend.close()

    asyncio.run(run())


async def _best(backend: Backend, collection: str) -> str:
    request = schemas.RagSearchRequest(query="How do I reset the router?", collection=collection)
    return (await backend.rag_search(request)).hits[0].text


def test_collections_live_on_the_server(tmp_path: Path) -> None:
    server = OneAtATime()

    async def work(backend: Backend) -> None:
        await backend.rag_ingest(schemas.RagIngestRequest(documents=list(TEXTS), collection="facts"))
        assert await _best(backend, "facts") == TEXTS[0]
        assert len(server.get_collections().collections) == 1
        again = await backend.rag_ingest(
            schemas.RagIngestRequest(documents=list(TEXTS), collection="facts", sync=True)
        )
        assert (again.unchanged, again.deleted) == (3, 0)
        report = await backend.reindex_collection(schemas.ReindexRequest(collection="facts"))
        assert report.chunks == 3
        assert len(server.get_collections().collections) == 1, "the old one is gone"
        assert await _best(backend, "facts") == TEXTS[0]

    async def later(backend: Backend) -> None:
        assert await _best(backend, "facts") == TEXTS[0]
        await backend.delete_collection(schemas.CollectionRequest(collection="facts"))
        assert server.get_collections().collections == []
        with pytest.raises(NotFound):
            await _best(backend, "facts")

    _in_a_backend(tmp_path, work, server)
    _in_a_backend(tmp_path, later, server)


def test_a_full_disk_here_stops_nothing_that_is_elsewhere(tmp_path: Path) -> None:
    server = OneAtATime()
    jobs = tmp_path / "jobs"
    jobs.mkdir()

    async def work(backend: Backend) -> None:
        backend.parts.disk.reserve = 2**60
        assert (await backend.health(schemas.Empty())).status == "ok"
        given = {"collection": "facts", "documents": TEXTS}
        job = await backend.submit_job(schemas.SubmitJobRequest(job_type="rag_ingest", params=given))
        events = backend.job_events_stream(schemas.JobEventsRequest(job_id=job.id))
        async with asyncio.timeout(60):
            async for _ in events:  # until it has ended
                pass
        status = await backend.get_job_status(schemas.JobRequest(job_id=job.id))
        assert status.status == "completed", status
        assert await _best(backend, "facts") == TEXTS[0]

        assert backend.parts.jobs_disk is not None
        backend.parts.jobs_disk.reserve = 2**60
        assert (await backend.health(schemas.Empty())).status == "failing"
        with pytest.raises(InsufficientStorage, match=str(jobs)):
            await backend.submit_job(schemas.SubmitJobRequest(job_type="rag_ingest", params=given))

    _in_a_backend(tmp_path / "data", work, server, database_url=f"sqlite:///{jobs}/state.db")


def test_a_collection_from_before_stays_in_edge_until_it_is_reindexed(tmp_path: Path) -> None:
    server = OneAtATime()

    async def before(backend: Backend) -> None:
        await backend.rag_ingest(schemas.RagIngestRequest(documents=list(TEXTS), collection="facts"))

    async def work(backend: Backend) -> None:
        assert await _best(backend, "facts") == TEXTS[0]
        assert server.get_collections().collections == []
        await backend.reindex_collection(schemas.ReindexRequest(collection="facts"))
        assert len(server.get_collections().collections) == 1
        assert await _best(backend, "facts") == TEXTS[0]
        assert [path for path in (tmp_path / "collections").iterdir() if path.is_dir()] == []

    _in_a_backend(tmp_path, before, None)
    _in_a_backend(tmp_path, work, server)
