"""Who changed keys, deleted, shared, took out or was refused."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Integer, String

from llmbackend.storage.migrations import create_missing

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    create_missing(
        "audit",
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
