"""Who gets which job: turns of owners, their limit, what is tried alone, what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import Engine, update

from llmbackend import LLMBackendError
from llmbackend.jobs import leases, ledger, reading
from llmbackend.jobs.leases import MAX_ATTEMPTS, WorkerCapacity
from llmbackend.jobs.ledger import Claim, LostAttempt, NewJob
from llmbackend.jobs.tables import jobs
from llmbackend.storage import database

CAPACITY = WorkerCapacity("w", ("", "home"), ("a", "b"), None, 30.0)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    engine = database.connect(tmp_path / "state.db")
    yield engine
    engine.dispose()


def _add(engine: Engine, owner: str = "x", **fields: object) -> str:
    job = replace(NewJob("a", "{}", owner), **fields)  # type: ignore[arg-type]
    with database.transaction(engine) as connection:
        return ledger.add(connection, job).id


def _claim(engine: Engine, turns: dict[str, float] | None = None, **capacity: object) -> list[Claim]:
    with database.transaction(engine) as connection:
        return list(leases.claim(connection, replace(CAPACITY, **capacity), turns or {}).claims)  # type: ignore[arg-type]


def _lose_all(engine: Engine) -> None:
    """Every lease runs out, and every pause after that."""
    with database.transaction(engine) as connection:
        connection.execute(update(jobs).values(lease=0.0))
        leases.reap(connection)
        connection.execute(update(jobs).values(run_at=leases.now() - 1))


def _status(engine: Engine, job_id: str) -> str:
    with engine.connect() as connection:
        return reading.status(connection, "x", job_id, 30).status


def test_owners_take_turns(engine: Engine) -> None:
    for _ in range(6):
        _add(engine, "loud")
    for _ in range(2):
        _add(engine, "quiet")
    assert [job.owner for job in _claim(engine, free=5)] == ["loud", "quiet", "loud", "quiet", "loud"]


def test_whose_turn_was_longest_ago_is_next(engine: Engine) -> None:
    for owner in ("first", "second"):
        _add(engine, owner)
    [job] = _claim(engine, {"first": 2.0, "second": 1.0})
    assert job.owner == "second"


def test_where_all_hands_are_busy_those_who_have_nothing_at_work_go_on(engine: Engine) -> None:
    for owner in ("loud", "loud", "loud", "quiet", "quiet", "other"):
        _add(engine, owner)
    assert [job.owner for job in _claim(engine)] == ["loud"]
    assert sorted(job.owner for job in _claim(engine, free=4, idle_owners=True)) == ["other", "quiet"]
    assert _claim(engine, free=4, idle_owners=True) == []


def test_an_owners_limit_leaves_the_others_moving(engine: Engine) -> None:
    for owner in ("loud", "loud", "loud", "quiet"):
        _add(engine, owner)
    assert sorted(job.owner for job in _claim(engine, free=4, per_owner=2)) == ["loud", "loud", "quiet"]
    assert _claim(engine, free=4, per_owner=2) == []


def test_only_what_these_hands_can_do_is_claimed(engine: Engine) -> None:
    elsewhere = _add(engine, place="another")
    unknown = _add(engine, type="c")
    later = _add(engine, run_at=leases.now() + 1000)
    here = _add(engine, place="home")
    assert [job.id for job in _claim(engine, free=9)] == [here]
    assert {_status(engine, job_id) for job_id in (elsewhere, unknown, later)} == {"queued"}


def test_a_late_write_is_refused(engine: Engine) -> None:
    _add(engine)
    [late] = _claim(engine)
    _lose_all(engine)
    [now] = _claim(engine)
    assert (now.id, now.attempts) == (late.id, 2)
    for write in (
        lambda c: ledger.advance(c, late, {"done": 1}),
        lambda c: ledger.complete(c, late, "{}", {}),
        lambda c: ledger.fail(c, late, LLMBackendError("x")),
        lambda c: ledger.hand_back(c, late),
    ):
        with pytest.raises(LostAttempt), database.transaction(engine) as connection:
            write(connection)
    with database.transaction(engine) as connection:
        ledger.complete(connection, now, json.dumps({"a": 1}), {})
    assert _status(engine, now.id) == "completed"


def test_what_is_lost_time_and_again_fails(engine: Engine) -> None:
    job_id = _add(engine)
    for _ in range(MAX_ATTEMPTS):
        assert [job.id for job in _claim(engine)] == [job_id]
        _lose_all(engine)
    assert _status(engine, job_id) == "failed"
    with engine.connect() as connection:
        error = reading.status(connection, "x", job_id, 30).error
    assert error is not None
    assert error["details"] == {"reason": "lost"}


def test_headway_makes_up_for_lost_attempts(engine: Engine) -> None:
    job_id = _add(engine)
    for _ in range(3 * MAX_ATTEMPTS):
        [job] = _claim(engine)
        with database.transaction(engine) as connection:
            ledger.advance(connection, job, {"tries": 0})
        _lose_all(engine)
    assert _status(engine, job_id) == "queued"


def test_what_may_have_killed_its_process_is_alone(engine: Engine) -> None:
    suspect = _add(engine)
    _claim(engine)
    _lose_all(engine)
    innocent = _add(engine)
    assert [job.id for job in _claim(engine, free=2, alone=False)] == [innocent]
    another = _add(engine)
    assert [job.id for job in _claim(engine, free=2)] == [suspect]
    assert [job.id for job in _claim(engine, free=2, alone=False)] == [another]


def test_a_clean_start_takes_up_its_own_only(engine: Engine) -> None:
    mine, others = _add(engine), _add(engine)
    _claim(engine)
    _claim(engine, worker="another")
    with database.transaction(engine) as connection:
        leases.recover(connection, "w")
    assert (_status(engine, mine), _status(engine, others)) == ("queued", "running")
