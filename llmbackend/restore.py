"""Restores a backup into an empty data directory (and database, and Qdrant server), completely or not at all.

All rows are written last, in one transaction; collections without a row are removed at the next start, as after any
kill. If collections and jobs are in two databases, a file marks an unfinished restore.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path
from typing import Any

from anyio import CancelScope
from sqlalchemy import Connection, Engine, Table, delete, func, insert, select

from . import threads
from .access import keys, shares
from .backup import archive
from .backup.archive import Line
from .backup.unfinished import Unfinished
from .compose import vector_engines
from .disk import Disk
from .engines.interface import VectorEngine
from .errors import BackendError, Conflict
from .inference import factory
from .jobs import schedules, tables
from .knowledge.collections import manifests
from .knowledge.collections.collections import Collections
from .knowledge.collections.manifests import Manifest, moved
from .responses import store as responses
from .settings import Settings
from .storage import database, schema
from .storage.data_dir import DataDirLock

BATCH = 500  # chunks or rows at a time
ASIDE = {manifests.models.name, shares.table.name}
"""Tables in the database of collections, if that is separate from the jobs'."""

Tell = Callable[[str, int, int], None]


async def restore(file: Path, settings: Settings, tell: Tell) -> dict[str, int]:
    """Restore a backup; return the numbers of rows, collections and chunks.

    Raises InvalidRequest for a file that is not a complete backup, before anything is written, and Conflict if the target
    is not empty or the data directory is in use.
    """
    header, counts = await threads.files(archive.check, file, lambda done: tell("check", done, 0))
    async with AsyncExitStack() as opened:
        data_dir = await threads.files(DataDirLock, settings.data_dir)
        opened.callback(data_dir.release)
        databases: list[Engine] = []
        for where in settings.databases:
            databases.append(await threads.database(database.connect, where))
            opened.callback(databases[-1].dispose)
        unfinished = Unfinished(settings.data_dir)
        if unfinished.there:
            for engine in databases:
                await threads.database(_emptied, engine, data_dir.name)
        for engine in databases:
            await threads.database(_require_empty, engine, settings)
        disk = Disk.of(settings.data_dir, settings.disk_reserve_mb)
        embedder, _ = factory.embedders(settings, disk)
        opened.push_async_callback(embedder.close)
        edge, server = vector_engines(settings, data_dir.name, disk)
        engines: list[VectorEngine] = [server, edge] if server else [edge]
        collections = Collections(databases[-1], engines, embedder, data_dir.name)
        opened.push_async_callback(collections.close)
        await collections.physical.tidy()
        unfinished.begin()
        lines = archive.read(file)
        next(lines)
        restoring = _Restoring(collections, {header["data_dir"]: data_dir.name}, tell, counts)
        try:
            await restoring.take(lines)
        except BaseException:
            with CancelScope(shield=True):
                await collections.physical.tidy()
            unfinished.end()
            raise
        await threads.database(_store, databases, file, restoring)
        unfinished.end()
    return {name: counts[name] for name in ("rows", "collections", "chunks")}


class _Restoring:
    """Fills collections, which are invisible until their rows are stored."""

    def __init__(
        self, collections: Collections, renamed: dict[str, str], tell: Tell, counts: Counter[str]
    ) -> None:
        self.restored: list[tuple[Manifest, tuple[int, int]]] = []
        """The restored collections, with their numbers of documents and chunks."""
        self.renamed = renamed
        """Maps the data directory's old name to its new one, because jobs are bound to it."""
        self._collections = collections
        self._tell = tell
        self._counts = counts
        self._done = 0

    async def take(self, lines: Iterator[Line]) -> None:
        line = await threads.files(self._next_collection, lines)
        while line is not None:
            line = await self._fill(Manifest(**archive.values(line["collection"])), lines)

    def _next_collection(self, lines: Iterator[Line]) -> Line | None:
        return next((line for line in lines if "collection" in line), None)

    async def _fill(self, was: Manifest, lines: Iterator[Line]) -> Line | None:
        """Fill one collection; return the line after its chunks."""
        engine = self._collections.physical.default
        made_with = self._collections.made_with(was.options)
        manifest = moved(was, engine.name, indexed=0, made_with=made_with)
        await self._collections.physical.make(manifest)
        index = await self._collections.physical.open(manifest)
        documents: set[str] = set()
        chunks = 0
        try:
            while True:
                some, after = await threads.files(_chunks, lines)
                if some:
                    await index.threads(_upsert, index, some)
                    documents.update(line["chunk"][0] for line in some)
                    chunks += len(some)
                    self._done += len(some)
                    self._tell(manifest.called, self._done, self._counts["chunks"])
                if after is not None or len(some) < BATCH:
                    break
            await index.threads(index.flush)
            if (found := await index.threads(index.count)) != (len(documents), chunks):
                raise BackendError(
                    f"collection {manifest.called!r} was not restored: it has {found[1]} of {chunks} chunks",
                    details={"collection": manifest.called},
                )
        finally:
            await index.threads(index.close)
        self.restored.append((manifest, found))
        return after


