"""What projects have beside documents, deleted and restored: conversations, runs of agents, shares, keys."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from llmbackend.backend import Backend
from llmbackend.restore import restore
from tests.access.door import ADMIN, Door


def _job(door: Door, job_type: str, key: str = "key-of-hr", **params: Any) -> str:
    submitted = door.ask("POST", "/v1/jobs", key, {"job_type": job_type, "params": params})
    assert submitted.status_code == 200, submitted.text
    return str(submitted.json()["id"])


def test_conversations_runs_shares_and_keys_come_back(door: Door, tmp_path: Path) -> None:
    def ask(path: str, key: str = "key-of-hr") -> Any:
        reply = door.ask("GET", path, key)
        return reply.status_code, reply.json()

    def said(path: str, **body: Any) -> Any:
        reply = door.ask("POST", path, "key-of-hr", body)
        assert reply.status_code == 200, reply.text
        return reply.json()

    said("/v1/rag/ingest", collection="kept", documents=["Every employee has 28 days of vacation."])
    said("/v1/collections/kept/shares", with_project="partner")
    first = said("/v1/responses", input="How much vacation?", model="rag/kept")["id"]
    second = said("/v1/responses", input="And sick leave?", previous_response_id=first)["id"]
    ended = _job(door, "run_agent", agent="halving", task="4")
    assert door.wait(ended)["status"] == "completed"
    asked = {"agent": "writing", "task": "kept", "tools": ["ingest_document"], "approve": "writes"}
    waiting = _job(door, "run_agent", **asked)
    deadline = time.monotonic() + 60
    while not ask(f"/v1/jobs/{waiting}")[1]["pending"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    made = door.key(project="hr", can=["read"], jobs=3, chunks=1000)["key"]
    looks = [
        *(f"/v1/responses/{one}{what}" for one in (first, second) for what in ("", "/input_items")),
        *(f"/v1/jobs/{one}{what}" for one in (ended, waiting) for what in ("", "/result?partial=true")),
        *("/v1/shares", "/v1/prompts", "/v1/keys", "/v1/collections/kept"),
    ]
    before = [ask(path) for path in looks]
    assert {status for status, _ in before} == {200}
    backup = door.wait(_job(door, "backup", ADMIN))
    assert backup["status"] == "completed", backup["error"]
    file = Path(door.ask("GET", f"/v1/jobs/{backup['id']}/result").json()["result"]["file"])

    async def restored() -> Backend:
        there = door.backend.settings.model_copy(update={"data_dir": tmp_path / "restored"})
        await restore(file, there, lambda *_: None)
        return await Backend.open(there)

    backend = door.portal.call(restored)
    try:
        again = Door(door.portal, backend)
        for path, was in zip(looks, before, strict=True):
            reply = again.ask("GET", path, "key-of-hr")
            assert (reply.status_code, reply.json()) == was, path
        assert again.ask("GET", "/v1/collections", made).status_code == 200
        assert again.ask("GET", "/v1/collections/hr%2Fkept", "key-of-partner").status_code == 200
        body = {"input": "What was asked?", "previous_response_id": second}
        assert again.ask("POST", "/v1/responses", "key-of-hr", body).status_code == 200
        assert again.ask("GET", f"/v1/responses/{first}", "key-of-support").status_code == 404
        assert again.ask("POST", f"/v1/agents/runs/{waiting}/approve", "key-of-hr", {}).status_code == 200
        assert again.wait(waiting)["status"] == "completed"
        assert again.ask("GET", "/v1/collections/kept", "key-of-hr").json()["documents"] == 2
    finally:
        door.portal.call(backend.close)
