"""What collections are made with, and which physical collection each is in: rows of the SQL database."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    Insert,
    Integer,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from ... import tracing
from ...access import shares
from ...access.names import QualifiedName
from ...engines.bm25 import NAME as BM25
from ...engines.bm25 import EnglishOfEdge
from ...engines.indexes import FieldType
from ...engines.interface import Layout, Physical
from ...errors import Conflict
from ...inference.fingerprint import Fingerprint
from ...storage.database import transaction
from ...storage.schema import metadata
from .quota import DIMENSION, Require, Size

table = Table(
    "collections",
    metadata,
    Column("project", String(64), primary_key=True),
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
    Column("made_by", String(64)),
    Column("frozen", Float, nullable=False, server_default="0"),  # until then, in seconds since 1970
    Column("indexes", JSON, nullable=False, server_default="{}"),
    Column("options", JSON, nullable=False, server_default="{}"),
    Column("made_with", JSON, nullable=False, server_default="{}"),
    Column("documents", Integer),
    Column("chunks", Integer),
    Column("parser", String(128)),
    Column("stored_chunks", BigInteger),
    Column("stored_bytes", BigInteger),
)
"""`documents` and `chunks` are null while a collection may be written to, and after a kill: then its index is counted.

`stored_chunks` and `stored_bytes` (stored.py) are null in collections of earlier versions, until they are measured.
"""

orphans = Table(
    "loose_collections",
    metadata,
    Column("physical", String(36), primary_key=True),
    Column("engine", String(16), nullable=False),
    Column("holder", String(64), nullable=False, server_default=""),
    Column("job", String(36), nullable=False, server_default=""),
)
"""Physical collections that no manifest names, unfinished or replaced and not removed yet.

`holder` has to remove them, or whoever finds that the `job` which would go on with one has ended.
"""

models = Table(
    "embedding_models",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("dimension", Integer, nullable=False),  # 0 for those in this process, which are known by a hash
    Column("fingerprint", Text, nullable=False),
)
"""Fingerprints of embedding models, each once, whatever names the model goes by."""

FREEZE = 60.0
"""Seconds that a freeze lasts, if the process that exchanges the collection is killed."""
CLOCK_SECONDS = 5.0
"""How far the clocks of two processes may be apart."""


@dataclass(frozen=True)
class Manifest:
    """What a collection was made with; a reindex changes the models, and what follows from them.

    `id` stays for the collection's life. `physical` is what it is called in its `engine`, and changes when it is
    rebuilt; by then `indexed` chunks were in the graph for approximate search. `indexes` are those of metadata fields.
    `made_by` is the fingerprint of the embedding model (`embedding_models`), whatever that is called; earlier versions
    kept the name alone.
    """

    project: str
    name: str
    """The project's own for it."""
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
    indexes: dict[str, FieldType] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    """Engine options that were given when it was created."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Engine options that its physical collection was made with: those given, and the settings of that time."""
    made_by: str | None = None
    parser: str | None = None
    """A project's own node parser, which splits its documents in place of ours."""

    @property
    def qualified(self) -> QualifiedName:
        return QualifiedName(self.project, self.name)

    @property
    def called(self) -> str:
        return called(self.qualified)

    @property
    def layout(self) -> Layout:
        return Layout(self.dimension, self.indexes, self.made_with)

    @property
    def physical_collection(self) -> Physical:
        return Physical(self.physical or self.id, uuid.UUID(self.id), self.sparse_model)

    @property
    def public(self) -> dict[str, Any]:
        """What callers are told: all except where it is stored."""
        shown = {name: getattr(self, name) for name in _PUBLIC}
        return {**shown, "name": self.called, "engine": self.made_with}


_PUBLIC = [
    one.name
    for one in fields(Manifest)
    if one.name not in ("project", "id", "engine", "physical", "indexed", "options", "made_with", "made_by")
]
_SHOWN = [table.c[one.name] for one in fields(Manifest)]


def _is(manifest: Manifest) -> ColumnElement[bool]:
    """The collection, if it still is in that physical one."""
    return (table.c.id == manifest.id) & (
        func.coalesce(table.c.physical, table.c.id) == manifest.physical_collection.id
    )