def _chunks(lines: Iterator[Line]) -> tuple[list[Line], Line | None]:
    """Return the next chunks of a collection, and the line after them."""
    some: list[Line] = []
    for line in lines:
        if "chunk" not in line:
            return some, line
        some.append(line)
        if len(some) == BATCH:
            break
    return some, None


def _upsert(index: Any, some: list[Line]) -> None:
    import numpy as np

    chunks, vectors = zip(*map(archive.chunk_of, some), strict=True)
    index.upsert(list(chunks), np.stack(vectors))


# The functions below block.


def _require_empty(engine: Engine, settings: Settings) -> None:
    with engine.connect() as connection:
        for table in (manifests.table, tables.jobs, schedules.table, keys.table, responses.table):
            if connection.execute(select(table).limit(1)).first() is not None:
                raise Conflict(
                    f"DATA_DIR {settings.data_dir}, or its DATABASE_URL, is in use (there are rows in {table.name}): "
                    "restore into new ones",
                    details={"data_dir": str(settings.data_dir), "table": table.name},
                )


def _emptied(engine: Engine, holder: str) -> None:
    """Remove what an interrupted restore has stored."""
    with database.transaction(engine) as connection:
        for row in connection.execute(select(manifests.table)).all():
            orphan = {"physical": row.physical or row.id, "engine": row.engine, "holder": holder}
            connection.execute(insert(manifests.orphans).values(orphan))
        for table in reversed(_tables()):
            connection.execute(delete(table))


def _tables() -> list[Table]:
    return [
        table
        for table in schema.metadata.sorted_tables
        if table.name not in (schema.VERSION_TABLE, manifests.orphans.name)
    ]


def _store(databases: list[Engine], file: Path, restoring: _Restoring) -> None:
    with ExitStack() as stack:
        opened = [stack.enter_context(database.transaction(engine)) for engine in databases]
        of_collections = opened[-1]
        for connection in opened:  # the counts are those of an earlier process
            for each in reversed(_tables()):
                connection.execute(delete(each))
        rows = (line for line in archive.read(file) if "row" in line)
        for (table, number), some in groupby(rows, key=itemgetter("table", "database")):
            into = of_collections if table in ASIDE else opened[min(number, len(opened) - 1)]
            stored = (
                {
                    name: restoring.renamed.get(value, value) if isinstance(value, str) else value
                    for name, value in row.items()
                }
                for row in (archive.values(line["row"]) for line in some)
            )
            while batch := list(islice(stored, BATCH)):
                into.execute(insert(schema.metadata.tables[table]), batch)
        for manifest, (documents, chunks) in restoring.restored:
            physical, counts = manifest.physical_collection.id, {"documents": documents, "chunks": chunks}
            of_collections.execute(delete(manifests.orphans).where(manifests.orphans.c.physical == physical))
            of_collections.execute(insert(manifests.table).values(asdict(manifest) | counts))
        for connection in opened:
            _count_on(connection)


def _count_on(connection: Connection) -> None:
    """Advance PostgreSQL's sequences, which rows with explicit numbers do not."""
    if connection.dialect.name == "postgresql":
        for table in _tables():
            column = table.autoincrement_column
            if column is not None and (last := connection.scalar(select(func.max(column)))) is not None:
                sequence = func.pg_get_serial_sequence(table.name, column.name)
                connection.execute(select(func.setval(sequence, last)))
