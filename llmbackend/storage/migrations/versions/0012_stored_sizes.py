"""How much each collection has stored, which projects may be limited in."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column

from llmbackend.storage.migrations import add_missing

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    add_missing("collections", Column("stored_chunks", BigInteger), Column("stored_bytes", BigInteger))
