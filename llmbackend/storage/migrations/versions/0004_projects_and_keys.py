"""Keys of projects. Jobs and schedules tell whose key they came with; those made in process are `default`'s, as API_KEY's.

Where both had a schedule of one name, that made in process has `-local` at its end from now on. Of two jobs under one
idempotency key, it is that of API_KEY which is found by it.
"""

from __future__ import annotations

from alembic import op
from sqlalchemy import JSON, Column, Float, Integer, MetaData, String, Table, text

from llmbackend.storage.migrations import add_missing

revision = "0004"
down_revision = "0003"

tables = MetaData()

Table(
    "api_keys",
    tables,
    Column("id", String(96), primary_key=True),
    Column("project", String(64), nullable=False, index=True),
    Column("hash", String(64), nullable=False),
    Column("old_hash", String(64)),
    Column("old_until", Float),
    Column("can", JSON, nullable=False),
    Column("collections", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("note", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(96), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float),
)
Table(
    "access_versions",
    tables,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)
Table(
    "collection_shares",
    tables,
    Column("project", String(64), primary_key=True),
    Column("collection", String(128), primary_key=True),
    Column("with_project", String(64), primary_key=True),
    Column("can", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
)


def upgrade() -> None:
    tables.create_all(op.get_bind())
    for table in ("jobs", "job_schedules"):
        add_missing(table, Column("key", String(96), nullable=False, server_default=""))
    op.execute(
        "UPDATE jobs SET idempotency_key = NULL WHERE owner = 'local' AND idempotency_key IN "
        "(SELECT idempotency_key FROM jobs WHERE owner = 'default' AND idempotency_key IS NOT NULL)"
    )
    op.execute("UPDATE jobs SET owner = 'default' WHERE owner = 'local'")
    connection = op.get_bind()
    found = connection.execute(text("SELECT owner, name FROM job_schedules")).all()
    taken = {name for owner, name in found if owner == "default"}
    for owner, name in found:
        if owner == "local":
            new = name
            while new in taken:
                new = f"{new[:94]}-local"
            taken.add(new)
            connection.execute(
                text(
                    "UPDATE job_schedules SET owner = 'default', name = :new WHERE owner = 'local' AND name = :name"
                ),
                {"new": new, "name": name},
            )
