"""How much of the limits of keys and projects is used up, by window."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, String

from llmbackend.storage.migrations import create_missing

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    create_missing(
        "limit_windows",
        Column("name", String(320), primary_key=True),
        Column("window", BigInteger, primary_key=True, autoincrement=False),
        Column("used", BigInteger, nullable=False),
        Column("ends", Float, nullable=False, index=True),
    )
