"""What collections are made with, and which physical collection each is in: rows of the SQL database."""

from __future__ import annotations

import uuid
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    Insert,
    Integer,
    String,
    Table,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.schema import CreateColumn

from ...database import columns, metadata, migrations
from ...errors import Conflict
from ..engines.bm25 import NAME as BM25
from ..engines.bm25 import EnglishOfEdge
from ..engines.vectors import Physical

table = Table(
    "collections",
    metadata,
    Column("name", String(128), primary_key=True),
    Column("id", String(36), nullable=False, unique=True),
    Column("embedding_model", String(512), nullable=False),
    Column("dimension", Integer, nullable=False),
    Column("chunk_size", Integer, nullable=False),
    Column("chunk_overlap", Integer, nullable=False),
    Column("created_at", String(32), nullable=False),
    Column("sparse_model", String(128), nullable=False, server_default=EnglishOfEdge.NAME),
    Column("engine", String(16), nullable=False, server_default="edge"),
    Column("physical", String(36)),
    Column("indexed", Integer, nullable=False, server_default="0"),
)

loose = Table(
    "loose_collections",
    metadata,
    Column("physical", String(36), primary_key=True),
    Column("engine", String(16), nullable=False),
    Column("holder", String(64), nullable=False, server_default=""),
)
"""Physical collections that no manifest names, unfinished or replaced and not removed yet, and who has to remove them."""


def _add_columns(connection: Connection) -> None:
    """Version 0.1's table had the columns up to `created_at`."""
    for made in (table, loose):
        there = columns(connection, made.name)
        for column in made.columns if there else ():
            if column.name not in there:
                declared = CreateColumn(column).compile(dialect=connection.dialect)
                connection.exec_driver_sql(f"ALTER TABLE {made.name} ADD COLUMN {declared}")


migrations.append(_add_columns)


@dataclass(frozen=True)
class Manifest:
    """What a collection was made with; a reindex changes the models, and what follows from them.

    `id` stays for the collection's life. `physical` is what it is called in its `engine`, and changes when it is
    rebuilt; by then `indexed` chunks were in the graph for approximate search.
    """

    name: str
    id: str
    embedding_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    created_at: str
    sparse_model: str = BM25
    engine: str = "edge"
    physical: str | None = None
    indexed: int = 0

    @property
    def place(self) -> Physical:
        return Physical(self.physical or self.id, uuid.UUID(self.id), self.sparse_model)

    @property
    def public(self) -> dict[str, Any]:
        """What callers are told: all but where it is kept."""
        hidden = ("id", "engine", "physical", "indexed")
        return {name: value for name, value in asdict(self).items() if name not in hidden}


def taken(name: str) -> Conflict:
    return Conflict(f"there is a collection {name!r} already", details={"collection": name})


class Manifests:
    """The rows. Each method is one transaction, and blocks."""

    def __init__(self, engine: Engine, holder: str) -> None:
        """`holder` is this process among those that share the database, the same after a restart."""
        self._engine = engine
        self._holder = holder

    def all(self) -> list[Manifest]:
        with self._engine.connect() as connection:
            return [Manifest(**row) for row in connection.execute(select(table)).mappings()]

    def loose(self) -> list[tuple[str, str]]:
        """This process's physical collections to remove, and the engine of each."""
        with self._engine.connect() as connection:
            mine = select(loose).where(loose.c.holder.in_(["", self._holder]))
            return [(row.physical, row.engine) for row in connection.execute(mine)]

    def begin(self, physical_id: str, engine: str) -> None:
        """A physical collection is going to be made: should that end here, it is loose."""
        with self._engine.begin() as connection:
            connection.execute(self._loosen(physical_id, engine))

    def removed(self, physical_id: str) -> None:
        """A loose physical collection is gone."""
        with self._engine.begin() as connection:
            connection.execute(delete(loose).where(loose.c.physical == physical_id))

    def insert(self, manifest: Manifest) -> None:
        """A new collection, whose physical one was begun; raises Conflict if another process was faster."""
        try:
            with self._engine.begin() as connection:
                connection.execute(delete(loose).where(loose.c.physical == manifest.place.id))
                connection.execute(insert(table).values(asdict(manifest)))
        except IntegrityError as error:
            raise taken(manifest.name) from error

    def swap(self, old: Manifest, new: Manifest) -> None:
        """Another physical collection, which was begun, in place of the old one, which is loose from now on."""
        with self._engine.begin() as connection:
            connection.execute(delete(loose).where(loose.c.physical == new.place.id))
            connection.execute(update(table).where(table.c.id == old.id).values(asdict(new)))
            connection.execute(self._loosen(old.place.id, old.engine))

    def delete(self, manifest: Manifest) -> None:
        """A collection is no more; its physical one is loose."""
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.id == manifest.id))
            connection.execute(self._loosen(manifest.place.id, manifest.engine))

    def _loosen(self, physical_id: str, engine: str) -> Insert:
        return insert(loose).values(physical=physical_id, engine=engine, holder=self._holder)


def moved(manifest: Manifest, engine: str, **changes: Any) -> Manifest:
    """The manifest with a new physical collection in that engine."""
    return replace(manifest, physical=str(uuid.uuid4()), engine=engine, **changes)
