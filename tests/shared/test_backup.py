"""A backup of what PostgreSQL holds into a file of this machine, and the other way round."""

from __future__ import annotations

import asyncio
from pathlib import Path

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.restore import restore
from llmbackend.settings import Settings
from tests import qdrant
from tests.shared import services


def test_it_goes_from_each_database_into_the_other(postgres: str, tmp_path: Path) -> None:
    with qdrant.running() as (url, _):
        where = [
            Settings(data_dir=tmp_path / "a"),
            Settings(
                data_dir=tmp_path / "b", database_url=services.database(postgres, "both"), qdrant_url=url
            ),
            Settings(data_dir=tmp_path / "c", database_url=services.database(postgres, "jobs-only")),
            Settings(data_dir=tmp_path / "d"),
        ]
        with LLMBackendClient(transport=LocalTransport(where[0])) as client:
            client.rag_ingest(["Penguins live in the south."], "birds")
            done = client.submit_job("batch_embed", {"texts": ["a", "b"]})
            rows = client.wait_for_job(done).embeddings
        for old, new in zip(where, [*where[1:], None], strict=True):
            with LLMBackendClient(transport=LocalTransport(old)) as client:
                assert client.rag_ingest(["Penguins live in the south."], "birds").unchanged == 1
                assert "Penguins" in client.rag_search("Where do penguins live?", "birds")[0].text
                assert client.wait_for_job(done).embeddings == rows
                made = client.wait_for_job(client.submit_job("backup", {}))  # its number follows on the last
                jobs = [one.id for one in client.list_jobs()]
                assert len(set(jobs)) == len(jobs) == 2 + where.index(old)
            if new is not None:
                asyncio.run(restore(Path(made.file), new, lambda *_: None))
