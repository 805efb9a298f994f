"""The truth about jobs: each change of a job's state is one function here, a compare-and-set on its row.

All take the connection of a transaction that writes. A write of an attempt carries the token that it was given when it
claimed the job; once the job is somebody else's (its lease ran out, it was cancelled), such a write raises LostAttempt.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, func, insert, literal, select, text, update

from ..errors import Conflict, JobExpired, LLMBackendError, NotFound
from .tables import dependencies, jobs, now, params, stamp, webhooks

MAX_ATTEMPTS = 5
"""After so many that were lost, and came no further than others before, a job is not tried again."""
ALONE_WITHIN = 60.0
"""Seconds for which a job that may have killed its process waits for one where it is alone."""
LONGEST_BACKOFF = 60.0


MOMENT: BindParameter[float] = bindparam("moment")


class LostAttempt(Exception):
    """The job is not this attempt's any more."""


@dataclass(frozen=True)
class NewJob:
    type: str
    params: str
    owner: str = "local"
    place: str = ""
    priority: int = 0
    run_at: float = 0.0
    depends_on: Sequence[str] = ()
    idempotency_key: str | None = None
    webhook: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def fingerprint(self) -> str:
        """Tells another job from this one given once more."""
        given = [self.type, self.params, self.priority, sorted(self.depends_on)]
        return hashlib.sha256(json.dumps(given).encode()).hexdigest()


@dataclass(frozen=True)
class Claim:
    """A job that is now this attempt's."""

    number: int
    id: str
    owner: str
    type: str
    attempts: int
    tries: int
    reached: int
    checkpoint: str | None
    row_count: int
    row_bytes: int
    token: str
    params: str


@dataclass(frozen=True)
class Hands:
    """Who claims: where and what it can do, and how many jobs of one owner may run at once, everywhere."""

    worker: str
    places: Sequence[str]
    types: Sequence[str]
    per_owner: int | None
    lease: float
    free: int = 1
    alone: bool = True
    """Whether these hands have nothing else to do."""


def add(connection: Connection, job: NewJob) -> str:
    """Accept a job; its id, or that of the job which was accepted under the same key.

    Raises Conflict if the key was another job's, or a job that it depends on can no longer complete, and NotFound.
    """
    if job.idempotency_key is not None:
        known = connection.execute(
            select(jobs.c.id, jobs.c.fingerprint).where(
                jobs.c.owner == job.owner, jobs.c.idempotency_key == job.idempotency_key
            )
        ).first()
        if known is not None:
            if known.fingerprint != job.fingerprint:
                raise Conflict(
                    f"idempotency_key {job.idempotency_key!r} was given with another job: use a new key for this one",
                    details={"job_id": known.id},
                )
            return str(known.id)
    waits_for = _waited_for(connection, job.depends_on)
    values = {
        "id": job.id,
        "owner": job.owner,
        "type": job.type,
        "place": job.place,
        "priority": job.priority,
        "run_at": job.run_at,
        "blocked": sum(1 for done in waits_for.values() if not done),
        "idempotency_key": job.idempotency_key,
        "followed": int(job.webhook is not None),
        "fingerprint": job.fingerprint if job.idempotency_key is not None else None,
        "created_at": stamp(),
    }
    number = connection.execute(_ADD, values).scalar_one()
    connection.execute(_ADD_PARAMS, {"job": number, "params": job.params})
    if job.webhook is not None:
        connection.execute(insert(webhooks).values(job=number, url=job.webhook))
    if waits_for:
        pairs = [{"job": number, "waits_for": other} for other in waits_for]
        connection.execute(insert(dependencies), pairs)
        connection.execute(update(jobs).where(jobs.c.number.in_(waits_for)).values(followed=1))
    return job.id


# Statements of every job's way are made once: that takes longer than to execute them.
_ADD = insert(jobs).returning(jobs.c.number)
_ADD_PARAMS = insert(params)


def _waited_for(connection: Connection, ids: Sequence[str]) -> dict[int, bool]:
    """The numbers of these jobs, and whether each is completed."""
    if not ids:
        return {}
    # Locked where there is more than one writer, so that none of them ends unseen meanwhile.
    found = connection.execute(
        select(jobs.c.id, jobs.c.number, jobs.c.status).where(jobs.c.id.in_(ids)).with_for_update(read=True)
    ).all()
    missing = set(ids) - {row.id for row in found}
    if missing:
        name = sorted(missing)[0]
        raise NotFound(f"depends_on: no job {name!r}", details={"job_id": name})
    for row in found:
        if row.status in ("failed", "cancelled"):
            raise Conflict(
                f"depends_on: job {row.id} is {row.status}: retry it first",
                details={"job_id": row.id, "status": row.status},
            )
    return {row.number: row.status == "completed" for row in found}


