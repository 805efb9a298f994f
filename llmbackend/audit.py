"""The audit log: who changed keys, deleted, shared, exported or was refused. The table is append-only.

Entries older than AUDIT_DAYS are removed. Refused requests are limited to twenty a minute for each client and status,
so that a flood of requests does not fill the disk.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import Any

from sqlalchemy import BigInteger, Column, Connection, Integer, String, Table, delete, insert, select

from .clock import now, stamp
from .schemas.audit import AuditEntry, AuditLog, AuditRequest
from .storage.database import Database
from .storage.schema import metadata
from .tracing import Trace
from .vitals import Vitals

AUDITED = frozenset({
    "create_key", "rotate_key", "revoke_key", "share_collection", "unshare_collection", "delete_collection",
    "delete_documents", "delete_job", "delete_schedule", "delete_response", "export_collection", "import_collection", "approve", "reject",
})  # fmt: skip
"""Operations that are always logged. Others are logged if they remove documents, or export everything."""
_NAMES = ("key", "collection", "name", "response_id", "run_id", "job_id")
_DAY = 86400

table = Table(
    "audit",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("at", String(32), nullable=False, index=True),
    Column("project", String(128), nullable=False),
    Column("caller", String(128), nullable=False),
    Column("client", String(128), nullable=False),
    Column("request_id", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("target", String(512), nullable=False),
    Column("outcome", String(32), nullable=False),
)


def target(operation: str, request: Any) -> str | None:
    """Return a request's target if the request is to be logged, else None."""
    given = vars(request)
    if (job := given.get("job_type")) is not None and (params := given.get("params")) is not None:
        about = params.get("collection")
        syncs = job == "rag_ingest" and params.get("sync")
        return f"{job} into {about}" if syncs else job if job == "backup" else None
    if operation not in AUDITED and not given.get("sync"):
        return None
    if given.get("cursor") or given.get("token"):  # a later page of an export that was logged
        return None
    about = next((str(given[name]) for name in _NAMES if given.get(name)), "")
    return f"{about} with {given['with_project']}" if "with_project" in given else about


class Audit:
    """Writes and reads the audit log. Must be made and used on the core's event loop."""

    def __init__(self, database: Database, keep_days: float, vitals: Vitals) -> None:
        self._database = database
        self._keep = keep_days * _DAY
        self._vitals = vitals
        self._tidied = -math.inf
        self._last: asyncio.Future[None] | None = None

    def ended(self, trace: Trace, outcome: str, seconds: float) -> None:
        """Log a call that has ended, if it has a target."""
        if trace.target is not None:
            self.note(
                project=trace.caller.project,
                caller=str(trace.caller),
                client=trace.client,
                request_id=trace.request_id,
                action=trace.operation,
                target=trace.target,
                outcome=outcome,
            )

    def note(self, **what: str) -> None:
        row = {name: value[: table.c[name].type.length or None] for name, value in what.items()}  # type: ignore[attr-defined]
        row["at"] = stamp()
        self._written(self._database.write(_add, row))
        if time.monotonic() - self._tidied > _DAY:
            self._tidied = time.monotonic()
            self._written(self._database.write(_remove, stamp(now() - self._keep)))

    async def log(self, reach: str | None, asked: AuditRequest) -> AuditLog:
        """Return the entries so far, newest first, of the project `reach`, or of all if that is None."""
        await self.settled()
        rows = await self._database.read(read, reach, asked.first, asked.action, asked.before, asked.limit)
        return AuditLog(entries=[AuditEntry.model_validate(row) for row in rows])

    async def settled(self) -> None:
        """Wait until all entries are written, or have failed."""
        if self._last is not None:
            await asyncio.wait([self._last])

    def _written(self, writing: asyncio.Future[None]) -> None:
        self._last = writing
        writing.add_done_callback(self._done)

    def _done(self, writing: asyncio.Future[None]) -> None:
        error = None if writing.cancelled() else writing.exception()
        self._vitals.failed("audit", error) if error is not None else self._vitals.well("audit")


def _add(connection: Connection, row: dict[str, str]) -> None:
    connection.execute(insert(table).values(row))


def _remove(connection: Connection, before: str) -> None:
    connection.execute(delete(table).where(table.c.at < before))


def read(
    connection: Connection,
    project: str | None,
    since: str,
    action: str | None,
    before: int | None,
    limit: int,
) -> list[dict[str, Any]]:
    """Read entries, newest first, of one project, or of all if that is None."""
    query = select(table).where(table.c.at >= since).order_by(table.c.number.desc()).limit(limit)
    if project is not None:
        query = query.where(table.c.project == project)
    if action is not None:
        query = query.where(table.c.action == action)
    if before is not None:
        query = query.where(table.c.number < before)
    return [dict(row) for row in connection.execute(query).mappings()]
