"""Responses that are kept, to be read again and to be gone on from."""

from __future__ import annotations

from sqlalchemy import Column, Float, String, Text

from llmbackend.storage.migrations import create_missing

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    create_missing(
        "responses",
        Column("id", String(160), primary_key=True),
        Column("project", String(128), nullable=False),
        Column("previous", String(160)),
        Column("job", String(36)),
        Column("status", String(16), nullable=False),
        Column("used_at", Float, nullable=False, index=True),
        Column("input", Text, nullable=False),
        Column("response", Text, nullable=False),
    )