def claim(connection: Connection, hands: Hands, last_turn: Mapping[str, float]) -> list[Claim]:
    """The next jobs for these hands, now running; fewer than there are hands free if there are no more.

    Owners take turns: whoever has the fewest jobs running, then whose last turn (by this worker) is longest ago.
    Among an owner's jobs the highest priority goes first, then the oldest.
    """
    if (
        connection.dialect.name == "postgresql"
    ):  # one claims at a time, or the limit per owner could be passed
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7238002)")
    waiting = list(connection.execute(_OWNERS).scalars())
    running: Counter[str] = Counter()
    if len(waiting) > 1 or (waiting and hands.per_owner is not None):
        running.update({owner: count for owner, count in connection.execute(_AT_WORK)})
    turns = dict(last_turn)
    claimed: list[Claim] = []
    while waiting and len(claimed) < hands.free:
        owner = min(waiting, key=lambda name: (running[name], turns.get(name, 0.0)))
        job = None
        if hands.per_owner is None or running[owner] < hands.per_owner:
            job = _claim_of(connection, replace(hands, alone=hands.alone and not claimed), owner)
        if job is None:
            waiting.remove(owner)
            continue
        claimed.append(job)
        running[owner] += 1
        turns[owner] = now()
        if job.tries > 1:
            break  # it may have killed its last process: let it be alone
    return claimed


