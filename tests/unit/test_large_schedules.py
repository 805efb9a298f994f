"""Schedules with large params: those of many are never in memory at once, nor written in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, select, update

from llmbackend.access.caller import Caller
from llmbackend.jobs import ledger, schedules
from llmbackend.jobs.tables import jobs
from llmbackend.storage.database import connect, transaction

LONG = schedules.LARGE + 1


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = connect(tmp_path / "state.db")
    yield engine
    engine.dispose()


def _due(engine: Engine, owner: str, name: str, params: str) -> None:
    with transaction(engine) as connection:
        schedules.put(connection, name, "0 0 1 1 *", "UTC", ledger.NewJob("t", params, owner))
        connection.execute(update(schedules.table).values(next_at=1.0))


def _submit(engine: Engine) -> Counter[str]:
    """Submit what is due; return the jobs of each owner so far."""
    with transaction(engine) as connection:
        schedules.submit_due(connection, lambda owner, key: ((), None))
        return Counter(connection.execute(select(jobs.c.owner)).scalars())


def test_an_owners_large_ones_are_submitted_one_transaction_after_another(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "SECONDS", 60)
    for name in ("a", "b", "c"):
        _due(engine, "large", name, "x" * LONG)
    _due(engine, "small", "d", "{}")
    _due(engine, "small", "e", "{}")
    assert _submit(engine) == {"large": 1, "small": 2}
    assert _submit(engine) == {"large": 2, "small": 2}
    assert _submit(engine) == {"large": 3, "small": 2}
    assert _submit(engine) == {"large": 3, "small": 2}


def test_many_are_submitted_one_transaction_after_another_and_owners_take_turns(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schedules, "AT_ONCE", 2)
    monkeypatch.setattr(schedules, "_IN_TURN", schedules._IN_TURN.limit(2))
    for number in range(4):
        _due(engine, "many", f"s{number}", "{}")
    _due(engine, "few", "s", "{}")
    with transaction(engine) as connection:
        connection.execute(
            update(schedules.table).where(schedules.table.c.owner == "few").values(next_at=2.0)
        )
    assert _submit(engine) == {"many": 1, "few": 1}
    assert _submit(engine) == {"many": 3, "few": 1}
    assert _submit(engine) == {"many": 4, "few": 1}


def test_a_transaction_of_schedules_ends_in_time(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "SECONDS", 0)
    for number in range(2):
        _due(engine, "many", f"s{number}", "{}")
    assert _submit(engine) == {"many": 1}
    assert _submit(engine) == {"many": 2}


def test_params_are_read_for_one_schedule_at_a_time(engine: Engine) -> None:
    _due(engine, "hr", "a", "{}")
    _due(engine, "hr", "b", "{}")
    asked: list[tuple[str, Any]] = []

    @event.listens_for(engine, "before_cursor_execute")
    def note(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith("SELECT") and "job_schedules.params" in statement:
            asked.append((statement, parameters))

    assert _submit(engine) == {"hr": 2}
    assert [parameters for _, parameters in asked] == [("hr", "a"), ("hr", "b")]
    with engine.connect() as connection:
        listed = schedules.listed(connection, Caller(project="hr"))
    assert [one.name for one in listed] == ["a", "b"]
    assert len(asked) == 2
