"""Which of a project's own node parsers splits a collection's documents."""

from __future__ import annotations

from sqlalchemy import Column, String

from llmbackend.storage.migrations import add_missing

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    add_missing("collections", Column("parser", String(128)))
