"""Manifests: rows of the SQL database that tell what each collection is made with and which physical collection it is in."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Mapping, Sequence
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
    Row,
    Select,
    String,
    Table,
    Text,
    UpdateBase,
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
from ...access.room import Require, Size
from ...clock import CLOCK_SECONDS
from ...engines.bm25 import NAME as BM25
from ...engines.bm25 import EnglishOfEdge
from ...engines.indexes import FieldType
from ...engines.interface import Layout, Physical
from ...errors import Conflict
from ...inference.fingerprint import Fingerprint
from ...storage import kept
from ...storage.database import transaction
from ...storage.schema import metadata

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
"""`documents` and `chunks` are null while a collection may be written to, and after a kill; then its index is counted.

`stored_chunks` and `stored_bytes` (access/room.py) are null in collections of earlier versions, until they are measured.
"""

orphans = Table(
    "loose_collections",
    metadata,
    Column("physical", String(36), primary_key=True),
    Column("engine", String(16), nullable=False),
    Column("holder", String(64), nullable=False, server_default=""),
    Column("job", String(36), nullable=False, server_default=""),
)
"""Physical collections that no manifest names: unfinished, or replaced and not removed yet.

The process `holder` removes them. One of a `job` is kept until that job has ended, and then removed by any process.
"""

models = Table(
    "embedding_models",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("dimension", Integer, nullable=False),  # 0 for embedded models, which are identified by a hash
    Column("fingerprint", Text, nullable=False),
)
"""Fingerprints of embedding models, each once, by whatever names the model is called."""

FREEZE = 60.0
"""Seconds after which a freeze ends if the process that exchanges the collection is killed."""
DIMENSION = 4
"""Bytes of one dimension of a vector."""


@dataclass(frozen=True)
class Manifest:
    """What a collection is made with. A reindex changes the models and what depends on them.

    `id` never changes. `physical` is the id of its physical collection in `engine`, and changes with each rebuild
    (None: it is `id`). `indexed` is the number of chunks in the graph for approximate search. `indexes` are those of
    metadata fields. `made_by` is the id of the embedding model's fingerprint (table `embedding_models`); collections of
    earlier versions have only the model's name.
    """

    project: str
    name: str
    """Its name within the project."""
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
    """Engine options that the caller gave when creating it."""
    made_with: dict[str, Any] = field(default_factory=dict)
    """Engine options of its physical collection: those given, and the settings when that was made."""
    made_by: str | None = None
    parser: str | None = None
    """The project's own node parser that splits its documents; None for ours."""

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
        """What callers see: everything except where it is stored."""
        shown = {name: getattr(self, name) for name in _PUBLIC}
        return {**shown, "name": self.called, "engine": self.made_with}


_PUBLIC = [
    one.name
    for one in fields(Manifest)
    if one.name not in ("project", "id", "engine", "physical", "indexed", "options", "made_with", "made_by")
]
_SHOWN = [table.c[one.name] for one in fields(Manifest)]


def _is(manifest: Manifest) -> ColumnElement[bool]:
    """Return a condition for the collection's row, if it still is in the manifest's physical collection."""
    return (table.c.id == manifest.id) & (
        func.coalesce(table.c.physical, table.c.id) == manifest.physical_collection.id
    )


def _frozen(moment: float) -> ColumnElement[bool]:
    """Return a condition that a collection is frozen now. A freeze too far ahead is ignored: a clock was set back."""
    return table.c.frozen.between(moment, moment + FREEZE + CLOCK_SECONDS)


def called(name: QualifiedName) -> str:
    """Return a collection's name as the current caller writes it."""
    return name.shown_to(tracing.current().caller)


def exchanged(name: str) -> Conflict:
    return Conflict(
        f"collection {name!r} was deleted or reindexed by another process meanwhile: try again",
        details={"collection": name},
    )


def made_otherwise(manifest: Manifest, was: Fingerprint | None, now: Fingerprint) -> Conflict:
    """Return the error for a model whose vectors cannot be compared with the collection's."""
    name, made_with = manifest.called, manifest.embedding_model
    if was is not None and was.same_vectors(now):
        what = (
            f"was embedded with the prompts {was.query!r} (query) and {was.passage!r} (passage), and now they are "
            f"{now.query!r} and {now.passage!r} (EMBEDDING_QUERY_PREFIX, EMBEDDING_PASSAGE_PREFIX): set those again"
        )
    elif made_with == now.model:
        what = (
            f"was embedded by {made_with!r}, and the model now, also called {now.model!r}, makes other vectors: serve "
            "the former model again"
        )
    else:
        what = (
            f"was embedded by {made_with!r}, and the model now is {now.model!r}: set the former model again"
        )
    return Conflict(
        f"collection {name!r} {what}, or embed its texts anew by reindex_collection({name!r}); until then, "
        'mode="sparse" searches it by words',
        details={"collection": name, "made_with": made_with, "model": now.model},
    )


