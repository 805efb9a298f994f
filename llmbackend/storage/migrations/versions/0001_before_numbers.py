"""Collections and jobs as they were before changes had numbers: made anew, or of version 0.1's tables."""

from __future__ import annotations

from alembic import op
from sqlalchemy import (
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

from llmbackend.storage.migrations import add_missing, columns
from llmbackend.storage.schema import check_columns

revision = "0001"
down_revision = None

tables = MetaData()

collections = Table(
    "collections",
    tables,
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("embedding_model", String(512), nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("chunk_size", Integer, nullable=False),
    Column("chunk_overlap", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("sparse_model", String(128), nullable=False, server_default="bm25-english"),
    Column("engine", String(16), nullable=False, server_default="edge"),
    Column("physical", String(36)),
    Column("indexed", Integer, nullable=False, server_default="0"),
    Column("frozen", Float, nullable=False, server_default="0"),
)
loose = Table(
    "loose_collections",
    tables,
    Column("physical", String(36), primary_key=True),
    Column("engine", String(16), nullable=False),
    Column("holder", String(64), nullable=False, server_default=""),
    Column("job", String(36), nullable=False, server_default=""),
)
Table(
    "jobs",
    tables,
    Column("number", Integer, primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("owner", String(128), nullable=False),
    Column("type", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("place", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("run_at", Float, nullable=False),
    Column("blocked", Integer, nullable=False),
    Column("followed", Integer, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("worker", String(64)),
    Column("token", String(36)),
    Column("lease", Float),
    Column("done", Integer, nullable=False),
    Column("total", Integer, nullable=False),
    Column("stage", String(64), nullable=False),
    Column("reached", Integer, nullable=False),
    Column("rate", Float),
    Column("checkpoint", Text),
    Column("version", Integer, nullable=False),
    Column("result", Text),
    Column("row_count", Integer, nullable=False),
    Column("row_bytes", Integer, nullable=False),
    Column("error", Text),
    Column("idempotency_key", String(255)),
    Column("fingerprint", String(64)),
    Column("created_at", String(32), nullable=False),
    Column("started_at", String(32)),
    Column("finished_at", String(32)),
    Index("jobs_by_owner", "status", "owner", text("priority DESC"), "number"),
    Index(
        "jobs_by_key",
        "owner",
        "idempotency_key",
        unique=True,
        sqlite_where=text("idempotency_key IS NOT NULL"),
        postgresql_where=text("idempotency_key IS NOT NULL"),
    ),
)
Table(
    "job_params",
    tables,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("params", Text, nullable=False),
)
Table(
    "job_rows",
    tables,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("first", Integer, primary_key=True),
    Column("count", Integer, nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("data", LargeBinary, nullable=False),
)
Table(
    "job_dependencies",
    tables,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("waits_for", ForeignKey("jobs.number"), primary_key=True, index=True),
)
Table(
    "job_webhooks",
    tables,
    Column("job", ForeignKey("jobs.number"), primary_key=True),
    Column("url", Text, nullable=False),
    Column("due_at", Float, index=True),
    Column("tries", Integer, nullable=False),
    Column("delivered_at", String(32)),
    Column("error", Text),
)
Table(
    "job_schedules",
    tables,
    Column("owner", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("cron", String(128), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("params", Text, nullable=False),
    Column("place", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("next_at", Float, nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
)

KEPT = "number, id, type, status, done, total, stage, attempts, result, error, created_at, finished_at"
"""What jobs of version 0.1 have, apart from their params."""


def upgrade() -> None:
    jobs_of_0_1 = {"params", *KEPT.split(", ")} <= columns("jobs")
    if jobs_of_0_1:
        op.execute("DROP INDEX IF EXISTS jobs_by_status")
        op.rename_table("jobs", "jobs_0_1")
    there = [table for table in tables.sorted_tables if columns(table.name)]
    for table in {collections, loose}.intersection(there):
        later = [column for column in table.columns if column.nullable or column.server_default is not None]
        add_missing(table.name, *(column._copy() for column in later))
    check_columns(op.get_bind(), there)  # what is something else's is refused
    tables.create_all(op.get_bind())
    if jobs_of_0_1:
        op.execute(
            f"INSERT INTO jobs ({KEPT}, owner, place, priority, run_at, blocked, followed, version, row_count, row_bytes, "
            f"tries, reached) SELECT {KEPT}, 'local', '', 0, 0, 0, 0, 1, 0, 0, attempts, 0 FROM jobs_0_1"
        )
        op.execute("INSERT INTO job_params SELECT number, params FROM jobs_0_1")
        op.drop_table("jobs_0_1")
