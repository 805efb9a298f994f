"""Reading jobs as callers see them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import Connection, RowMapping, bindparam, func, select

from ..clock import now, stamp
from ..errors import Conflict, JobExpired, LLMBackendError
from ..schemas import JobProgress, JobRows, JobState, JobStatus, JobWebhook
from . import results
from .ledger import WAITS, find, missing, of_project
from .registry import TYPES
from .tables import dependencies, jobs, webhooks

log = logging.getLogger(__name__)

_SHOWN = [column for column in jobs.c if column.name not in ("key", "token", "lease", "checkpoint", "result")]

# Frequent statements are built once, as in ledger.py.
_WITH_RESULT = select(*_SHOWN, jobs.c.result).where(jobs.c.id == bindparam("of_id"))
_WAITS_FOR = (
    select(jobs.c.id)
    .join(dependencies, dependencies.c.waits_for == jobs.c.number)
    .where(dependencies.c.job == bindparam("of_number"))
)
_WEBHOOK = select(webhooks).where(webhooks.c.job == bindparam("of_number"))


def status(connection: Connection, reach: str | None, job_id: str, keep_days: float) -> JobStatus:
    """The job with its result, and the result's rows if they are small. Raises NotFound."""
    row = connection.execute(_WITH_RESULT, {"of_id": job_id}).mappings().first()
    if row is None or reach not in (None, row["owner"]):
        raise missing(job_id)
    own = {"of_number": row["number"]}
    waits_for = connection.execute(_WAITS_FOR, own).scalars()
    told = connection.execute(_WEBHOOK, own).mappings().first()
    hook = JobWebhook(**{name: told[name] for name in JobWebhook.model_fields}) if told else None
    pending = _pending(connection, row)
    seen = _seen(row, keep_days, depends_on=list(waits_for), webhook=hook, pending=pending)
    if row["result"] is not None and not seen.expired:
        seen.result = json.loads(row["result"])
        if seen.rows is not None and row["row_bytes"] <= results.INLINE_BYTES:
            chunks = list(results.read(connection, row["number"]))
            # Results of version 0.1 contain their rows already.
            seen.result.setdefault(seen.rows.name, results.whole(chunks))
            dimension = chunks[0].dimension if chunks else seen.result.get("dimension")
            seen.rows = seen.rows.model_copy(update={"inline": True, "dimension": dimension or None})
    return seen


def watched(
    connection: Connection, reach: str | None, job_id: str, keep_days: float
) -> tuple[int, JobStatus]:
    """The job's version, which grows with each change, and the job without its result. Raises NotFound."""
    row = find(connection, reach, job_id, *_SHOWN)._mapping
    return row["version"], _seen(row, keep_days, pending=_pending(connection, row))


def _pending(connection: Connection, row: RowMapping) -> Any:
    """The tool calls that a job waits for approval of; None if it does not wait."""
    if row["status"] != "queued" or row["stage"] != WAITS:
        return None
    saved = connection.execute(select(jobs.c.checkpoint).where(jobs.c.number == row["number"])).scalar()
    return json.loads(saved)["pending"] if saved else None


def rows_from(connection: Connection, reach: str | None, job_id: str, offset: int) -> list[Any]:
    """A job's rows so far from `offset` on, whether it has ended or not. Raises NotFound."""
    (number,) = find(connection, reach, job_id, jobs.c.number)
    return results.values(list(results.read(connection, number, offset)))


def changed(
    connection: Connection, known: Mapping[str, int], keep_days: float
) -> list[tuple[int, JobStatus]]:
    """Those of the known jobs whose version has changed, as `watched` returns them."""
    versions = select(jobs.c.id, jobs.c.version).where(jobs.c.id.in_(known))
    news = [row.id for row in connection.execute(versions) if row.version != known[row.id]]
    if not news:
        return []
    query = select(*_SHOWN).where(jobs.c.id.in_(news))
    return [(row["version"], _seen(row, keep_days)) for row in connection.execute(query).mappings().all()]


def unfinished(connection: Connection, job_ids: Sequence[str]) -> set[str]:
    """Those of these jobs that are queued or running."""
    going_on = jobs.c.status.in_(("queued", "running"))
    return set(connection.execute(select(jobs.c.id).where(jobs.c.id.in_(job_ids), going_on)).scalars())


