"""The audit log: what is noted, who sees it, and that it goes no further than it has to."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import requests
from sqlalchemy import create_engine, text

from llmbackend import Forbidden, InvalidRequest, LLMBackendClient, NotFound, Record
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving


def _entries(client: LLMBackendClient, target: str) -> list[tuple[str, str]]:
    return [(one.action, one.outcome) for one in client.audit() if one.target == target]


def test_keys_deletions_and_exports_are_noted(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    client.rag_ingest("The quay opens at nine.", collection)
    client.export_collection(collection, tmp_path / "c.jsonl")
    client.delete_collection(collection)
    with pytest.raises(NotFound):
        client.delete_collection(collection)
    assert _entries(client, collection) == [
        ("delete_collection", "not_found"),
        ("delete_collection", "ok"),
        ("export_collection", "ok"),
    ]
    assert [one.action for one in client.audit(action="export_collection", limit=1)] == ["export_collection"]
    newest, second = client.audit(limit=2)
    assert client.audit(before=newest.number, limit=1) == [second]
    with pytest.raises(InvalidRequest):
        client.audit(since="yesterday")


def test_what_else_deletes_or_takes_out_is_noted(client: LLMBackendClient, collection: str) -> None:
    """An ingest that removes what it is not given, be it a job; a backup, which has everything; a run's approval."""
    client.rag_ingest("The quay opens at nine.", collection)
    assert _entries(client, collection) == []
    client.rag_ingest("The quay opens at ten.", collection, sync=True)
    assert _entries(client, collection) == [("rag_ingest", "ok")]
    params = {"documents": ["The quay is closed."], "collection": collection, "sync": True}
    client.wait_for_job(client.submit_job("rag_ingest", params), 60)
    assert _entries(client, f"rag_ingest into {collection}") == [("submit_job", "ok")]
    name = f"nightly-{collection}"
    client.set_schedule(name, "30 2 1 1 *", "rag_ingest", params)
    client.delete_schedule(name)
    assert _entries(client, f"rag_ingest into {collection}")[0] == ("set_schedule", "ok")
    client.cancel_job(client.submit_job("backup", {}, run_at="2999-01-01T00:00:00Z"))
    assert _entries(client, "backup")[0] == ("submit_job", "ok")
    run = "00000000-0000-0000-0000-000000000000"
    for decide in (client.approve, client.reject):
        with pytest.raises(NotFound):
            decide(run)
    assert _entries(client, run)[:2] == [("reject", "not_found"), ("approve", "not_found")]


def test_an_admin_sees_its_own_project_and_refusals_are_noted_with_address_and_request(
    tmp_path: Path,
) -> None:
    with serving(tmp_path, api_key=KEY, workers=0) as server, LLMBackendClient(server.url, KEY) as admin:
        hr = admin.create_key(project="hr", can=["read", "admin"])
        support = admin.create_key(project="support", can=["read", "admin"])
        admin.rotate_key(hr.id)
        admin.revoke_key(support.id)
        admin.create_collection("policies")
        admin.share_collection("policies", with_project="hr")
        admin.unshare_collection("policies", with_project="hr")
        with LLMBackendClient(server.url, hr.key) as client:
            for refused in (client.delete_collection, client.create_collection):
                with pytest.raises(Forbidden):
                    refused("secrets")
            own = client.audit()
        reply = requests.get(f"{server.url}/v1/jobs", headers={"X-API-Key": "guess"}, timeout=20)
        wait_for = reply.headers["X-Request-Id"]
        found: list[Record] = []
        deadline = time.monotonic() + 10
        while not found and time.monotonic() < deadline:
            found = [one for one in admin.audit(action="refused") if one.request_id == wait_for]
        assert (found[0].target, found[0].outcome, found[0].client) == ("GET /v1/jobs", "401", "127.0.0.1")
        done = [(one.action, one.target) for one in admin.audit() if one.caller == "default"]
        assert done[:6] == [
            ("unshare_collection", "policies with hr"),
            ("share_collection", "policies with hr"),
            ("revoke_key", support.id),
            ("rotate_key", hr.id),
            ("create_key", support.id),
            ("create_key", hr.id),
        ]
        assert {one.project for one in own} == {"hr"}
        assert [(one.action, one.target, one.outcome) for one in own[:2]] == [
            ("refused", "POST /v1/collections", "403"),
            ("delete_collection", "secrets", "forbidden"),
        ]
        everything = str(admin.audit(limit=1000))
        for secret in (hr.key, support.key, KEY, "guess"):
            assert secret not in everything


def test_entries_are_removed_when_they_are_old(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, audit_days=30)

    def client() -> LLMBackendClient:
        return LLMBackendClient(transport=LocalTransport(options))

    with client() as first:
        for name in ("old", "new"):
            first.create_collection(name)
            first.delete_collection(name)
    before = (datetime.now(UTC) - timedelta(days=31)).isoformat(timespec="milliseconds")
    engine = create_engine(f"sqlite:///{tmp_path}/state.db")
    with engine.begin() as connection:
        connection.execute(text("UPDATE audit SET at = :at WHERE target = 'old'"), {"at": before})
    engine.dispose()
    with client() as second:
        second.create_collection("newest")
        second.delete_collection("newest")
        second.list_jobs()
        targets = [one.target for one in second.audit(since="100d")]
    assert targets[:2] == ["newest", "new"]
    assert "old" not in targets
