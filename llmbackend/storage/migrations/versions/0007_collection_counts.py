"""How many documents and chunks a collection has, so that one that is not open can tell."""

from __future__ import annotations

from sqlalchemy import Column, Integer

from llmbackend.storage.migrations import add_missing

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    add_missing("collections", Column("documents", Integer), Column("chunks", Integer))
