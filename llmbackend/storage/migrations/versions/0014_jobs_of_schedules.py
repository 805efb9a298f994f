"""Which job a schedule submitted last."""

from __future__ import annotations

from sqlalchemy import Column, String

from llmbackend.storage.migrations import add_missing

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    add_missing("job_schedules", Column("job", String(36)))
