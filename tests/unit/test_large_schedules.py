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


def test_an_owners_large_ones_are_submitted_one_transaction_after_another(engine: Engine) -> None:
    for name in ("a", "b", "c"):
        _due(engine, "large", name, "x" * LONG)
    _due(engine, "small", "d", "{}")
    _due(engine, "small", "e", "{}")
    assert _submit(engine) == {"large": 1, "small": 2}
    assert _submit(engine) == {"large": 2, "small": 2}
    assert _submit(engine) == {"large": 3, "small": 2}
    assert _submit(engine) == {"large": 3, "small": 2}


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
