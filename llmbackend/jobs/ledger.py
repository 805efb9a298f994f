"""One row a job, in SQL: what was asked, how far it is, what came out. Everything here blocks."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Engine, Index, Integer, RowMapping, String, Table, Text, insert, select, update

from ..database import metadata
from ..errors import NotFound
from ..schemas import JobProgress, JobStatus

MAX_ATTEMPTS = 3

table = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),  # the order of arrival
    Column("id", String(36), nullable=False, unique=True),
    Column("type", String(64), nullable=False),
    Column("params", Text, nullable=False),
    Column("status", String(16), nullable=False),
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("stage", String(64), nullable=False, default=""),
    Column("attempts", Integer, nullable=False, default=0),
    Column("result", Text),
    Column("error", Text),
    Column("created_at", String(32), nullable=False),
    Column("finished_at", String(32)),
    Index("jobs_by_status", "status"),
)

_WITHOUT_PARAMS = [column for column in table.c if column.name != "params"]
_WITHOUT_RESULT = [column for column in _WITHOUT_PARAMS if column.name != "result"]


class Ledger:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, job_type: str, params: str) -> str:
        """A new queued job, durable once this returns; returns its id."""
        job_id = str(uuid.uuid4())
        with self._engine.begin() as connection:
            connection.execute(
                insert(table).values(
                    id=job_id, type=job_type, params=params, status="queued", created_at=_now()
                )
            )
        return job_id

    def claim(self, job_id: str) -> tuple[str, str] | None:
        """Type and params of a queued job, now running; None if it is not queued (any more)."""
        with self._engine.begin() as connection:
            claimed = connection.execute(
                update(table)
                .where(table.c.id == job_id, table.c.status == "queued")
                .values(status="running", attempts=table.c.attempts + 1, done=0, total=0, stage="")
            )
            if claimed.rowcount != 1:
                return None
            row = connection.execute(select(table.c.type, table.c.params).where(table.c.id == job_id)).one()
        return row.type, row.params

    def advance(self, job_id: str, progress: JobProgress) -> None:
        with self._engine.begin() as connection:
            connection.execute(
                update(table)
                .where(table.c.id == job_id, table.c.status == "running")
                .values(done=progress.done, total=progress.total, stage=progress.stage)
            )

    def complete(self, job_id: str, result: Any, progress: JobProgress) -> None:
        self._end(
            job_id,
            "running",
            status="completed",
            result=json.dumps(result),
            done=progress.done,
            total=progress.total,
            stage=progress.stage,
        )

    def fail(self, job_id: str, error: dict[str, Any]) -> None:
        self._end(job_id, "running", status="failed", error=json.dumps(error))

    def cancel(self, job_id: str, was: str) -> bool:
        """Mark a job cancelled if its status still is `was`; tells whether it did."""
        return self._end(job_id, was, status="cancelled")

    def requeue(self, job_id: str) -> None:
        """Give a running job back, as if this attempt had not been."""
        with self._engine.begin() as connection:
            connection.execute(
                update(table)
                .where(table.c.id == job_id, table.c.status == "running")
                .values(status="queued", attempts=table.c.attempts - 1)
            )

    def recover(self) -> list[str]:
        """What a killed process left: running jobs are queued again, or failed after too many attempts.

        Returns the ids of all queued jobs, in order of arrival. To be called while no worker runs.
        """
        lost = {
            "code": "internal",
            "message": f"lost: its process was killed in each of {MAX_ATTEMPTS} attempts",
            "details": {"reason": "lost"},
        }
        with self._engine.begin() as connection:
            connection.execute(
                update(table)
                .where(table.c.status == "running", table.c.attempts >= MAX_ATTEMPTS)
                .values(status="failed", error=json.dumps(lost), finished_at=_now())
            )
            connection.execute(update(table).where(table.c.status == "running").values(status="queued"))
            queued = connection.execute(
                select(table.c.id).where(table.c.status == "queued").order_by(table.c.number)
            )
            return [row.id for row in queued]

    def get(self, job_id: str) -> JobStatus:
        """The job as callers see it; raises NotFound."""
        with self._engine.connect() as connection:
            row = connection.execute(select(*_WITHOUT_PARAMS).where(table.c.id == job_id)).mappings().first()
        if row is None:
            raise NotFound(f"no job {job_id!r}", details={"job_id": job_id})
        return _status(row)

    def list(self, status: str | None, job_type: str | None, limit: int) -> list[JobStatus]:
        """The newest jobs first, without their results."""
        query = select(*_WITHOUT_RESULT).order_by(table.c.number.desc()).limit(limit)
        if status is not None:
            query = query.where(table.c.status == status)
        if job_type is not None:
            query = query.where(table.c.type == job_type)
        with self._engine.connect() as connection:
            return [_status(row) for row in connection.execute(query).mappings()]

    def _end(self, job_id: str, was: str, **values: Any) -> bool:
        with self._engine.begin() as connection:
            ended = connection.execute(
                update(table)
                .where(table.c.id == job_id, table.c.status == was)
                .values(finished_at=_now(), **values)
            )
        return ended.rowcount == 1


def _status(row: RowMapping) -> JobStatus:
    result, error = row.get("result"), row["error"]
    return JobStatus(
        id=row["id"],
        type=row["type"],
        status=row["status"],
        progress=JobProgress(done=row["done"], total=row["total"], stage=row["stage"]),
        attempts=row["attempts"],
        result=json.loads(result) if result else None,
        error=json.loads(error) if error else None,
        created_at=row["created_at"],
        finished_at=row["finished_at"],
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