def _frozen(moment: float) -> ColumnElement[bool]:
    """Whether it is frozen now. A freeze longer than there can be means that a clock was set back: it does not count."""
    return table.c.frozen.between(moment, moment + FREEZE + CLOCK_SECONDS)


def called(name: QualifiedName) -> str:
    """Its name as the current caller writes it."""
    return name.shown_to(tracing.current().caller)


def exchanged(name: str) -> Conflict:
    return Conflict(
        f"collection {name!r} was deleted, or embedded anew, by another process meanwhile: try again",
        details={"collection": name},
    )


def made_otherwise(manifest: Manifest, was: Fingerprint | None, now: Fingerprint) -> Conflict:
    """The error for vectors that may not be compared with a collection's."""
    name, made_with = manifest.called, manifest.embedding_model
    if was is not None and was.same_vectors(now):
        what = (
            f"was embedded with the prompts {was.query!r} (query) and {was.passage!r} (passage), and now they are "
            f"{now.query!r} and {now.passage!r} (EMBEDDING_QUERY_PREFIX, EMBEDDING_PASSAGE_PREFIX): set those again"
        )
    elif made_with == now.model:
        what = (
            f"was embedded by {made_with!r}, and the model now, which is called {now.model!r} as well, makes other "
            "vectors: serve that model again"
        )
    else:
        what = f"was embedded by {made_with!r} and the model now is {now.model!r}: set that model again"
    return Conflict(
        f"collection {name!r} {what}, or embed its texts anew by reindex_collection({name!r}); until then, "
        'mode="sparse" searches it by words',
        details={"collection": name, "made_with": made_with, "model": now.model},
    )


def taken(name: str) -> Conflict:
    message = f"there is a collection {name!r} already: give another name by collection=…, or delete it first"
    return Conflict(message, details={"collection": name})


