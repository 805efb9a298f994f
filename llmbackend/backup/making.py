"""Makes backups while everything keeps running: the database as of one moment, then each collection between
two writes to it.

The database comes first, so that a job that is unfinished in it is continued after a restore, and finds what
it had stored. A collection's part contains everything that was acknowledged when the backup began.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, select

from .. import threads
from ..access.names import QualifiedName
from ..clock import stamp
from ..disk import Disk
from ..errors import Conflict, LLMBackendError, NotFound
from ..knowledge.collections import manifests
from ..knowledge.collections.collections import Collections
from ..storage import schema
from .archive import SUFFIX, UNFINISHED, Writer

PAGE = 500  # chunks read at once
TRIES = 3
"""How often a collection is read if other processes write to it meanwhile."""
LEFT_OUT = {manifests.table.name, manifests.orphans.name, schema.VERSION_TABLE}
"""Tables whose rows are not written, because collections are written one by one."""

Progress = Callable[[int, int, str], None]


class Backups:
    """Makes the backups of one data directory, in a folder."""

    def __init__(
        self,
        collections: Collections,
        databases: Sequence[Engine],
        folder: Path,
        reserve_mb: int | None,
        name: str,
    ) -> None:
        """`databases` are that of jobs and that of collections, which may be the same; `name` is the data
        directory's."""
        self._collections = collections
        self._databases = list(dict.fromkeys(databases))
        self._folder = folder
        self._reserve_mb = reserve_mb
        self._name = name
        self._making = asyncio.Lock()

    async def make(self, job_id: str, keep: int | None, progress: Progress) -> dict[str, Any]:
        """Make a backup, and keep only the newest `keep`; return `{file, bytes, rows, collections, chunks,
        left_out}`."""
        async with self._making:
            writer = await threads.files(self._begun)
            try:
                await threads.database(self._write_databases, writer, job_id)
                left_out = await self._write_collections(writer, progress)
                size = await threads.files(writer.finish)
            except BaseException:
                writer.drop()
                raise
            if keep is not None:
                await threads.files(self._remove_all_but, keep)
        counted = {name: writer.counts[name] for name in ("rows", "collections", "chunks")}
        return {"file": str(writer.file), "bytes": size, **counted, "left_out": left_out}

    def _begun(self) -> Writer:
        self._folder.mkdir(parents=True, exist_ok=True)
        for left in self._folder.glob(f"*{SUFFIX}{UNFINISHED}"):  # left by a killed process
            with suppress(OSError):
                left.unlink()
        now = datetime.now(UTC)
        file = self._folder / f"{now:%Y%m%dT%H%M%S.%f}Z{SUFFIX}"
        about = {"made_at": now.isoformat(), "data_dir": self._name}
        return Writer(file, Disk.of(self._folder, self._reserve_mb), about)

    def _remove_all_but(self, keep: int) -> None:
        for old in sorted(self._folder.glob(f"*Z{SUFFIX}"))[:-keep]:
            with suppress(OSError):
                old.unlink()

    def _write_databases(self, writer: Writer, job_id: str) -> None:
        for number, engine in enumerate(self._databases):
            options = {"isolation_level": "REPEATABLE READ"} if engine.dialect.name == "postgresql" else {}
            with engine.connect().execution_options(**options, yield_per=500) as connection:
                for table in schema.metadata.sorted_tables:
                    if table.name not in LEFT_OUT:
                        found = connection.execute(select(table)).mappings()
                        writer.rows(table.name, number, _ended(found, job_id))

    async def _write_collections(self, writer: Writer, progress: Progress) -> list[dict[str, str]]:
        left_out: list[dict[str, str]] = []
        await self._collections.learn()
        names = self._collections.names()
        for number, name in enumerate(names):
            progress(number, len(names), manifests.called(name))
            try:
                await self._write(writer, name)
            except NotFound:
                continue  # deleted meanwhile
            except LLMBackendError as error:  # a damaged collection must not keep the others from being saved
                left_out.append({"collection": manifests.called(name), "error": error.message})
        progress(len(names), len(names), "done")
        return left_out

    async def _write(self, writer: Writer, name: QualifiedName) -> None:
        collection = await self._collections.get(name)
        for _ in range(TRIES):
            async with collection.writing():
                begins = await threads.files(writer.collection, asdict(collection.manifest))
                try:
                    came: Counter[tuple[str, str, int]] = Counter()
                    cursor: str | None = None
                    while True:
                        stored = await collection.read(PAGE, cursor)
                        await threads.processor(writer.chunks, stored)
                        came.update((chunk.document_id, chunk.hash, chunk.total) for chunk in stored.chunks)
                        if (cursor := stored.cursor) is None:
                            break
                    if len(came) == len({document for document, _, _ in came}) and all(
                        count == total for (_, _, total), count in came.items()
                    ):
                        return
                except BaseException:
                    writer.rewind(begins)
                    raise
                writer.rewind(begins)
        raise Conflict(
            f"other processes kept writing to collection {collection.name!r}: back it up when it is quieter"
        )


def _ended(rows: Iterator[Any] | Any, job_id: str) -> Iterator[Mapping[str, Any]]:
    """The rows, with the job that makes the backup already ended."""
    for row in rows:
        if row.get("id") == job_id and "lease" in row:
            yield {
                **row,
                "status": "cancelled",
                "finished_at": stamp(),
                "worker": None,
                "token": None,
                "lease": None,
            }
        else:
            yield row
