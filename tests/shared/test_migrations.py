"""Databases of earlier versions, on SQLite and PostgreSQL: their tables become those of this one, with all that is in them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import Connection, Engine, Table, create_engine, inspect, text

import llmbackend.backend  # noqa: F401  # which registers every table
from llmbackend import BackendError, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.storage import schema
from llmbackend.storage.database import connect, transaction
from tests import old
from tests.shared import services

Place = Path | str


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """An empty database."""
    if request.param == "sqlite":
        return tmp_path / "state.db"
    url: str = request.getfixturevalue("postgres")
    return services.database(url, f"{request.node.name}-{time.time()}"[-60:])


def _fill(place: Place, commit: str) -> None:
    if isinstance(place, Path):
        old.sqlite(commit, place)
    else:
        old.postgresql(commit, place)


def _tables(connection: Connection) -> dict[str, object]:
    """Every table of ours as the database has it."""
    there = inspect(connection)
    return {
        table: (
            {
                one["name"]: (str(one["type"]), one["nullable"], one["default"])
                for one in there.get_columns(table)
            },
            sorted((one["name"], one["unique"], one["column_names"]) for one in there.get_indexes(table)),
            sorted(str(one["constrained_columns"]) for one in there.get_foreign_keys(table)),
            sorted(str(one["column_names"]) for one in there.get_unique_constraints(table)),
            there.get_pk_constraint(table)["constrained_columns"],
        )
        for table in schema.metadata.tables
    }


def _made_anew(connection: Connection) -> dict[str, object]:
    schema.metadata.drop_all(connection)
    schema.metadata.create_all(connection)
    return _tables(connection)


def _look(engine: Engine, sql: str) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text(sql))]


@pytest.mark.parametrize("commit", old.COMMITS)
def test_a_database_of_before_has_this_version_s_tables_and_all_that_was_in_it(
    place: Place, commit: str
) -> None:
    _fill(place, commit)
    for _ in range(2):  # the second time there is nothing to do
        engine = connect(place)
        assert _look(engine, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [(schema.numbers()[-1],)]
        assert _look(engine, "SELECT status, attempts, run_at FROM jobs ORDER BY number") == [
            ("completed", 1, 0),
            ("failed", 1, 0),
            ("queued", 0, 32472144000),
            ("queued", 0, 0),
        ]
        assert _look(engine, "SELECT job, host, tries FROM job_webhooks") == [(1, "127.0.0.1:9", 1)]
        assert _look(engine, "SELECT name, cron FROM job_schedules") == [("nightly", "30 2 * * MON-FRI")]
        assert ("hr_policies", 256) in _look(engine, "SELECT name, dimension FROM collections")
        assert len(_look(engine, "SELECT job FROM job_params")) == 4
        [(vectors,)] = _look(engine, "SELECT data FROM job_rows")
        assert np.frombuffer(bytes(vectors), "<f4").shape == (3 * 256,)  # type: ignore[call-overload]
        with transaction(engine) as connection:
            tables = _tables(connection)
            with connection.begin_nested() as scratch:
                assert _made_anew(connection) == tables
                scratch.rollback()
        engine.dispose()


def test_what_was_made_in_process_and_with_api_key_is_of_one_project_and_nothing_is_lost(
    place: Place,
) -> None:
    _fill(place, "fc17265")
    if isinstance(place, Path):
        before = create_engine(f"sqlite:///{place}")
    else:
        before = create_engine(place.replace("postgresql://", "postgresql+psycopg://"))
    job = (
        "INSERT INTO jobs (id, owner, type, status, place, priority, run_at, blocked, followed, attempts, tries, done, "
        "total, stage, reached, version, row_count, row_bytes, created_at, idempotency_key) SELECT "
        "'{0}', '{1}', type, status, place, priority, run_at, blocked, followed, attempts, tries, done, total, stage, "
        "reached, version, row_count, row_bytes, created_at, 'nightly' FROM jobs WHERE number = 1"
    )
    schedule = (
        "INSERT INTO job_schedules (owner, name, cron, timezone, type, params, place, priority, next_at, created_at) "
        "VALUES ('{}', 'weekly', '0 2 * * *', 'UTC', 'count', '{{}}', '', 0, 1, '')"
    )
    with before.begin() as connection:
        connection.execute(text("DELETE FROM job_schedules"))
        for owner in ("local", "default", "hr"):
            connection.execute(text(job.format(f"of-{owner}", owner)))
            connection.execute(text(schedule.format(owner)))
    before.dispose()
    engine = connect(place)
    assert _look(engine, "SELECT owner, name FROM job_schedules ORDER BY owner, name") == [
        ("default", "weekly"),
        ("default", "weekly-local"),
        ("hr", "weekly"),
    ]
    of = "SELECT id, owner, idempotency_key FROM jobs WHERE id LIKE 'of-%' ORDER BY id"
    assert _look(engine, of) == [
        ("of-default", "default", "nightly"),
        ("of-hr", "hr", "nightly"),
        ("of-local", "default", None),
    ]
    assert _look(engine, "SELECT count(*) FROM jobs WHERE owner = 'local'") == [(0,)]
    assert _look(engine, "SELECT DISTINCT project FROM collections") == [("default",)]
    engine.dispose()


def test_the_migrations_lead_to_the_tables_of_the_code(place: Place) -> None:
    """Whoever changes a table without a migration, or with another change in it, is told here."""
    assert schema.numbers() == [f"{number:04}" for number in range(1, len(schema.numbers()) + 1)]
    engine = connect(place)
    with transaction(engine) as connection:
        tables = _tables(connection)
        schema.metadata.drop_all(connection)
        schema._migrate(connection)
        assert _tables(connection) == tables
    engine.dispose()


def test_several_that_start_at_once_migrate_once(place: Place) -> None:
    _fill(place, "fc17265")
    outcomes: list[object] = []

    def start() -> None:
        try:
            engine = connect(place)
            outcomes.append(_look(engine, "SELECT count(*) FROM jobs WHERE reckoned_at IS NULL"))
            engine.dispose()
        except BaseException as error:
            outcomes.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert outcomes == [[(4,)]] * 4


def test_a_migration_that_fails_changes_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    _fill(place, "fc17265")

    def fail(connection: Connection, tables: Iterable[Table]) -> None:
        if list(tables) == schema.metadata.sorted_tables:  # the last that is done
            raise BackendError("the power went")

    with monkeypatch.context() as patched:
        patched.setattr(schema, "check_columns", fail)
        with pytest.raises(BackendError, match="the power went"):
            connect(place)
    engine = connect(place)  # as if nothing had been
    assert len(_look(engine, "SELECT host FROM job_webhooks")) == 1
    engine.dispose()


@pytest.mark.parametrize("number", [None, "0005"])
def test_a_database_that_has_lost_its_number_keeps_what_is_in_it(place: Place, number: str | None) -> None:
    """Or one whose number is older than its tables."""
    _fill(place, "fc17265")
    engine = connect(place)
    with transaction(engine) as connection:
        tables = _tables(connection)
        if number is None:
            connection.execute(text(f"DROP TABLE {schema.VERSION_TABLE}"))
        else:
            connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '{number}'"))
        if isinstance(place, Path):
            connection.execute(text("PRAGMA user_version=0"))
    jobs = _look(engine, "SELECT * FROM jobs ORDER BY number")
    collections = _look(engine, "SELECT * FROM collections ORDER BY name")
    engine.dispose()
    engine = connect(place)
    with transaction(engine) as connection:
        assert _tables(connection) == tables
    assert _look(engine, "SELECT * FROM jobs ORDER BY number") == jobs
    assert _look(engine, "SELECT * FROM collections ORDER BY name") == collections
    assert _look(engine, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [(schema.numbers()[-1],)]
    engine.dispose()


@pytest.mark.parametrize("table", ["jobs (a)", "jobs (params)", "collections (a)", "usage (a)"])
def test_tables_of_something_else_are_refused_and_left_as_they_are(place: Place, table: str) -> None:
    url = f"sqlite:///{place}" if isinstance(place, Path) else place
    others = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with others.begin() as connection:
        connection.execute(text(f"CREATE TABLE {table.replace(')', ' INTEGER)')}"))
    name, _, column = table.rstrip(")").partition(" (")
    for _ in range(2):
        with pytest.raises(BackendError, match=f"its table {name} has no "):
            connect(place)
    there = inspect(others)
    assert there.get_table_names() == [name]
    assert [one["name"] for one in there.get_columns(name)] == [column]
    others.dispose()


def test_a_database_of_a_newer_version_is_refused_and_left_as_it_is(place: Place) -> None:
    engine = connect(place)
    with transaction(engine) as connection:
        connection.execute(text(f"UPDATE {schema.VERSION_TABLE} SET version_num = '9000'"))
    with pytest.raises(BackendError, match=r"a newer version made it.*install that version"):
        connect(place)
    assert _look(engine, f"SELECT version_num FROM {schema.VERSION_TABLE}") == [("9000",)]
    engine.dispose()


def _client(folder: Path, place: Place) -> LLMBackendClient:
    url = place if isinstance(place, str) else None
    return LLMBackendClient(
        transport=LocalTransport(Settings.model_validate({"data_dir": folder, "database_url": url}))
    )


def test_a_data_directory_of_before_opens_with_its_documents_and_jobs(place: Place, tmp_path: Path) -> None:
    old.data_dir(tmp_path)
    if isinstance(place, str):
        old.postgresql("fc17265", place)
    with _client(tmp_path, place) as client:
        assert {one.name: one.documents for one in client.list_collections()} == {
            "hr_policies": 2,
            "technical_docs": 1,
        }
        hit = client.rag_search("How many days of vacation?", "hr_policies", filters={"team": "hr"})[0]
        assert (hit.document_id, "28 days" in hit.text) == ("vacation", True)
        assert client.rag_ingest(
            [{"id": "sick", "text": "Sick leave is reported before nine."}], "hr_policies"
        )
        *_, after, waiting, failed, done = (
            client.list_jobs()
        )  # newest first; the schedule is due and adds one
        assert [job.status for job in (after, waiting, failed, done)] == [
            *["queued"] * 2,
            "failed",
            "completed",
        ]
        assert client.wait_for_job(done.id).embeddings.numpy().shape == (3, 256)
        assert [one.name for one in client.list_schedules()] == ["nightly"]
        again = client.submit_job("batch_embed", {"texts": ["a", "b", "c"]}, idempotency_key="new")
        assert client.wait_for_job(again, 60)["count"] == 3
