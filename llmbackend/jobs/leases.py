"""Leases: an attempt holds a lease on its job and renews it by heartbeats; jobs with expired leases are
recovered.

As in ledger.py, functions take the connection of a write transaction, except those that return a bool.
"""

from __future__ import annotations

import math
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import Connection, bindparam, func, literal, select, text, update

from ..clock import now, stamp
from ..errors import LLMBackendError
from ..storage.prepared import Prepared
from .ledger import ENDED, MOMENT, Claim, NewJob, add, fail_all
from .tables import jobs, params

MAX_ATTEMPTS = 5
"""After so many attempts in a row lost without progress, the job fails as `lost`."""
ALONE_WITHIN = 60.0
"""Seconds that a job which may have killed its process waits for an idle worker; then any worker takes it."""
LONGEST_BACKOFF = 60.0


@dataclass(frozen=True)
class WorkerCapacity:
    """What a worker can take: the places, types and number of jobs, and the limit on one owner's running jobs."""

    worker: str
    places: tuple[str, ...]
    types: tuple[str, ...]
    per_owner: int | None
    lease: float
    free: int = 1
    alone: bool = True
    """Whether the worker runs no other job."""
    idle_owners: bool = False
    """Whether it only takes jobs of owners who have none running."""


class Claimed(NamedTuple):
    """The id of the job that was added, if any, and the jobs claimed."""

    added: str
    claims: Sequence[Claim]


def accept(connection: Connection, job: NewJob, capacity: WorkerCapacity) -> Claimed:
    """Like `ledger.add` for a job that can start now: the worker claims it at once, if it is new."""
    attempt = _attempt(capacity, now())
    job_id, number = add(connection, job, status="running", attempts=1, tries=1, **attempt)
    if number is None:
        return Claimed(job_id, [])
    return Claimed(
        job_id, [Claim(number, job.id, job.owner, job.type, attempt["token"], job.params, job.key)]
    )


def claim(connection: Connection, capacity: WorkerCapacity, last_turn: Mapping[str, float]) -> Claimed:
    """Claim the next jobs for a worker, at most its free slots; they are running once this commits.

    Owners take turns: the one with the fewest running jobs first, then the one whose last turn here is longest ago.
    Among an owner's jobs the highest priority goes first, then the oldest.
    """
    if connection.dialect.name == "postgresql":
        # One worker claims at a time, or the limit per owner could be exceeded.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7238002)")
    waiting = [owner for (owner,) in _OWNERS(connection)]
    running: Counter[str] = Counter()
    if len(waiting) > 1 or (waiting and (capacity.per_owner is not None or capacity.idle_owners)):
        running.update({owner: count for owner, count in connection.execute(_AT_WORK)})
    turns = dict(last_turn)
    moment = time.monotonic()
    claimed: list[Claim] = []
    while waiting and len(claimed) < capacity.free:
        owner = min(waiting, key=lambda name: (running[name], turns.get(name, 0.0)))
        job = None
        if running[owner] < (1 if capacity.idle_owners else capacity.per_owner or math.inf):
            job = _claim_of(connection, replace(capacity, alone=capacity.alone and not claimed), owner)
        if job is None:
            waiting.remove(owner)
            continue
        claimed.append(job)
        running[owner] += 1
        turns[owner] = moment
        if job.tries > 1:
            break  # it may have killed its last process, so it runs alone
    return Claimed("", claimed)


_OWNERS = Prepared(  # each owner with queued jobs, by jumping from one to the next in the index
    text(
        """
        WITH RECURSIVE waiting(owner) AS (
            SELECT min(owner) FROM jobs WHERE status = 'queued'
            UNION ALL
            SELECT (SELECT min(owner) FROM jobs WHERE status = 'queued' AND owner > waiting.owner)
            FROM waiting WHERE owner IS NOT NULL
        )
        SELECT owner FROM waiting WHERE owner IS NOT NULL
        """
    )
)

_AT_WORK = select(jobs.c.owner, func.count()).where(jobs.c.status == "running").group_by(jobs.c.owner)