def listed(
    connection: Connection,
    reach: str | None,
    state: str | None,
    job_type: str | None,
    limit: int,
    keep_days: float,
) -> list[JobStatus]:
    """The newest jobs first, without their results."""
    query = select(*_SHOWN).where(*of_project(reach)).order_by(jobs.c.number.desc()).limit(limit)
    if state is not None:
        query = query.where(jobs.c.status == state)
    if job_type is not None:
        query = query.where(jobs.c.type == job_type)
    return [_seen(row, keep_days) for row in connection.execute(query).mappings().all()]


def completed(
    connection: Connection, reach: str | None, job_id: str, keep_days: float, *, partial: bool = False
) -> RowMapping:
    """Number, result and row_count of a completed job. Raises NotFound, JobExpired, Conflict if it is not completed.

    With `partial`, other jobs are allowed too; their result is null.
    """
    shown = (jobs.c.number, jobs.c.status, jobs.c.result, jobs.c.row_count, jobs.c.finished_at)
    row = find(connection, reach, job_id, *shown)._mapping
    if row["status"] != "completed":
        if partial:
            return row
        raise Conflict(
            f"job {job_id} is {row['status']}: it has no result, but may have rows so far (partial=True)",
            details={"job_id": job_id, "status": row["status"]},
        )
    if row["result"] is None or row["finished_at"] < oldest(keep_days):
        raise JobExpired(
            f"the result of job {job_id} was kept for {keep_days:g} days (JOB_RESULT_DAYS): submit it again",
            details={"job_id": job_id},
        )
    return row


def oldest(keep_days: float) -> str:
    """The moment before which results have expired."""
    return stamp(now() - keep_days * 86400)


def _seen(row: RowMapping, keep_days: float, **more: Any) -> JobStatus:
    """A row as a job; a row that cannot be read is shown as damaged, so that it does not spoil a whole list."""
    try:
        return _job(row, keep_days, **more)
    except Exception as error:
        log.warning("the row of job %s is damaged: %r", row["id"], error)
        damage = LLMBackendError(
            "this job's row in the database is damaged: cancel the job and submit it again",
            details={"reason": "damaged"},
        )
        status, owner = row["status"], row["owner"]
        return JobStatus(
            id=str(row["id"]),
            type=str(row["type"]),
            status=status if status in get_args(JobState) else "failed",
            owner=str(owner),
            progress=JobProgress(),
            attempts=0,
            error=damage.to_dict(),
            priority=0,
            created_at=str(row["created_at"]),
            finished_at=str(row["finished_at"]) if row["finished_at"] else None,
        )


def _job(row: RowMapping, keep_days: float, **more: Any) -> JobStatus:
    error, rate = row["error"], row["rate"]
    running = row["status"] == "running"
    left = max(0, row["total"] - row["done"])
    kind = TYPES.get(row["type"])
    finished = row["finished_at"]
    name = (kind.rows if kind else None) or ("rows" if row["row_count"] else None)
    return JobStatus(
        id=row["id"],
        type=row["type"],
        status=row["status"],
        owner=row["owner"],
        progress=JobProgress(
            done=row["done"],
            total=row["total"],
            stage=row["stage"],
            rate=round(rate, 3) if rate else None,
            eta=round(left / rate, 1) if rate and running else None,
        ),
        attempts=row["attempts"],
        error=json.loads(error) if error else None,
        priority=row["priority"],
        run_at=stamp(row["run_at"]) if row["run_at"] else None,
        created_at=row["created_at"],
        started_at=row["started_at"],
        finished_at=finished,
        expired=row["status"] == "completed" and finished < oldest(keep_days),
        rows=JobRows(name=name, count=row["row_count"]) if name and row["status"] == "completed" else None,
        **more,
    )


def waiting(connection: Connection) -> tuple[dict[tuple[str, str], int], dict[tuple[str, str], float]]:
    """The number of queued and running jobs by (type, status), and the age in seconds of the oldest of each."""
    place = jobs.c.type, jobs.c.status
    query = select(*place, func.count(), func.min(jobs.c.created_at)).group_by(*place)
    found = connection.execute(query.where(jobs.c.status.in_(("queued", "running")))).all()
    counts = {(kind, status): count for kind, status, count, _ in found}
    ages = {
        (kind, status): now() - datetime.fromisoformat(first).timestamp() for kind, status, _, first in found
    }
    return counts, ages
