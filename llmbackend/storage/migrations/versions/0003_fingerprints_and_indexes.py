"""Which embedding model made a collection's vectors, by fingerprint; its indexes of metadata; a Qdrant server's options."""

from __future__ import annotations

from sqlalchemy import JSON, Column, Integer, String, Text

from llmbackend.storage.migrations import add_missing, create_missing

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    add_missing(
        "collections",
        Column("made_by", String(64)),
        Column("indexes", JSON, nullable=False, server_default="{}"),
        Column("options", JSON, nullable=False, server_default="{}"),
        Column("made_with", JSON, nullable=False, server_default="{}"),
    )
    create_missing(
        "embedding_models",
        Column("id", String(64), primary_key=True),
        Column("dimension", Integer, nullable=False),
        Column("fingerprint", Text, nullable=False),
    )
