"""Shares of collections as rows, in the same database as the collections' manifests."""

from __future__ import annotations

from typing import NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Float, String, Table, delete, insert, select

from ..errors import NotFound
from ..storage.schema import metadata
from . import keys
from .decision import Shared
from .names import QualifiedName

table = Table(
    "collection_shares",
    metadata,
    Column("project", String(64), primary_key=True),
    Column("collection", String(128), primary_key=True),
    Column("with_project", String(64), primary_key=True),
    Column("can", String(16), nullable=False),
    Column("created_at", Float, nullable=False),
)


class Share(NamedTuple):
    collection: QualifiedName
    with_project: str
    can: Shared
    created_at: float


def every(connection: Connection) -> list[Share]:
    rows = connection.execute(select(table).order_by(*table.primary_key.columns))
    return [
        Share(QualifiedName(row.project, row.collection), row.with_project, row.can, row.created_at)
        for row in rows
    ]


def put(connection: Connection, share: Share) -> None:
    """Create or replace a share."""
    connection.execute(delete(table).where(*_of(share.collection, share.with_project)))
    connection.execute(
        insert(table).values(
            project=share.collection.project,
            collection=share.collection.name,
            with_project=share.with_project,
            can=share.can,
            created_at=share.created_at,
        )
    )
    keys.changed(connection)


def remove(connection: Connection, collection: QualifiedName, with_project: str) -> Share:
    """Remove a share and return it. Raises NotFound."""
    gone = delete(table).where(*_of(collection, with_project)).returning(table)
    row = connection.execute(gone).first()
    if row is None:
        raise NotFound(
            f"collection {collection.name!r} is not shared with {with_project!r}",
            details={"collection": collection.name, "with_project": with_project},
        )
    keys.changed(connection)
    return Share(collection, with_project, row.can, row.created_at)


def end(connection: Connection, collection: QualifiedName) -> None:
    """Remove all shares of a deleted collection, so that a new one of its name is not shared."""
    if connection.execute(delete(table).where(*_of(collection))).rowcount:
        keys.changed(connection)


def _of(collection: QualifiedName, with_project: str | None = None) -> list[ColumnElement[bool]]:
    """Conditions for a collection's shares: all, or the one with that project."""
    its = [table.c.project == collection.project, table.c.collection == collection.name]
    return its if with_project is None else [*its, table.c.with_project == with_project]
