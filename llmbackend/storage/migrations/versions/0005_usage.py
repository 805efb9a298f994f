"""Usage by project, key, model, operation and day."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, String

from llmbackend.storage.migrations import create_missing

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    counts = (
        "requests",
        "errors",
        "prompt_tokens",
        "completion_tokens",
        "embedded_tokens",
        "estimated_tokens",
    )
    create_missing(
        "usage",
        Column("project", String(128), primary_key=True),
        Column("key", String(128), primary_key=True),
        Column("model", String(512), primary_key=True),
        Column("operation", String(64), primary_key=True),
        Column("day", String(10), primary_key=True, index=True),
        *(Column(name, Integer, nullable=False, server_default="0") for name in counts),
        Column("milliseconds", Float, nullable=False, server_default="0"),
        Column("chunks", Integer, nullable=False, server_default="0"),
    )
