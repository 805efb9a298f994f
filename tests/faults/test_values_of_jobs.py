"""Values that cannot be stored, ordered or written out again are refused, and a row that has one breaks no list."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound
from llmbackend.jobs.registry import TYPES
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.storage.database import Database, connect, transaction
from llmbackend.storage.schema import metadata
from tests.server import KEY, serving

PARAMS = {"texts": ["a"]}


@pytest.mark.parametrize(
    "run_at",
    [
        "9999-12-31T23:59:59-23:59",
        "9999-12-31T23:59:59.999999+00:00",
        "0001-01-01T00:00:00+00:01",
        "0001-01-01T00:00:00+23:59",
        "2030-01-01T00:00:00",
        "2030-01-01T00:00:00+00:00\x00",
        "",
        "tomorrow",
    ],
)
def test_moments_beyond_the_years_there_are_refused(client: LLMBackendClient, run_at: str) -> None:
    with pytest.raises(InvalidRequest, match="run_at"):
        client.submit_job("count_words", PARAMS, run_at=run_at)
    client.list_jobs()


@pytest.mark.parametrize(
    "run_at", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59+00:00", "9999-12-31T23:59:59+23:59"]
)
def test_every_moment_that_is_taken_is_told_again(client: LLMBackendClient, run_at: str) -> None:
    job_id = client.submit_job("count_words", PARAMS, run_at=run_at)
    assert job_id in [job.id for job in client.list_jobs()]
    assert client.get_job_status(job_id).id == job_id
    client.cancel_job(job_id)


ODD: list[Any] = [None, 5, True, "x", [], ["x", 5, None, [], {}], {"type": ["x"], "x": {}}]


@pytest.mark.parametrize(
    "kind", [kind.name for kind in TYPES.values() if kind.run.__module__.startswith("llmbackend.")]
)
def test_params_of_any_shape_are_taken_or_refused(client: LLMBackendClient, kind: str) -> None:
    fields = TYPES[kind].params.model_fields
    for odd in ODD:
        with suppress(InvalidRequest, NotFound):
            params = dict.fromkeys(fields, odd)
            client.cancel_job(client.submit_job(kind, params, run_at="2999-01-01T00:00:00+00:00"))


@pytest.mark.parametrize("number", [2**53, 2**63 - 1, 2**63, 2**64, 10**30])
def test_integers_beyond_what_is_stored_are_refused(client: LLMBackendClient, number: int) -> None:
    job_id = client.submit_job("count_words", PARAMS)
    client.wait_for_job(job_id, 60)
    for ask in (
        lambda: client.get_job_result(job_id, offset=number),
        lambda: client.get_job_result(job_id, limit=number),
        lambda: list(client.job_events(job_id, last_event_id=number)),
        lambda: client.list_jobs(limit=number),
        lambda: client.submit_job("count_words", PARAMS, priority=number),
    ):
        with pytest.raises(InvalidRequest):
            ask()
    assert client.get_job_result(job_id, offset=2**53 - 1).rows == []


@pytest.mark.parametrize("text", ["a\x00b", "a\x7f", "a\r\nX-Header: b"])
def test_texts_that_no_database_keeps_are_refused(client: LLMBackendClient, text: str) -> None:
    note = {"file": "x"}
    for ask in (
        lambda: client.submit_job("count_words", PARAMS, idempotency_key=text),
        lambda: client.submit_job(text, PARAMS),
        lambda: client.submit_job("count_words", PARAMS, webhook=f"https://example.com/{text}"),
        lambda: client.list_jobs(job_type=text),
        lambda: client.set_schedule("s", text, "note", note),
        lambda: client.set_schedule("s", "0 4 * * *", "note", note, timezone=text),
        lambda: client.set_schedule(text, "0 4 * * *", "note", note),
    ):
        with pytest.raises(InvalidRequest):
            ask()


def test_halves_of_characters_are_replaced_in_texts_only(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match="idempotency_key"):
        client.submit_job("count_words", PARAMS, idempotency_key="\udfff")
    assert client.submit_job("count_words", {"texts": ["\ud800"]})
    client.list_jobs()


def test_a_key_with_another_time_or_webhook_is_a_conflict(tmp_path: Path) -> None:
    later, url = "2999-01-01T00:00:00+00:00", "https://example.com/"
    options = Settings(data_dir=tmp_path, webhook_secret="a-secret-to-sign-with", workers=0)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        for first, others in (
            ({}, ({"run_at": later}, {"webhook": url})),
            (
                {"run_at": later},
                ({}, {"run_at": "2999-01-01T00:00:01+00:00"}, {"run_at": later, "webhook": url}),
            ),
            ({"webhook": url}, ({}, {"webhook": url + "x"})),
        ):
            key = uuid.uuid4().hex
            job_id = client.submit_job("count_words", PARAMS, idempotency_key=key, **first)
            assert client.submit_job("count_words", PARAMS, idempotency_key=key, **first) == job_id
            for other in others:
                with pytest.raises(Conflict):
                    client.submit_job("count_words", PARAMS, idempotency_key=key, **other)
        # The same moment, written otherwise.
        again = {"run_at": "2999-01-01T01:00:00+01:00"}
        one = client.submit_job("count_words", PARAMS, idempotency_key="k", run_at=later)
        assert client.submit_job("count_words", PARAMS, idempotency_key="k", **again) == one


@pytest.fixture(params=["local", "http"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LLMBackendClient]:
    """A client of the data directory tmp_path."""
    if request.param == "local":
        with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
            yield client
    else:
        with serving(tmp_path) as server, LLMBackendClient(server.url) as client:
            yield client


@pytest.mark.parametrize(
    "damage", ["run_at = 9e18", "error = '{'", "status = 'lost'", "done = 'many'", "created_at = x'ff'"]
)
def test_a_damaged_row_is_shown_as_such_and_breaks_no_list(
    own: LLMBackendClient, tmp_path: Path, damage: str
) -> None:
    ids = [own.submit_job("count_words", PARAMS) for _ in range(3)]
    for job_id in ids:
        own.wait_for_job(job_id, 60)
    with closing(sqlite3.connect(tmp_path / "state.db", timeout=30)) as connection, connection:
        connection.execute(f"UPDATE jobs SET {damage} WHERE id = ?", [ids[1]])
    for _ in range(12):  # as many times as there are connections
        assert [job.id for job in own.list_jobs()] == ids[::-1]
        assert own.get_job_status(ids[1]).error.details == {"reason": "damaged"}
    new = own.submit_job("count_words", PARAMS)
    for _ in range(12):
        assert own.get_job_status(new).id == new


def test_a_read_that_breaks_off_keeps_no_old_state(tmp_path: Path) -> None:
    """Its SELECT is half read, and its traceback, with all that it refers to, is kept."""
    engine = connect(tmp_path / "state.db")
    with transaction(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE numbers (number INTEGER)")
        connection.exec_driver_sql(
            "INSERT INTO numbers WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000) SELECT i FROM n"
        )

    def break_off(connection: Any) -> None:
        rows = connection.exec_driver_sql("SELECT number FROM numbers")
        for row in rows:
            raise ZeroDivisionError(row)

    def count(connection: Any) -> int:
        return int(connection.exec_driver_sql("SELECT count(*) FROM numbers").scalar_one())

    def add(connection: Any) -> None:
        connection.exec_driver_sql("INSERT INTO numbers VALUES (0)")

    async def main() -> None:
        database = Database(engine)
        kept = []
        for number in range(3):
            for ask in (database.read, database.write):
                try:
                    await ask(break_off)
                except ZeroDivisionError as error:
                    kept.append(error)
            await database.write(add)
            assert await database.read(count) == 5001 + number
        assert len(kept) == 6
        await database.close()

    asyncio.run(main())
    engine.dispose()
    assert metadata.tables


def test_a_plan_within_a_job_writes_nothing(client: LLMBackendClient, collection: str) -> None:
    params = {"collection": collection, "documents": ["a text"]}
    for field in ("plan", "stream"):
        with pytest.raises(InvalidRequest, match=field):
            client.submit_job("rag_ingest", {**params, field: True})
        with pytest.raises(InvalidRequest, match=field):
            client.set_schedule("s", "0 4 * * *", "rag_ingest", {**params, field: True})
    assert collection not in [one.name for one in client.list_collections()]
    client.wait_for_job(client.submit_job("rag_ingest", {**params, "plan": False, "stream": False}), 60)
    assert collection in [one.name for one in client.list_collections()]


def test_a_header_of_a_watcher_is_no_number(server_url: str) -> None:
    with LLMBackendClient(server_url, KEY) as client:
        job_id = client.submit_job("count_words", PARAMS)
    headers = {"Authorization": f"Bearer {KEY}"}
    for value in ("99999999999999999999999", "-1", "nan", "1e400"):
        reply = requests.get(
            f"{server_url}/v1/jobs/{job_id}/events", headers={**headers, "Last-Event-ID": value}, timeout=30
        )
        assert reply.status_code == 422, value


def test_a_prompt_without_messages_is_refused_at_the_door(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest, match=r"prompts\[1\]"):
        client.submit_job("batch_chat", {"prompts": ["Hello", []]})


@pytest.mark.parametrize(
    "wrong",
    [
        {"input": [{"type": []}]},
        {"input": [{"type": {"a": 1}}, 1, None]},
        {"input": "a", "model": []},
        {"input": "a", "tools": [{"type": "file_search", "vector_store_ids": [["a"], {}]}]},
        {"input": "a", "tools": [{"type": {}}, "a"]},
    ],
    ids=str,
)
def test_what_a_response_needs_is_asked_of_params_of_any_form(
    client: LLMBackendClient, wrong: dict[str, Any]
) -> None:
    """Rights are looked at before the params are."""
    with pytest.raises(InvalidRequest, match="params of the job type respond"):
        client.submit_job("respond", wrong)