@lru_cache
def _statements(places: tuple[str, ...], types: tuple[str, ...]) -> tuple[Prepared, Prepared]:
    """For workers with these places and types: what claims an owner's next job, and what tells whether there is a job."""
    for_these = (
        jobs.c.status == "queued",
        jobs.c.blocked == 0,
        jobs.c.run_at <= MOMENT,
        jobs.c.place.in_([literal(place) for place in places]),
        jobs.c.type.in_([literal(one) for one in types]),
        (jobs.c.tries <= bindparam("tries")) | (jobs.c.run_at < MOMENT - ALONE_WITHIN),
    )
    following = (
        select(jobs.c.number)
        .where(jobs.c.owner == bindparam("of_owner"), *for_these)
        .order_by(jobs.c.priority.desc(), jobs.c.number)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    given = select(params.c.params).where(params.c.job == jobs.c.number).scalar_subquery().label("params")
    claim = (
        update(jobs)
        .where(jobs.c.number == following.scalar_subquery(), jobs.c.status == "queued")
        .values(
            status="running",
            attempts=jobs.c.attempts + 1,
            tries=jobs.c.tries + 1,
            rate=None,
            version=jobs.c.version + 1,
        )
        .returning(*(given if field.name == "params" else jobs.c[field.name] for field in fields(Claim)))
    )
    return Prepared(claim), Prepared(select(literal(1)).where(*for_these).limit(1))


def _claim_of(connection: Connection, capacity: WorkerCapacity, owner: str) -> Claim | None:
    moment = now()
    values = {**_given(capacity, moment), **_attempt(capacity, moment), "of_owner": owner}
    claim_next, _ = _statements(capacity.places, capacity.types)
    found = claim_next(connection, values)
    return Claim(*found[0]) if found else None


def _attempt(capacity: WorkerCapacity, moment: float) -> dict[str, Any]:
    return {
        "worker": capacity.worker,
        "token": str(uuid.uuid4()),
        "lease": moment + capacity.lease,
        "reckoned_at": moment,
        "started_at": stamp(moment),
    }


def runnable(connection: Connection, capacity: WorkerCapacity) -> bool:
    """Whether there is a job that the worker could take, ignoring limits per owner."""
    _, any_for = _statements(capacity.places, capacity.types)
    return bool(any_for(connection, _given(capacity, now())))


def _given(capacity: WorkerCapacity, moment: float) -> dict[str, Any]:
    return {"moment": moment, "tries": MAX_ATTEMPTS if capacity.alone else 0}


def extend(connection: Connection, tokens: Iterable[str], lease: float) -> None:
    """Renew the leases of these attempts: the heartbeat."""
    moment = now()
    values = {"lease": moment + lease, "reckoned_at": moment}
    connection.execute(update(jobs).where(jobs.c.token.in_(tokens)).values(**values))


def alive(connection: Connection, tokens: Iterable[str]) -> set[str]:
    """Those of the tokens that still hold their job."""
    return set(connection.execute(select(jobs.c.token).where(jobs.c.token.in_(tokens))).scalars())


# Jobs whose worker is gone


def expired(connection: Connection) -> bool:
    """Whether the lease of a running job has run out."""
    late = select(literal(1)).where(jobs.c.status == "running", jobs.c.lease < now())
    return connection.execute(late.limit(1)).first() is not None


def reap(connection: Connection) -> None:
    """Requeue jobs whose lease has expired, after a pause; after MAX_ATTEMPTS without progress they fail as lost."""
    moment = now()
    late = (jobs.c.status == "running", jobs.c.lease < moment)
    _fail_lost(connection, *late)
    for row in connection.execute(select(jobs.c.number, jobs.c.tries).where(*late)).all():
        _queue_again(connection, jobs.c.number == row.number, *late, moment=moment, wait=backoff(row.tries))


def recover(connection: Connection, worker: str) -> None:
    """Like `reap`, but without a pause, for the jobs of a worker known to be dead."""
    # Jobs of version 0.1 do not name their worker: it was the one holding this data directory.
    left = (jobs.c.status == "running", jobs.c.worker.is_(None) | (jobs.c.worker == worker))
    _fail_lost(connection, *left)
    _queue_again(connection, *left, moment=now())


def backoff(tries: int) -> float:
    """Seconds until a lost job is attempted again."""
    return min(2.0 ** min(max(tries, 1) - 1, 10), LONGEST_BACKOFF)


def _queue_again(connection: Connection, *which: Any, moment: float, wait: float = 0.0) -> None:
    values = {"status": "queued", "version": jobs.c.version + 1, "run_at": moment + wait}
    connection.execute(update(jobs).where(*which).values(**values, reckoned_at=moment, **ENDED))


def _fail_lost(connection: Connection, *which: Any) -> None:
    error = LLMBackendError(
        f"lost: its process was killed in each of {MAX_ATTEMPTS} attempts", details={"reason": "lost"}
    )
    # Locked, if there are several writers, so that none of these attempts turns out to be alive meanwhile.
    last = select(jobs.c.number).where(*which, jobs.c.tries >= MAX_ATTEMPTS).with_for_update(skip_locked=True)
    fail_all(connection, list(connection.execute(last).scalars()), error)
