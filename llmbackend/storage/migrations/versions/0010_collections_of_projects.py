"""A collection's name is its project's own: those made before are `default`'s."""

from __future__ import annotations

from alembic import op
from sqlalchemy import Column, MetaData, String, Table, UniqueConstraint, insert, literal, select

from llmbackend.storage.migrations import columns

revision = "0010"
down_revision = "0009"

PROJECT = Column("project", String(64), primary_key=True)


def upgrade() -> None:
    if PROJECT.name in columns("collections"):
        return
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        op.add_column("collections", Column("project", String(64), nullable=False, server_default="default"))
        op.alter_column("collections", "project", server_default=None)
        op.drop_constraint("collections_pkey", "collections")
        op.create_primary_key("collections_pkey", "collections", ["project", "name"])
        return
    # SQLite changes no primary key: the table is made anew.
    op.rename_table("collections", "collections_before")
    before = Table("collections_before", MetaData(), autoload_with=connection)
    kept = [column._copy() for column in before.columns]
    after = Table("collections", MetaData(), PROJECT._copy(), *kept, UniqueConstraint("id"))
    after.create(connection)
    rows = select(literal("default"), *before.columns)
    connection.execute(insert(after).from_select(["project", *before.columns.keys()], rows))
    op.drop_table("collections_before")
