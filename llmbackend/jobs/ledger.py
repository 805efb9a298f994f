"""The ledger of jobs: every change of a job's state is a function here, a compare-and-set on its row.

All take the connection of a write transaction. An attempt's writes carry the token it got when it claimed the job; once
the job is no longer its own (the lease expired, or the job was cancelled), they raise LostAttempt.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Connection, Row, bindparam, func, insert, select, update

from .. import json_writing
from ..access.caller import DEFAULT, Caller
from ..access.limits import Most, too_many_jobs
from ..access.room import Room
from ..clock import now, stamp
from ..errors import Conflict, JobExpired, LLMBackendError, NotFound
from ..outbound import addresses
from ..storage import kept
from ..storage.database import one_at_a_time
from ..storage.prepared import Prepared
from .tables import dependencies, jobs, params, webhooks

MOMENT: BindParameter[float] = bindparam("moment")


class LostAttempt(Exception):
    """The job no longer belongs to this attempt."""


@dataclass(frozen=True)
class NewJob:
    """A job that is to be added."""

    type: str
    params: str
    """JSON."""
    owner: str = DEFAULT
    """The project."""
    key: str = ""
    """The id of the key whose rights the job has when it runs."""
    place: str = ""
    priority: int = 0
    run_at: float = 0.0
    depends_on: Sequence[str] = ()
    idempotency_key: str | None = None
    webhook: str | None = None
    most: Sequence[Most] = ()
    """The limits on its owner's and key's jobs."""
    room: Room | None = None
    """What its owner may have stored, if that is limited."""
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    fingerprint: str | None = None
    """What `fingerprint` returns, if it has an idempotency key."""


def goes_on(connection: Connection, job_id: str) -> bool:
    """Whether there is such a job, and it has not ended."""
    going_on = jobs.c.id == job_id, jobs.c.status.in_(("queued", "running"))
    return connection.execute(select(jobs.c.number).where(*going_on)).first() is not None


def fingerprint(job: NewJob) -> str:
    """A hash that is equal if the same job is submitted again. It blocks, so that of large params is made in a thread."""
    given: list[Any] = [job.type, job.params, job.priority, sorted(job.depends_on)]
    if job.run_at or job.webhook is not None:  # older versions hashed without these
        given += [job.run_at, job.webhook]
    hashed = hashlib.sha256()
    for piece in json_writing.pieces(given):
        hashed.update(piece.encode())
    return hashed.hexdigest()


@dataclass(frozen=True)
class Claim:
    """A job claimed by an attempt."""

    number: int
    id: str
    owner: str
    type: str
    token: str
    params: str
    key: str = ""
    attempts: int = 1
    tries: int = 1
    reached: int = 0
    checkpoint: str | None = None
    row_count: int = 0
    row_bytes: int = 0


class Added(NamedTuple):
    id: str
    number: int | None
    """None if the job existed already, under the same idempotency key."""


def add(connection: Connection, job: NewJob, **attempt: Any) -> Added:
    """Add a job, queued or already claimed by an `attempt`, unless it exists.

    Raises Conflict if its idempotency key belongs to another job or a job that it depends on can no longer complete,
    NotFound (a dependency), Overloaded.
    """
    if (known := _accepted(connection, job)) is not None:
        return Added(known, None)
    if job.most:
        _require_within(connection, job.most)
    takes = kept.size(job.params)
    if job.room is not None:
        job.room.require(connection, takes)
    waits_for = _waited_for(connection, job.owner, job.depends_on)
    values = {
        "id": job.id,
        "owner": job.owner,
        "key": job.key,
        "type": job.type,
        "place": job.place,
        "priority": job.priority,
        "run_at": job.run_at,
        "blocked": sum(1 for done in waits_for.values() if not done),
        "idempotency_key": job.idempotency_key,
        "followed": int(job.webhook is not None),
        "fingerprint": job.fingerprint,
        "created_at": stamp(),
        "kept_bytes": takes,
        **attempt,
    }
    ((number,),) = _ADD(connection, values)
    _ADD_PARAMS(connection, {"job": number, "params": job.params})
    if job.webhook is not None:
        connection.execute(
            insert(webhooks).values(job=number, url=job.webhook, host=addresses.origin(job.webhook))
        )
    if waits_for:
        pairs = [{"job": number, "waits_for": other} for other in waits_for]
        connection.execute(insert(dependencies), pairs)
        connection.execute(update(jobs).where(jobs.c.number.in_(waits_for)).values(followed=1))
    return Added(job.id, int(number))


def _require_within(connection: Connection, limits: Sequence[Most]) -> None:
    """Raise Overloaded if a limit on jobs is reached."""
    for most in limits:
        one_at_a_time(connection, f"jobs of {most.whose.kind} {most.whose.name}")
        column = jobs.c.key if most.whose.kind == "key" else jobs.c.owner
        waiting = jobs.c.status.in_(("queued", "running"))
        query = select(func.count()).where(column == most.whose.name, waiting)
        if (used := connection.execute(query).scalar_one()) >= most.jobs:
            raise too_many_jobs(most, used)


def _accepted(connection: Connection, job: NewJob) -> str | None:
    """The id of the job added under the same idempotency key, if any. Raises Conflict if it is a different job."""
    if job.idempotency_key is None:
        return None
    known = connection.execute(
        select(jobs.c.id, jobs.c.fingerprint).where(
            jobs.c.owner == job.owner, jobs.c.idempotency_key == job.idempotency_key
        )
    ).first()
    if known is not None and known.fingerprint != job.fingerprint:
        raise Conflict(
            f"idempotency_key {job.idempotency_key!r} was used for another job: use a new key for this one",
            details={"job_id": known.id},
        )
    return None if known is None else str(known.id)


# Built once, because building a statement takes longer than executing it.
_ADD = Prepared(insert(jobs).returning(jobs.c.number))
_ADD_PARAMS = Prepared(insert(params))


def _waited_for(connection: Connection, owner: str, ids: Sequence[str]) -> dict[int, bool]:
    """The numbers of these jobs of the project, and whether each is completed. Raises NotFound, Conflict."""
    if not ids:
        return {}
    # Locked, if there are several writers, so that none of them ends unseen meanwhile.
    found = connection.execute(
        select(jobs.c.id, jobs.c.number, jobs.c.status)
        .where(jobs.c.owner == owner, jobs.c.id.in_(ids))
        .with_for_update(read=True)
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


# By an attempt


def advance(connection: Connection, job: Claim, values: Mapping[str, Any]) -> bool:
    """Update the attempt's job; return whether others must be notified of its end. Raises LostAttempt."""
    own = {"of_number": job.number, "by_token": job.token}
    changed = _ADVANCE(connection, {**own, **values})
    if not changed:
        raise LostAttempt
    ((followed,),) = changed
    return bool(followed)