_OWNERS = text(  # each owner with queued jobs, by jumping from one to the next in the index
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

_AT_WORK = select(jobs.c.owner, func.count()).where(jobs.c.status == "running").group_by(jobs.c.owner)

_NEXT = (
    select(jobs.c.number)
    .where(
        jobs.c.status == "queued",
        jobs.c.owner == bindparam("of_owner"),
        jobs.c.blocked == 0,
        jobs.c.run_at <= MOMENT,
        jobs.c.place.in_(bindparam("places", expanding=True)),
        jobs.c.type.in_(bindparam("types", expanding=True)),
        (jobs.c.tries <= bindparam("tries")) | (jobs.c.run_at < MOMENT - ALONE_WITHIN),
    )
    .order_by(jobs.c.priority.desc(), jobs.c.number)
    .limit(1)
    .with_for_update(skip_locked=True)
)

_CLAIM = (
    update(jobs)
    .where(jobs.c.number == _NEXT.scalar_subquery(), jobs.c.status == "queued")
    .values(
        status="running",
        attempts=jobs.c.attempts + 1,
        tries=jobs.c.tries + 1,
        rate=None,
        version=jobs.c.version + 1,
    )
    .returning(
        jobs.c.number,
        jobs.c.id,
        jobs.c.owner,
        jobs.c.type,
        jobs.c.attempts,
        jobs.c.tries,
        jobs.c.reached,
        jobs.c.checkpoint,
        jobs.c.row_count,
        jobs.c.row_bytes,
    )
)

_PARAMS = select(params.c.params).where(params.c.job == bindparam("number"))


def _claim_of(connection: Connection, hands: Hands, owner: str) -> Claim | None:
    moment, token = now(), str(uuid.uuid4())
    values = {
        "of_owner": owner,
        "moment": moment,
        "places": hands.places,
        "types": hands.types,
        "tries": MAX_ATTEMPTS if hands.alone else 0,
        "worker": hands.worker,
        "token": token,
        "lease": moment + hands.lease,
        "started_at": stamp(moment),
    }
    row = connection.execute(_CLAIM, values).first()
    if row is None:
        return None
    given = connection.execute(_PARAMS, {"number": row.number}).scalar_one()
    return Claim(**row._mapping, token=token, params=given)


def runnable(connection: Connection, hands: Hands) -> bool:
    """Whether a job waits that these hands could do, were its owner's limit no matter."""
    tries = MAX_ATTEMPTS if hands.alone else 0
    given = {"moment": now(), "places": hands.places, "types": hands.types, "tries": tries}
    return connection.execute(_RUNNABLE, given).first() is not None


_RUNNABLE = (
    select(literal(1))
    .where(
        jobs.c.status == "queued",
        jobs.c.blocked == 0,
        jobs.c.run_at <= MOMENT,
        jobs.c.place.in_(bindparam("places", expanding=True)),
        jobs.c.type.in_(bindparam("types", expanding=True)),
        (jobs.c.tries <= bindparam("tries")) | (jobs.c.run_at < MOMENT - ALONE_WITHIN),
    )
    .limit(1)
)


# Of an attempt


def advance(connection: Connection, job: Claim, values: Mapping[str, Any]) -> bool:
    """Change the attempt's job; tells whether its end is to be told. Raises LostAttempt."""
    own = {"of_number": job.number, "by_token": job.token}
    changed = connection.execute(_ADVANCE, {**own, **values}).first()
    if changed is None:
        raise LostAttempt
    return bool(changed.followed)


_ADVANCE = (
    update(jobs)
    .where(jobs.c.number == bindparam("of_number"), jobs.c.token == bindparam("by_token"))
    .values(version=jobs.c.version + 1)
    .returning(jobs.c.followed)
)


def complete(connection: Connection, job: Claim, result: str, values: Mapping[str, Any]) -> None:
    """`result` is JSON; raises LostAttempt."""
    ended = {**_ENDED, "status": "completed", "finished_at": stamp(), "result": result}
    if advance(connection, job, {**values, **ended}):
        _release_dependants(connection, job.number)
        _tell(connection, [job.number])


def fail(connection: Connection, job: Claim, error: LLMBackendError) -> None:
    """Raises LostAttempt."""
    ended = {**_ENDED, "status": "failed", "finished_at": stamp(), "error": json.dumps(error.to_dict())}
    if advance(connection, job, {**ended}):
        _give_up_dependants(connection, [job.number])


def hand_back(connection: Connection, job: Claim) -> None:
    """Queued again, as if this attempt had not been; raises LostAttempt."""
    advance(connection, job, {**_ENDED, "status": "queued", "attempts": job.attempts - 1, "tries": 0})


_ENDED: dict[str, Any] = {"worker": None, "token": None, "lease": None}


def extend(connection: Connection, tokens: Iterable[str], lease: float) -> None:
    """The attempts' heartbeat."""
    connection.execute(update(jobs).where(jobs.c.token.in_(tokens)).values(lease=now() + lease))


def alive(connection: Connection, tokens: Iterable[str]) -> set[str]:
    """Those of the tokens that still are their jobs'."""
    return set(connection.execute(select(jobs.c.token).where(jobs.c.token.in_(tokens))).scalars())


# Of jobs whose worker is gone


def expired(connection: Connection) -> bool:
    """Whether the lease of a running job has run out."""
    late = select(literal(1)).where(jobs.c.status == "running", jobs.c.lease < now())
    return connection.execute(late.limit(1)).first() is not None


def reap(connection: Connection) -> None:
    """Queue again, after a while, what ran out of its lease.

    What did so in MAX_ATTEMPTS attempts, none of which came further than any before, has failed as lost.
    """
    moment = now()
    late = (jobs.c.status == "running", jobs.c.lease < moment)
    _fail_lost(connection, *late)
    for row in connection.execute(select(jobs.c.number, jobs.c.tries).where(*late)).all():
        _queue_again(connection, jobs.c.number == row.number, *late, run_at=moment + backoff(row.tries))


def recover(connection: Connection, worker: str) -> None:
    """As `reap`, at once, for what a worker left that is known to be dead."""
    # Jobs of version 0.1 do not tell who was at them: it was whoever held this data directory.
    left = (jobs.c.status == "running", jobs.c.worker.is_(None) | (jobs.c.worker == worker))
    _fail_lost(connection, *left)
    _queue_again(connection, *left, run_at=now())


def backoff(tries: int) -> float:
    """Seconds until a lost job is tried again."""
    return float(min(2 ** max(tries, 1) / 2, LONGEST_BACKOFF))


def _queue_again(connection: Connection, *which: Any, **values: Any) -> None:
    connection.execute(
        update(jobs).where(*which).values(status="queued", version=jobs.c.version + 1, **_ENDED, **values)
    )


def _fail_lost(connection: Connection, *which: Any) -> None:
    error = LLMBackendError(
        f"lost: its process was killed in each of {MAX_ATTEMPTS} attempts", details={"reason": "lost"}
    )
    last = select(jobs.c.number).where(*which, jobs.c.tries >= MAX_ATTEMPTS)
    _fail_all(connection, list(connection.execute(last).scalars()), error)


def _fail_all(connection: Connection, numbers: Sequence[int], error: LLMBackendError) -> None:
    if numbers:
        connection.execute(
            update(jobs)
            .where(jobs.c.number.in_(numbers))
            .values(
                status="failed",
                error=json.dumps(error.to_dict()),
                finished_at=stamp(),
                version=jobs.c.version + 1,
                **_ENDED,
            )
        )
        _give_up_dependants(connection, numbers)


# Of callers


def cancel(connection: Connection, job_id: str) -> bool:
    """Tells whether the job was waiting or running, and now is cancelled. Whoever is at it finds out and stops."""
    row = connection.execute(
        update(jobs)
        .where(jobs.c.id == job_id, jobs.c.status.in_(("queued", "running")))
        .values(status="cancelled", finished_at=stamp(), version=jobs.c.version + 1, **_ENDED)
        .returning(jobs.c.number)
    ).first()
    if row is not None:
        _give_up_dependants(connection, [row.number])
    return row is not None


def retry(connection: Connection, job_id: str) -> None:
    """Queue a failed or cancelled job again, to go on from its last checkpoint; raises NotFound, Conflict and JobExpired."""
    row = connection.execute(
        select(jobs.c.number, jobs.c.status).where(jobs.c.id == job_id).with_for_update()
    ).first()
    if row is None:
        raise missing(job_id)
    if row.status not in ("failed", "cancelled"):
        raise Conflict(
            f"job {job_id} is {row.status}: only one that failed or was cancelled can be tried again",
            details={"job_id": job_id, "status": row.status},
        )
    if connection.execute(_PARAMS, {"number": row.number}).first() is None:
        raise JobExpired(
            f"the params of job {job_id} are no more: submit it again", details={"job_id": job_id}
        )
    others = connection.execute(
        select(jobs.c.id)
        .join(dependencies, dependencies.c.waits_for == jobs.c.number)
        .where(dependencies.c.job == row.number)
    ).scalars()
    waits_for = _waited_for(connection, list(others))
    connection.execute(
        update(jobs)
        .where(jobs.c.number == row.number)
        .values(
            status="queued",
            attempts=0,
            tries=0,
            run_at=0.0,
            blocked=sum(1 for done in waits_for.values() if not done),
            error=None,
            started_at=None,
            finished_at=None,
            version=jobs.c.version + 1,
        )
    )


def missing(job_id: str) -> NotFound:
    return NotFound(f"no job {job_id!r}", details={"job_id": job_id})


# Those who are to know of a job's end


def _tell(connection: Connection, numbers: Sequence[int]) -> None:
    """Have their webhooks delivered."""
    which = (webhooks.c.job.in_(numbers), webhooks.c.due_at.is_(None))
    connection.execute(update(webhooks).where(*which).values(due_at=now(), tries=0, delivered_at=None))


def _release_dependants(connection: Connection, number: int) -> None:
    waiting = select(dependencies.c.job).where(dependencies.c.waits_for == number)
    connection.execute(
        update(jobs)
        .where(jobs.c.number.in_(waiting), jobs.c.status == "queued", jobs.c.blocked > 0)
        .values(blocked=jobs.c.blocked - 1, version=jobs.c.version + 1)
    )


def _give_up_dependants(connection: Connection, numbers: Sequence[int]) -> None:
    """What waits for a job that will not complete has failed, and what waits for that; their URLs are told."""
    _tell(connection, numbers)
    for row in connection.execute(
        select(jobs.c.number, jobs.c.id, jobs.c.status).where(jobs.c.number.in_(numbers))
    ).all():
        waiting = connection.execute(
            select(jobs.c.number)
            .join(dependencies, dependencies.c.job == jobs.c.number)
            .where(dependencies.c.waits_for == row.number, jobs.c.status == "queued")
        ).scalars()
        what = "was cancelled" if row.status == "cancelled" else "failed"
        error = Conflict(
            f"job {row.id}, which this one waited for, {what}: retry that, then this",
            details={"reason": "dependency", "job_id": row.id},
        )
        _fail_all(connection, list(waiting), error)