def taken(name: str) -> Conflict:
    message = f"there is a collection {name!r} already: give another name by collection=…, or delete it first"
    return Conflict(message, details={"collection": name})


class Manifests:
    """Reads and writes the rows. Each method blocks and is one transaction."""

    def __init__(self, engine: Engine, holder: str) -> None:
        """`holder` names this process among those that share the database, and stays the same after a restart."""
        self._engine = engine
        self._holder = holder

    def _rows(self, query: Select[Any]) -> Sequence[Row[Any]]:
        with self._engine.connect() as connection:
            return connection.execute(query).all()

    def _change(self, statement: UpdateBase, *, durable: bool = True) -> int:
        """Execute one statement as a transaction; return how many rows it changed."""
        with transaction(self._engine, durable=durable) as connection:
            return connection.execute(statement).rowcount

    def all(self) -> list[Manifest]:
        return [Manifest(**row._mapping) for row in self._rows(select(*_SHOWN))]

    def find(self, name: QualifiedName) -> tuple[Manifest | None, bool]:
        """Return a collection's current manifest (None if there is none), and whether the collection is frozen."""
        query = select(*_SHOWN, _frozen(time.time()).label("frozen")).where(
            table.c.project == name.project, table.c.name == name.name
        )
        row = next(iter(self._rows(query)), None)
        if row is None:
            return None, False
        *shown, frozen = tuple(row)
        return Manifest(*shown), bool(frozen)

    def freeze(self, manifest: Manifest, *, longer: bool = False) -> None:
        """Keep other processes from writing for FREEZE seconds, or extend a freeze by that (`longer`).

        Raises Conflict if it is frozen already, or with `longer`, not any more, or if it was exchanged or deleted.
        """
        moment = time.time()
        which = _is(manifest) & (_frozen(moment) if longer else ~_frozen(moment))
        if self._change(update(table).where(which).values(frozen=moment + FREEZE)) != 1:
            raise exchanged(manifest.called)

    def thaw(self, manifest: Manifest) -> None:
        self._change(update(table).where(_is(manifest)).values(frozen=0.0))

    def orphans(self) -> list[tuple[str, str]]:
        """Return `(physical id, engine)` of each orphan that this process has to remove."""
        mine = select(orphans).where(orphans.c.holder.in_(["", self._holder]), orphans.c.job == "")
        return [(row.physical, row.engine) for row in self._rows(mine)]

    def left_by_jobs(self) -> list[tuple[str, str, str]]:
        """Return `(physical id, engine, job id)` of each orphan that a job keeps for its next attempt."""
        left = self._rows(select(orphans).where(orphans.c.job != ""))
        return [(row.physical, row.engine, row.job) for row in left]

    def begin(self, physical_id: str, engine: str, job: str = "") -> None:
        """Note an orphan, before its physical collection is made."""
        self._change(self._as_orphan(physical_id, engine, job))

    def removed(self, physical_id: str) -> None:
        """Forget an orphan whose physical collection was removed."""
        self._change(delete(orphans).where(orphans.c.physical == physical_id))

    def counts(self) -> dict[str, tuple[int, int]]:
        """Return the numbers of documents and chunks of closed collections, by collection id."""
        closed = select(table.c.id, table.c.documents, table.c.chunks).where(table.c.documents.is_not(None))
        return {row.id: (row.documents, row.chunks) for row in self._rows(closed)}

    def note_counts(self, manifest: Manifest, counts: tuple[int, int] | None) -> None:
        """Store the counts when a collection is closed, or (None) forget them before it is written to."""
        documents, chunks = counts or (None, None)
        self._change(update(table).where(_is(manifest)).values(documents=documents, chunks=chunks))

    def insert(
        self,
        manifest: Manifest,
        counts: tuple[int, int] | None = None,
        size: Size | None = None,
        require: Require | None = None,
    ) -> None:
        """Insert a collection, with what it contains; its physical collection, so far an orphan, is one no more.

        Raises Conflict if another process has made a collection of that name first, and what `require` raises.
        """
        documents, chunks = counts or (None, None)
        try:
            with transaction(self._engine) as connection:
                connection.execute(
                    delete(orphans).where(orphans.c.physical == manifest.physical_collection.id)
                )
                if require is not None and size is not None:
                    self._require(connection, manifest, size, require)
                contains = {"documents": documents, "chunks": chunks, **_columns(size)}
                connection.execute(insert(table).values({**asdict(manifest), **contains}))
        except IntegrityError as error:
            raise taken(manifest.called) from error

    # What projects have stored

    def size(self, manifest: Manifest) -> Size | None:
        """Return the collection's stored size; None if it was not measured yet."""
        query = select(table.c.stored_chunks, table.c.stored_bytes).where(table.c.id == manifest.id)
        row = next(iter(self._rows(query)), None)
        return None if row is None or row.stored_bytes is None else Size(*row)

    def unmeasured(self, project: str) -> list[QualifiedName]:
        query = select(table.c.name).where(table.c.project == project, table.c.stored_bytes.is_(None))
        return [QualifiedName(project, name) for (name,) in self._rows(query)]

    def measured(self, manifest: Manifest, size: Size) -> None:
        self._change(update(table).where(table.c.id == manifest.id).values(_columns(size)), durable=False)

    def grow(self, manifest: Manifest, more: Size, require: Require | None = None) -> None:
        """Add to a collection's size (or subtract: `more` may be negative). Raises what `require` raises."""
        with transaction(self._engine, durable=False) as connection:
            if require is not None:
                self._require(connection, manifest, more, require)
            connection.execute(_GROW, {"id": manifest.id, "chunks": more.chunks, "bytes": more.bytes})

    def stored(self, project: str) -> Size:
        """Return how much a project stores, including vectors, as far as its collections are measured."""
        with self._engine.connect() as connection:
            return self._stored(connection, project)

    def require(self, manifest: Manifest, more: Size, require: Require) -> None:
        """Call `require` with what the project stores and so much more; raises what that raises."""
        with self._engine.connect() as connection:
            self._require(connection, manifest, more, require)

    def _require(self, connection: Connection, manifest: Manifest, more: Size, require: Require) -> None:
        kept.lock(connection, manifest.project)
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
        """Return the id of a model's fingerprint, and store it if it is new."""
        dimension = 0 if made_by.vectors is None else made_by.vectors.shape[1]
        for row in self._rows(select(models).where(models.c.dimension == dimension)):
            if Fingerprint.from_json(json.loads(row.fingerprint)).agrees(made_by):
                return str(row.id)
        told = made_by.to_json()
        of = json.dumps([made_by.key, made_by.query, made_by.passage])
        name = hashlib.blake2b(of.encode(), digest_size=16).hexdigest()
        new = {"id": name, "dimension": dimension, "fingerprint": json.dumps(told)}
        with suppress(IntegrityError):  # another process was faster
            self._change(insert(models).values(new))
        return name

    def model(self, model_id: str) -> Fingerprint:
        ((told,),) = self._rows(select(models.c.fingerprint).where(models.c.id == model_id))
        return Fingerprint.from_json(json.loads(told))

    def note_model(self, manifest: Manifest) -> None:
        """Store which model made a collection's vectors, unless the collection was exchanged meanwhile."""
        values = {"embedding_model": manifest.embedding_model, "made_by": manifest.made_by}
        self._change(update(table).where(_is(manifest)).values(values))

    def swap(self, old: Manifest, new: Manifest, *, frozen: bool) -> None:
        """Replace a collection's physical collection by another, so far an orphan; the old one becomes an orphan.

        Raises Conflict if another process was faster, or with `frozen`, if the collection is not frozen any more.
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
        """Store changed indexes of metadata fields (None removes one); return all indexes after the change.

        Raises Conflict if the collection was deleted.
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
        """Delete a collection; its physical collection becomes an orphan. Raises Conflict if another process was faster."""
        with transaction(self._engine) as connection:
            if connection.execute(delete(table).where(_is(manifest))).rowcount != 1:
                raise exchanged(manifest.called)
            shares.end(connection, manifest.qualified)
            connection.execute(self._as_orphan(manifest.physical_collection.id, manifest.engine))

    def _as_orphan(self, physical_id: str, engine: str, job: str = "") -> Insert:
        return insert(orphans).values(physical=physical_id, engine=engine, holder=self._holder, job=job)


# Every write of a batch runs this: as text, it takes a third of the time that SQLAlchemy takes to build it.
_GROW = text(
    "UPDATE collections SET "
    "stored_chunks = CASE WHEN stored_chunks + :chunks < 0 THEN 0 ELSE stored_chunks + :chunks END, "
    "stored_bytes = CASE WHEN stored_bytes + :bytes < 0 THEN 0 ELSE stored_bytes + :bytes END WHERE id = :id"
)


def _columns(size: Size | None) -> dict[str, Any]:
    return {} if size is None else {"stored_chunks": size.chunks, "stored_bytes": size.bytes}


def moved(manifest: Manifest, engine: str, **changes: Any) -> Manifest:
    """Return the manifest with a new physical collection id in that engine, and other changes."""
    return replace(manifest, physical=str(uuid.uuid4()), engine=engine, **changes)