class Manifests:
    """The rows. Each method is one transaction, and blocks."""

    def __init__(self, engine: Engine, holder: str) -> None:
        """`holder` is this process among those that share the database, the same after a restart."""
        self._engine = engine
        self._holder = holder

    def all(self) -> list[Manifest]:
        with self._engine.connect() as connection:
            return [Manifest(**row) for row in connection.execute(select(*_SHOWN)).mappings()]

    def find(self, name: QualifiedName) -> tuple[Manifest | None, bool]:
        """A collection's manifest as it is now, if there is one, and whether it takes no writes."""
        query = select(*_SHOWN, _frozen(time.time()).label("frozen")).where(
            table.c.project == name.project, table.c.name == name.name
        )
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        if row is None:
            return None, False
        columns = dict(row)
        frozen = columns.pop("frozen")
        return Manifest(**columns), bool(frozen)

    def freeze(self, manifest: Manifest, *, longer: bool = False) -> None:
        """Keep other processes from writing to it for a while, or for longer; raises Conflict if the freeze has run
        out."""
        moment = time.time()
        which = _is(manifest) & (_frozen(moment) if longer else ~_frozen(moment))
        with transaction(self._engine) as connection:
            changed = connection.execute(update(table).where(which).values(frozen=moment + FREEZE))
            if changed.rowcount != 1:
                raise exchanged(manifest.called)

    def thaw(self, manifest: Manifest) -> None:
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(_is(manifest)).values(frozen=0.0))

    def orphans(self) -> list[tuple[str, str]]:
        """This process's physical collections to remove, and the engine of each."""
        with self._engine.connect() as connection:
            mine = select(orphans).where(orphans.c.holder.in_(["", self._holder]), orphans.c.job == "")
            return [(row.physical, row.engine) for row in connection.execute(mine)]

    def left_by_jobs(self) -> list[tuple[str, str, str]]:
        """Physical collections that a job will go on with, unless it has ended; their engines, and the jobs' ids."""
        with self._engine.connect() as connection:
            left = connection.execute(select(orphans).where(orphans.c.job != ""))
            return [(row.physical, row.engine, row.job) for row in left]

    def begin(self, physical_id: str, engine: str, job: str = "") -> None:
        """Note an orphan before its physical collection is made."""
        with transaction(self._engine) as connection:
            connection.execute(self._as_orphan(physical_id, engine, job))

    def removed(self, physical_id: str) -> None:
        """Forget an orphan whose physical collection was removed."""
        with transaction(self._engine) as connection:
            connection.execute(delete(orphans).where(orphans.c.physical == physical_id))

    def counts(self) -> dict[str, tuple[int, int]]:
        """The numbers of documents and chunks of closed collections, by id."""
        closed = select(table.c.id, table.c.documents, table.c.chunks).where(table.c.documents.is_not(None))
        with self._engine.connect() as connection:
            return {row.id: (row.documents, row.chunks) for row in connection.execute(closed)}

    def note_counts(self, manifest: Manifest, counts: tuple[int, int] | None) -> None:
        """Store the counts when a collection is closed, or (None) forget them before it is written to."""
        documents, chunks = counts or (None, None)
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(_is(manifest)).values(documents=documents, chunks=chunks))

    def insert(
        self,
        manifest: Manifest,
        counts: tuple[int, int] | None = None,
        size: Size | None = None,
        require: Require | None = None,
    ) -> None:
        """A new collection, whose physical one was begun, and what it holds.

        Raises Conflict if another process was faster, and what `require` raises.
        """
        documents, chunks = counts or (None, None)
        try:
            with transaction(self._engine) as connection:
                connection.execute(
                    delete(orphans).where(orphans.c.physical == manifest.physical_collection.id)
                )
                if require is not None and size is not None:
                    self._require(connection, manifest, size, require)
                kept = {"documents": documents, "chunks": chunks, **_columns(size)}
                connection.execute(insert(table).values({**asdict(manifest), **kept}))
        except IntegrityError as error:
            raise taken(manifest.called) from error

    # What projects have stored

    def size(self, manifest: Manifest) -> Size | None:
        """As it is known; None for a collection that was not measured yet."""
        query = select(table.c.stored_chunks, table.c.stored_bytes).where(table.c.id == manifest.id)
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return None if row is None or row.stored_bytes is None else Size(*row)

    def unmeasured(self, project: str) -> list[QualifiedName]:
        query = select(table.c.name).where(table.c.project == project, table.c.stored_bytes.is_(None))
        with self._engine.connect() as connection:
            return [QualifiedName(project, name) for name in connection.execute(query).scalars()]

    def measured(self, manifest: Manifest, size: Size) -> None:
        with transaction(self._engine, durable=False) as connection:
            connection.execute(update(table).where(table.c.id == manifest.id).values(_columns(size)))

    def grow(self, manifest: Manifest, more: Size, require: Require | None = None) -> None:
        """Note that a collection has so much more, or less; raises what `require` raises."""
        with transaction(self._engine, durable=False) as connection:
            if require is not None:
                self._require(connection, manifest, more, require)
            connection.execute(_GROW, {"id": manifest.id, "chunks": more.chunks, "bytes": more.bytes})

    def stored(self, project: str) -> Size:
        """What a project has, vectors included, as far as it is measured."""
        with self._engine.connect() as connection:
            return self._stored(connection, project)

    def require(self, manifest: Manifest, more: Size, require: Require) -> None:
        """Raises what `require` raises of so much more."""
        with self._engine.connect() as connection:
            self._require(connection, manifest, more, require)

    def _require(self, connection: Connection, manifest: Manifest, more: Size, require: Require) -> None:
        if connection.dialect.name == "postgresql":  # one stores at a time, or the limit could be passed
            lock = func.pg_advisory_xact_lock(func.hashtextextended(f"stored by {manifest.project}", 0))
            connection.execute(select(lock))
        vectors = more.chunks * DIMENSION * manifest.dimension
        require(self._stored(connection, manifest.project), more.more(Size(0, vectors)))

    def _stored(self, connection: Connection, project: str) -> Size:
        chunks = table.c.stored_chunks
        vectors = chunks * DIMENSION * table.c.dimension
        query = select(func.sum(chunks), func.sum(table.c.stored_bytes + vectors))
        row = connection.execute(query.where(table.c.project == project)).one()
        return Size(*(int(one or 0) for one in row))

    # Models

    def model_id(self, made_by: Fingerprint) -> str:
        """The id of a model's fingerprint, which is kept if it is new."""
        dimension = 0 if made_by.vectors is None else made_by.vectors.shape[1]
        with self._engine.connect() as connection:
            for row in connection.execute(select(models).where(models.c.dimension == dimension)):
                if Fingerprint.from_json(json.loads(row.fingerprint)).agrees(made_by):
                    return str(row.id)
        told = made_by.to_json()
        of = json.dumps([made_by.key, made_by.query, made_by.passage])
        name = hashlib.blake2b(of.encode(), digest_size=16).hexdigest()
        with suppress(IntegrityError), transaction(self._engine) as connection:  # another process was faster
            new = {"id": name, "dimension": dimension, "fingerprint": json.dumps(told)}
            connection.execute(insert(models).values(new))
        return name

    def model(self, model_id: str) -> Fingerprint:
        with self._engine.connect() as connection:
            kept = connection.execute(select(models.c.fingerprint).where(models.c.id == model_id))
            return Fingerprint.from_json(json.loads(kept.scalar_one()))

    def note_model(self, manifest: Manifest) -> None:
        """Store which model made a collection's vectors, unless the collection was exchanged meanwhile."""
        values = {"embedding_model": manifest.embedding_model, "made_by": manifest.made_by}
        with transaction(self._engine) as connection:
            connection.execute(update(table).where(_is(manifest)).values(values))

    def swap(self, old: Manifest, new: Manifest, *, frozen: bool) -> None:
        """Another physical collection, which was begun, in place of the old one, which is an orphan from now on.

        Raises Conflict if another process was faster, or if it has to be `frozen` and is not any more.
        """
        still = _is(old) & _frozen(time.time()) if frozen else _is(old)
        with transaction(self._engine) as connection:
            values = {**asdict(new), "frozen": 0.0, "documents": None, "chunks": None}
            del values["indexes"]  # which may have changed meanwhile
            if connection.execute(update(table).where(still).values(values)).rowcount != 1:
                raise exchanged(old.called)
            connection.execute(delete(orphans).where(orphans.c.physical == new.physical_collection.id))
            connection.execute(self._as_orphan(old.physical_collection.id, old.engine))

    def index(self, manifest: Manifest, changes: Mapping[str, FieldType | None]) -> dict[str, FieldType]:
        """Note changed indexes of metadata fields, None for one that goes; returns all there are now.

        Raises Conflict if another process was faster.
        """
        mine = table.c.id == manifest.id
        with transaction(self._engine) as connection:
            row = connection.execute(select(table.c.indexes).where(mine).with_for_update()).first()
            if row is None:
                raise exchanged(manifest.called)
            both = {**row.indexes, **changes}
            all_now = {name: kind for name, kind in both.items() if kind is not None}
            connection.execute(update(table).where(mine).values(indexes=all_now))
        return all_now

    def delete(self, manifest: Manifest) -> None:
        """A collection is deleted; its physical one is an orphan now. Raises Conflict if another process was faster."""
        with transaction(self._engine) as connection:
            if connection.execute(delete(table).where(_is(manifest))).rowcount != 1:
                raise exchanged(manifest.called)
            shares.end(connection, manifest.qualified)
            connection.execute(self._as_orphan(manifest.physical_collection.id, manifest.engine))

    def _as_orphan(self, physical_id: str, engine: str, job: str = "") -> Insert:
        return insert(orphans).values(physical=physical_id, engine=engine, holder=self._holder, job=job)


# Each write of a batch comes here: as SQL, it takes a third of what putting it together does.
_GROW = text(
    "UPDATE collections SET "
    "stored_chunks = CASE WHEN stored_chunks + :chunks < 0 THEN 0 ELSE stored_chunks + :chunks END, "
    "stored_bytes = CASE WHEN stored_bytes + :bytes < 0 THEN 0 ELSE stored_bytes + :bytes END WHERE id = :id"
)


def _columns(size: Size | None) -> dict[str, Any]:
    return {} if size is None else {"stored_chunks": size.chunks, "stored_bytes": size.bytes}


def moved(manifest: Manifest, engine: str, **changes: Any) -> Manifest:
    """The manifest with a new physical collection in that engine."""
    return replace(manifest, physical=str(uuid.uuid4()), engine=engine, **changes)
