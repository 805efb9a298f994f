"""Results and streams in this process: what the loop makes, and the caller reads at leisure."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.jobs.service import Jobs
from llmbackend.json_writing import INLINE_ITEMS
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

TEXTS = [
    f"Report {number} is about case {number * 31}." for number in range(5000)
]  # 7 MB of vectors, as lines
PAGE = 50


def test_a_stream_is_made_a_little_ahead_of_its_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Jobs.page
    pages: list[int] = []

    async def counted(self: Jobs, reach: str | None, job_id: str, offset: int, limit: int, **how: Any) -> Any:
        pages.append(offset)
        return await read(self, reach, job_id, offset, limit, **how)

    monkeypatch.setattr(Jobs, "page", counted)
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        job_id = client.submit_job("batch_embed", {"texts": TEXTS})
        client.wait_for_job(job_id, 120)
        pages.clear()
        rows = client.get_job_result(job_id, limit=PAGE, stream=True)
        first = next(rows)
        for _ in range(200):  # in which time all pages could be read
            client.list_jobs()
        assert len(pages) < len(TEXTS) / PAGE / 2
        assert [row.index for row in [first, *rows]] == list(range(len(TEXTS)))
        assert pages == list(range(0, len(TEXTS), PAGE))


def test_a_long_result_is_read_without_json_between(tmp_path: Path) -> None:
    transport = LocalTransport(Settings(data_dir=tmp_path))
    with LLMBackendClient(transport=transport) as client:
        client.rag_ingest(TEXTS[: 2 * INLINE_ITEMS], collection="reports")
        given = {"collection": "reports"}
        read = transport.read("list_chunks", given)
        assert isinstance(read, dict)
        assert len(read["chunks"]) == 2 * INLINE_ITEMS
        assert read == json.loads(transport.call("list_chunks", given))
