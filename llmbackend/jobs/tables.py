"""The tables of jobs. Large values have tables of their own, because SQLite rewrites the whole row with each
change."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    Text,
    event,
    text,
    update,
)

from ..clock import CLOCK_SECONDS, now
from ..storage.schema import metadata

jobs = Table(
    "jobs",
    metadata,
    Column("number", Integer, primary_key=True),  # the order of arrival
    Column("id", String(36), nullable=False, unique=True),
    Column("owner", String(128), nullable=False),  # the project
    Column("key", String(96), nullable=False, server_default=""),  # the key whose rights it has when it runs
    Column("type", String(64), nullable=False),
    Column("status", String(16), nullable=False, default="queued"),
    Column("place", String(64), nullable=False),  # the only place it can run; "" is anywhere
    # When it runs
    Column("priority", Integer, nullable=False),
    Column("run_at", Float, nullable=False),  # not before, in seconds since 1970
    Column("blocked", Integer, nullable=False),  # how many jobs it still waits for
    Column(
        "followed", Integer, nullable=False, default=0
    ),  # whether other jobs or a webhook wait for its end
    # Its attempts
    Column("attempts", Integer, nullable=False, default=0),
    Column("tries", Integer, nullable=False, default=0),  # attempts since it last made progress
    Column("worker", String(64)),
    Column("token", String(36)),
    Column("lease", Float),  # until when the attempt counts as alive
    Column("reckoned_at", Float),  # when `lease`, or a `run_at` not given by a caller, was computed
    # Progress
    Column("done", Integer, nullable=False, default=0),
    Column("total", Integer, nullable=False, default=0),
    Column("stage", String(64), nullable=False, default=""),
    Column("reached", Integer, nullable=False, default=0),  # the highest `done` of any attempt
    Column("rate", Float),  # per second
    Column("checkpoint", Text),
    Column("version", Integer, nullable=False, default=1),  # grows with each change that a watcher may see
    # Outcome
    Column("result", Text),
    Column("row_count", Integer, nullable=False, default=0),
    Column("row_bytes", Integer, nullable=False, default=0),
    Column("error", Text),
    Column("kept_bytes", BigInteger, nullable=False, server_default="0"),  # of params, checkpoint and result
    # Submission
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32)),
    Column("finished_at", String(32)),
    Index("jobs_by_owner", "status", "owner", text("priority DESC"), "number"),
    Index("jobs_by_bytes", "owner", "kept_bytes"),
)


@event.listens_for(jobs, "after_create")
def _index_by_key(table: Table, connection: Connection, **given: Any) -> None:
    """Make an index without the jobs that have no such key: most of them.

    In SQL, which both databases read alike: an Index with an option of PostgreSQL imports its drivers, used or not.
    """
    connection.execute(
        text(
            "CREATE UNIQUE INDEX jobs_by_key ON jobs (owner, idempotency_key) WHERE idempotency_key IS NOT NULL"
        )
    )


params = Table(
    "job_params",
    metadata,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("params", Text, nullable=False),
)

rows = Table(
    "job_rows",
    metadata,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("dimension", Integer, nullable=False),  # 0: JSON lines; else float32 per row
    Column("data", LargeBinary, nullable=False),
)

dependencies = Table(
    "job_dependencies",
    metadata,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("waits_for", ForeignKey("jobs.number"), primary_key=True, index=True),
)

webhooks = Table(
    "job_webhooks",
    metadata,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("host", String(300)),  # and port; limits deliveries in flight
    Column("due_at", Float, index=True),  # null before the job's end, and once delivered or given up
    Column("reckoned_at", Float),  # when `due_at` was computed
    Column("tries", Integer, nullable=False, default=0),
    Column("delivered_at", String(32)),
    Column("error", Text),
)


def reckon_anew(connection: Connection) -> None:
    """Shift leases and due times that were computed before the clock was set back, so that they do not come late."""
    moment = now()
    for table, still, moments in (
        (jobs, jobs.c.status.in_(("queued", "running")), (jobs.c.lease, jobs.c.run_at)),
        (webhooks, webhooks.c.due_at.is_not(None), (webhooks.c.due_at,)),
    ):
        anew = {one.name: one - table.c.reckoned_at + moment for one in moments}
        later = table.c.reckoned_at > moment + CLOCK_SECONDS
        connection.execute(update(table).where(still, later).values(reckoned_at=moment, **anew))