_ADVANCE = Prepared(
    update(jobs)
    .where(jobs.c.number == bindparam("of_number"), jobs.c.token == bindparam("by_token"))
    .values(version=jobs.c.version + 1)
    .returning(jobs.c.followed)
)


def complete(connection: Connection, job: Claim, result: str, values: Mapping[str, Any]) -> None:
    """Mark the job completed, with a JSON result. Raises LostAttempt."""
    ended = {**ENDED, "status": "completed", "finished_at": stamp(), "result": result}
    if advance(connection, job, {**values, **ended}):
        _release_dependants(connection, job.number)
        _tell(connection, [job.number])


def fail(connection: Connection, job: Claim, error: LLMBackendError) -> None:
    """Mark the job failed. Raises LostAttempt."""
    ended = {**ENDED, "status": "failed", "finished_at": stamp(), "error": json.dumps(error.to_dict())}
    if advance(connection, job, {**ended}):
        _give_up_dependants(connection, [job.number])


def hand_back(connection: Connection, job: Claim, values: Mapping[str, Any] | None = None) -> None:
    """Requeue the job as if this attempt had never been. Raises LostAttempt."""
    queued = {**ENDED, "status": "queued", "attempts": job.attempts - 1, "tries": 0}
    advance(connection, job, {**queued, **(values or {})})


WAITS = "needs approval"
"""The stage of a job that waits for approval."""


def put_aside(connection: Connection, job: Claim, checkpoint: str) -> None:
    """Requeue the job, blocked until `answer` is called. Raises LostAttempt."""
    hand_back(connection, job, {"blocked": 1, "stage": WAITS, "checkpoint": checkpoint})


ENDED: dict[str, Any] = {"worker": None, "token": None, "lease": None}


GIVEN_PARAMS = select(params.c.params).where(params.c.job == bindparam("number"))


# By callers


def of_project(reach: str | None) -> tuple[ColumnElement[bool], ...]:
    """The condition for jobs that a caller may see: its project's, or all if None."""
    return () if reach is None else (jobs.c.owner == reach,)


def find(
    connection: Connection, reach: str | None, job_id: str, *columns: ColumnElement[Any], lock: bool = False
) -> Row[Any]:
    """These columns of a job that a caller may see, with `lock` for a change. Raises NotFound."""
    query = select(*columns).where(*of_project(reach), jobs.c.id == job_id)
    row = connection.execute(query.with_for_update() if lock else query).first()
    if row is None:
        raise missing(job_id)
    return row


