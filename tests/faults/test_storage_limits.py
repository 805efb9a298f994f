"""What projects and keys may have stored, and how many jobs may wait: whichever way it is tried, it is refused."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from anyio.from_thread import start_blocking_portal
from sqlalchemy import create_engine, text

from llmbackend import LLMBackendClient, LLMBackendError, Overloaded
from llmbackend.backend import Backend
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.access.door import Door

LIMITS = {
    "default": {"chunks": 5, "jobs": 2},
    "narrow": {"bytes": "10k"},
    "hr": {"chunks": 3},
    "keeper": {"bytes": "20k"},
    "*": {"jobs": 100},
}


def _client(folder: Path, **limits: Any) -> LLMBackendClient:
    settings = Settings(data_dir=folder, project_limits=json.dumps({"default": limits}))
    return LLMBackendClient(transport=LocalTransport(settings))


@pytest.fixture(scope="module")
def door(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[Door]:
    settings = Settings(
        data_dir=tmp_path_factory.mktemp("data"),
        models_dir=models_dir,
        api_key="the-key-of-the-administrator",
        api_keys="hr:key-of-hr,narrow:key-of-narrow,keeper:key-of-keeper,support:key-of-support",
        project_limits=json.dumps(LIMITS),
    )
    with start_blocking_portal() as portal:
        backend = portal.call(Backend.open, settings)
        try:
            yield Door(portal, backend)
        finally:
            portal.call(backend.close)


def _ingest(door: Door, key: str, collection: str, *texts: str) -> Any:
    body = {"collection": collection, "documents": [{"id": one, "text": one} for one in texts]}
    return door.ask("POST", "/v1/rag/ingest", key, body)


def _refused(reply: Any, what: str) -> dict[str, Any]:
    assert reply.status_code == 429, reply.text
    error = reply.json()["error"]
    assert (error["code"], error["details"]["what"]) == ("overloaded", what)
    assert int(reply.headers["Retry-After"]) >= 5
    details: dict[str, Any] = error["details"]
    return {**details, "message": error["message"]}


def test_a_project_that_is_full_takes_nothing_more_whichever_way_it_comes(door: Door) -> None:
    assert _ingest(door, "key-of-hr", "a", "one", "two").status_code == 200
    assert _ingest(door, "key-of-hr", "b", "three").status_code == 200
    told = _refused(_ingest(door, "key-of-hr", "a", "four"), "stored chunks")
    assert (told["limit"], told["used"], told["wanted"]) == ("3", 3, 1)
    assert "this project's limit of 3 stored chunks" in told["message"]
    assert "Delete documents, collections, jobs or stored responses" in told["message"]
    files = [{"name": "a.txt", "content": base64.b64encode(b"a file").decode()}]
    _refused(
        door.ask("POST", "/v1/rag/ingest/files", "key-of-hr", {"collection": "b", "files": files}),
        "stored chunks",
    )
    chunks = [
        {
            "document_id": "d",
            "hash": "h",
            "number": 0,
            "total": 1,
            "text": "t",
            "vector": base64.b64encode(np.ones(2, "<f4").tobytes()).decode(),
        }
    ]
    manifest = {"embedding_model": "m", "dimension": 2, "chunk_size": 512, "chunk_overlap": 64}
    body = {"manifest": manifest, "chunks": chunks, "last": True}
    _refused(door.ask("POST", "/v1/collections/c/import", "key-of-hr", body), "stored chunks")
    assert door.ask("GET", "/v1/collections/c", "key-of-hr").status_code == 404
    # The administrator, and whoever it is shared with, store into the same project.
    told = _refused(_ingest(door, "the-key-of-the-administrator", "hr/a", "four"), "stored chunks")
    assert "project hr's limit of 3" in told["message"]
    door.ask("POST", "/v1/collections/a/shares", "key-of-hr", {"with_project": "support", "can": "write"})
    _refused(_ingest(door, "key-of-support", "hr/a", "four"), "stored chunks")
    # A job runs into it, and tells.
    params = {"collection": "a", "documents": ["four"]}
    job = door.ask("POST", "/v1/jobs", "key-of-hr", {"job_type": "rag_ingest", "params": params}).json()
    ended = door.wait(job["id"])
    assert (ended["status"], ended["error"]["details"]["what"]) == ("failed", "stored chunks")
    # What was to be the first in a collection leaves none behind.
    _refused(_ingest(door, "key-of-hr", "new", "four"), "stored chunks")
    params = {"collection": "new", "documents": ["four"]}
    job = door.ask("POST", "/v1/jobs", "key-of-hr", {"job_type": "rag_ingest", "params": params}).json()
    assert door.wait(job["id"])["status"] == "failed"
    assert {one["name"] for one in _collections(door, "key-of-hr")} == {"a", "b"}
    assert {one["chunks"] for one in _collections(door, "key-of-hr")} == {2, 1}
    # What takes the place of something, or was there, needs no room; what is deleted leaves some.
    assert _ingest(door, "key-of-hr", "a", "one").json()["unchanged"] == 1
    body = {"collection": "a", "documents": [{"id": "one", "text": "another text"}]}
    assert door.ask("POST", "/v1/rag/ingest", "key-of-hr", body).json()["updated"] == 1
    door.ask("POST", "/v1/collections/a/documents/delete", "key-of-hr", {"ids": ["one"]})
    assert _ingest(door, "key-of-hr", "a", "four").status_code == 200
    _refused(_ingest(door, "key-of-hr", "a", "five"), "stored chunks")
    door.ask("DELETE", "/v1/collections/b", "key-of-hr")
    assert _ingest(door, "key-of-hr", "a", "five").status_code == 200
    doctor = door.ask("GET", "/v1/doctor", "key-of-hr").json()
    (check,) = [one for one in doctor["checks"] if one["name"] == "storage"]
    assert check["limits"] == {"chunks": 3, "most_chunks": 3}
    assert "uses 100% of its storage limit" in check["fix"]


def _collections(door: Door, key: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = door.ask("GET", "/v1/collections", key).json()["collections"]
    return found


def test_bytes_are_those_of_texts_metadata_and_vectors(door: Door) -> None:
    assert _ingest(door, "key-of-narrow", "a", "x" * 500).status_code == 200
    doctor = door.ask("GET", "/v1/doctor", "key-of-narrow").json()
    (check,) = [one for one in doctor["checks"] if one["name"] == "storage"]
    (collection,) = _collections(door, "key-of-narrow")
    vectors = collection["chunks"] * 4 * collection["dimension"]
    assert check["limits"] == {"bytes": vectors + 500, "most_bytes": 10_000}
    body = {"collection": "a", "documents": [{"id": "b", "text": "short", "metadata": {"long": "y" * 8000}}]}
    told = _refused(door.ask("POST", "/v1/rag/ingest", "key-of-narrow", body), "stored bytes")
    assert told["used"] + told["wanted"] > 10_000 > told["wanted"]


def test_what_jobs_and_responses_leave_counts_as_bytes_and_can_be_deleted(door: Door) -> None:
    ask: Callable[..., Any] = door.ask

    def submit(job_type: str, *texts: str) -> Any:
        return ask("POST", "/v1/jobs", "key-of-keeper", {"job_type": job_type, "params": {"texts": texts}})

    def used() -> int:
        doctor = ask("GET", "/v1/doctor", "key-of-keeper").json()
        (check,) = [one for one in doctor["checks"] if one["name"] == "storage"]
        assert check["limits"]["most_bytes"] == 20_000
        return int(check["limits"]["bytes"])

    # Of a job: its params, and its result.
    job = submit("count_words", "x" * 4000).json()["id"]
    assert door.wait(job)["status"] == "completed"
    assert 8000 < used() < 9000
    told = _refused(submit("count_words", "x" * 12_000), "stored bytes")
    assert (told["limit"], told["used"]) == ("20000", used())
    assert "this project's limit of 20000 stored bytes" in told["message"]
    # One whose result would be too large fails, and nothing of it is kept but what it was given.
    large = door.wait(submit("batch_embed", *map(str, range(20))).json()["id"])
    assert (large["status"], large["error"]["details"]["what"]) == ("failed", "stored bytes")
    assert 8000 < used() < 9500
    # It leaves less room for collections, and the other way round.
    body = {"collection": "a", "documents": ["a short document " * 100]}
    assert ask("POST", "/v1/rag/ingest", "key-of-keeper", body).status_code == 200
    body = {"collection": "a", "documents": ["y" * 10_000]}
    _refused(ask("POST", "/v1/rag/ingest", "key-of-keeper", body), "stored bytes")
    question = {"model": "rag/a", "input": "document? " * 50}
    responses = []
    while (reply := ask("POST", "/v1/responses", "key-of-keeper", question)).status_code == 200:
        responses.append(reply.json()["id"])
        assert len(responses) < 20
    _refused(reply, "stored bytes")
    assert responses
    assert 19_000 < used() < 25_000, "one that was begun is stored, for it is paid for"
    background = {**question, "background": True}
    _refused(ask("POST", "/v1/responses", "key-of-keeper", background), "stored bytes")
    assert ask("POST", "/v1/responses", "key-of-keeper", {**question, "store": False}).status_code == 200
    # A schedule that is due waits for its next time, and tells why.
    schedule = {
        "name": "often",
        "cron": "* * * * * *",
        "job_type": "count_words",
        "params": {"texts": ["x" * 9000]},
    }
    assert ask("POST", "/v1/schedules", "key-of-keeper", schedule).status_code == 200
    deadline = time.monotonic() + 60
    while not (error := ask("GET", "/v1/schedules", "key-of-keeper").json()["schedules"][0]["error"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "this project's limit of 20000 stored bytes would be exceeded" in error
    ask("DELETE", "/v1/schedules/often", "key-of-keeper")
    # What is deleted leaves room, and is gone.
    for one in responses:
        assert ask("DELETE", f"/v1/responses/{one}", "key-of-keeper").status_code == 200
    before = used()
    assert ask("DELETE", f"/v1/jobs/{job}", "key-of-keeper").json() == {"deleted": job}
    assert used() < before - 8000
    assert submit("count_words", "x" * 4000).status_code == 200


def test_a_key_stores_no_more_than_it_may_and_makes_none_that_may_more(door: Door) -> None:
    made = door.key(project="support", can=["read", "write", "admin"], chunks=2, jobs=1)
    assert (made["chunks"], made["bytes"], made["jobs"]) == (2, None, 1)
    assert _ingest(door, "key-of-support", "mine", "one").status_code == 200
    assert _ingest(door, made["key"], "mine", "two").status_code == 200
    told = _refused(_ingest(door, made["key"], "mine", "three"), "stored chunks")
    assert "this key's limit of 2 stored" in told["message"]
    assert _ingest(door, "key-of-support", "mine", "three").status_code == 200, "the other key may"
    for more in ({"chunks": 3}, {"jobs": 2}):
        refused = door.ask("POST", "/v1/keys", made["key"], {"can": ["read"], **more})
        assert refused.status_code == 403, refused.text
    narrower = door.ask("POST", "/v1/keys", made["key"], {"can": ["read"]}).json()
    assert (narrower["chunks"], narrower["jobs"]) == (2, 1)


def test_jobs_of_a_key_and_of_a_project_are_limited_whatever_submits_them(door: Door) -> None:
    later: dict[str, Any] = {
        "job_type": "count_words",
        "params": {"texts": ["a"]},
        "run_at": "2999-01-01T00:00:00Z",
    }
    ask: Callable[..., Any] = door.ask
    key = door.key(project="support", can=["jobs"], jobs=1)["key"]
    first = ask("POST", "/v1/jobs", key, later).json()["id"]
    told = _refused(ask("POST", "/v1/jobs", key, later), "jobs")
    assert (told["limit"], told["used"]) == ("1", 1)
    assert ask("POST", "/v1/jobs", "key-of-support", later).status_code == 200, "of another key"
    ask("POST", f"/v1/jobs/{first}/cancel", key)
    second = ask("POST", "/v1/jobs", key, later).json()["id"]
    _refused(ask("POST", f"/v1/jobs/{first}/retry", key), "jobs")
    # A schedule that is due waits for its next time, and tells why.
    schedule = {
        "name": "often",
        "cron": "* * * * * *",
        "job_type": "count_words",
        "params": {"texts": ["a"]},
    }
    assert ask("POST", "/v1/schedules", key, schedule).status_code == 200
    deadline = time.monotonic() + 60
    while not (error := ask("GET", "/v1/schedules", key).json()["schedules"][0]["error"]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "this key's limit of 1 jobs queued or running is reached" in error
    ask("DELETE", "/v1/schedules/often", key)
    ask("POST", f"/v1/jobs/{second}/cancel", key)


def test_many_who_submit_at_once_pass_no_limit(door: Door) -> None:
    made = door.key(project="support", can=["jobs"], jobs=5)["key"]
    later = {"job_type": "count_words", "params": {"texts": ["a"]}, "run_at": "2999-01-01T00:00:00Z"}

    async def all_at_once() -> list[int]:
        import asyncio

        async def one() -> int:
            headers = {"X-API-Key": made}
            reply = await door._client.request("POST", "/v1/jobs", json=later, headers=headers)
            return int(reply.status_code)

        return list(await asyncio.gather(*(one() for _ in range(40))))

    statuses = door.portal.call(all_at_once)
    assert (statuses.count(200), statuses.count(429)) == (5, 35)


def test_in_process_the_same_and_after_a_kill_what_is_there_counts(tmp_path: Path) -> None:
    with _client(tmp_path, chunks=4, jobs=1) as client:
        client.rag_ingest(["one", "two"], collection="a")
        with pytest.raises(
            Overloaded, match="of 4 stored chunks would be exceeded: 2 are stored, and this adds 3"
        ):
            client.rag_ingest(["three", "four", "five"], collection="b")
        assert [one.name for one in client.list_collections()] == ["a"]
        client.submit_job("count_words", {"texts": ["a"]}, run_at="2999-01-01T00:00:00Z")
        with pytest.raises(Overloaded, match="this project's limit of 1 jobs"):
            client.submit_job("count_words", {"texts": ["a"]}, run_at="2999-01-01T00:00:00Z")
    with _client(tmp_path, chunks=4, bytes="10k") as client:
        job = client.submit_job("count_words", {"texts": ["x" * 2000]})
        client.wait_for_job(job, 60)
        with pytest.raises(Overloaded, match="of 10000 stored bytes would be exceeded"):
            client.submit_job("count_words", {"texts": ["x" * 9000]})
        with pytest.raises(Overloaded, match="stored bytes"):
            client.wait_for_job(client.submit_job("batch_embed", {"texts": list(map(str, range(20)))}), 60)
        client.delete_job(job)
    with _client(tmp_path, chunks=4, jobs=1) as client:
        store = client.llamaindex.vector_store("a")
        from llama_index.core.schema import TextNode

        with pytest.raises(Overloaded, match="stored chunks"):
            store.add([TextNode(text=f"node {number}") for number in range(3)])
        assert client.get_collection("a").chunks == 2
    # As a process leaves it that was killed between noting and writing; and as an earlier version does.
    for left in ("4", "NULL"):
        engine = create_engine(f"sqlite:///{tmp_path / 'state.db'}")
        with engine.begin() as connection:
            connection.execute(
                text(f"UPDATE collections SET stored_chunks = {left}, stored_bytes = {left} WHERE name = 'a'")
            )
        engine.dispose()
        with _client(tmp_path, chunks=4) as client:
            assert client.rag_ingest([f"three, {left}"], collection="a").added == 1
            client.delete_documents("a", [client.list_documents("a")[0].id])


def test_two_imports_at_once_do_not_pass_the_limit(tmp_path: Path) -> None:
    with _client(tmp_path / "from") as source:
        source.rag_ingest(["one", "two", "three"], collection="a")
        source.export_collection("a", tmp_path / "a.jsonl")
    with _client(tmp_path / "to", chunks=4) as client:
        client.import_collection(tmp_path / "a.jsonl", collection="a")
        with pytest.raises(LLMBackendError, match="3 are stored, and this adds 3"):
            client.import_collection(tmp_path / "a.jsonl", collection="b")
        assert [one.name for one in client.list_collections()] == ["a"]
