"""Runs of agents by several processes on one PostgreSQL."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmbackend import Conflict, LLMBackendClient
from tests.server import serving
from tests.shared import services


def _decided(decide: Callable[[], object]) -> bool:
    try:
        decide()
    except Conflict:
        return False
    return True


def _made(client: LLMBackendClient, response_id: str) -> str:
    deadline = time.monotonic() + 60
    while (status := client.get_response(response_id)["status"]) in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return str(status)


def test_a_run_is_approved_once_by_whichever_process_and_goes_on_where_its_collections_are(
    postgres: str, tmp_path: Path
) -> None:
    options = {"database_url": services.database(postgres, f"agents-{time.time()}"), "job_lease": 2}
    asked = {"agent": "writing", "tools": ["ingest_document"], "approve": "writes"}
    with (
        serving(tmp_path / "two", **options) as other,
        LLMBackendClient(other.url) as two,
    ):
        with serving(tmp_path / "one", **options) as server, LLMBackendClient(server.url) as one:
            one.rag_ingest([{"id": "a", "text": "High tide is at nine."}], "harbour")
            params = {"input": {"text": "high tide"}, "collections": ["harbour"]}
            many = [one.submit_job("agent/contracts", params) for _ in range(6)]
            assert {one.wait_for_job(job, 60)["output"]["sources"] for job in many} == {1}
            asked_too = {"model": "rag/harbour", "input": "When is high tide?", "background": True}
            responses = [one.respond(**asked_too)["id"] for _ in range(4)]
            assert {_made(one, response) for response in responses} == {"completed"}
            approved, rejected, cancelled = (one.run_agent("harbour", **asked).run_id for _ in range(3))
            server.process.kill()
            server.process.wait()
        with ThreadPoolExecutor(8) as threads:
            words = list(threads.map(lambda _: _decided(lambda: two.approve(approved)), range(8)))
        assert words.count(True) == 1
        assert _decided(lambda: two.reject(rejected, why="not now"))
        assert not _decided(lambda: two.approve(rejected))
        two.cancel_job(cancelled)
        assert not _decided(lambda: two.approve(cancelled))
        with serving(tmp_path / "one", **options) as server, LLMBackendClient(server.url) as one:
            done = two.wait_for_job(approved, 60)
            assert done["answer"] == "written"
            assert [row["kind"] for row in done["steps"]] == ["tool"]
            with pytest.raises(Exception, match="this call was refused: not now"):
                two.wait_for_job(rejected, 60)
            for ended in (approved, rejected):
                assert not _decided(lambda run=ended: two.approve(run))  # type: ignore[misc]
            assert one.get_document("log", "harbour").text == "All is well."