def cancel(connection: Connection, reach: str | None, job_id: str) -> bool:
    """Cancel a queued or running job; return whether it was one. Its attempt finds out and stops."""
    row = connection.execute(
        update(jobs)
        .where(*of_project(reach), jobs.c.id == job_id, jobs.c.status.in_(("queued", "running")))
        .values(status="cancelled", finished_at=stamp(), version=jobs.c.version + 1, **ENDED)
        .returning(jobs.c.number)
    ).first()
    if row is not None:
        _give_up_dependants(connection, [row.number])
    return row is not None


def retry(connection: Connection, caller: Caller, job_id: str, limits: Sequence[Most] = ()) -> None:
    """Requeue a failed or cancelled job, to continue from its last checkpoint with the rights of the caller's key.

    Raises NotFound, Conflict, JobExpired and Overloaded.
    """
    columns = jobs.c.number, jobs.c.status, jobs.c.owner, jobs.c.key
    row = find(connection, caller.reach, job_id, *columns, lock=True)
    if row.status not in ("failed", "cancelled"):
        raise Conflict(
            f"job {job_id} is {row.status}: only a failed or cancelled job can be retried",
            details={"job_id": job_id, "status": row.status},
        )
    if connection.execute(GIVEN_PARAMS, {"number": row.number}).first() is None:
        raise JobExpired(
            f"the params of job {job_id} have expired: submit it again", details={"job_id": job_id}
        )
    _require_within(connection, limits)
    others = connection.execute(
        select(jobs.c.id)
        .join(dependencies, dependencies.c.waits_for == jobs.c.number)
        .where(dependencies.c.job == row.number)
    ).scalars()
    waits_for = _waited_for(connection, row.owner, list(others))
    connection.execute(
        update(jobs)
        .where(jobs.c.number == row.number)
        .values(
            status="queued",
            key=caller.key if row.owner == caller.project else row.key,
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


def answer(
    connection: Connection, reach: str | None, job_id: str, change: Callable[[dict[str, Any]], None]
) -> None:
    """Let a job that waits for approval continue; `change` edits its checkpoint. Raises NotFound, Conflict."""
    columns = jobs.c.number, jobs.c.status, jobs.c.stage, jobs.c.checkpoint
    row = find(connection, reach, job_id, *columns, lock=True)
    if row.status != "queued" or row.stage != WAITS:
        raise Conflict(
            f"run {job_id} does not wait for approval: it is {row.status}",
            details={"job_id": job_id, "status": row.status},
        )
    state = json.loads(row.checkpoint)
    change(state)
    connection.execute(
        update(jobs)
        .where(jobs.c.number == row.number)
        .values(checkpoint=json.dumps(state), blocked=0, stage="", run_at=0.0, version=jobs.c.version + 1)
    )


def missing(job_id: str) -> NotFound:
    return NotFound(f"no job {job_id!r}", details={"job_id": job_id})


# Notifying others of a job's end


def _tell(connection: Connection, numbers: Sequence[int]) -> None:
    """Make these jobs' webhooks due."""
    which = (webhooks.c.job.in_(numbers), webhooks.c.due_at.is_(None))
    moment = now()
    values = {"due_at": moment, "reckoned_at": moment, "tries": 0, "delivered_at": None}
    connection.execute(update(webhooks).where(*which).values(**values))


def _release_dependants(connection: Connection, number: int) -> None:
    waiting = select(dependencies.c.job).where(dependencies.c.waits_for == number)
    connection.execute(
        update(jobs)
        .where(jobs.c.number.in_(waiting), jobs.c.status == "queued", jobs.c.blocked > 0)
        .values(blocked=jobs.c.blocked - 1, version=jobs.c.version + 1)
    )


def _give_up_dependants(connection: Connection, numbers: Sequence[int]) -> None:
    """Fail the jobs that depend on these, and their dependants in turn, and make their webhooks due."""
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
            f"job {row.id}, which this one depends on, {what}: retry that, then this",
            details={"reason": "dependency", "job_id": row.id},
        )
        fail_all(connection, list(waiting), error)


def fail_all(connection: Connection, numbers: Sequence[int], error: LLMBackendError) -> None:
    """Mark these jobs and their dependants failed."""
    if numbers:
        connection.execute(
            update(jobs)
            .where(jobs.c.number.in_(numbers))
            .values(
                status="failed",
                error=json.dumps(error.to_dict()),
                finished_at=stamp(),
                version=jobs.c.version + 1,
                **ENDED,
            )
        )
        _give_up_dependants(connection, numbers)
