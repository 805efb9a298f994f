"""Collections: a manifest each in the database, an index each in the vector engine, opened when first used."""

from __future__ import annotations

import asyncio
import shutil
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from anyio import CancelScope, to_thread
from sqlalchemy import Column, Engine, Integer, String, Table, delete, insert, select

from ..database import metadata
from ..errors import Conflict, InvalidRequest, NotFound
from ..inference.embeddings import Embedder
from .chunking import DEFAULT_OVERLAP, DEFAULT_SIZE
from .vectors import VectorIndex

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
)

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Manifest:
    """What a collection was made with; fixed for its life."""

    name: str
    id: str
    embedding_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    created_at: str


@dataclass
class Collection:
    """An open collection."""

    manifest: Manifest
    index: VectorIndex
    closed: bool = False
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    _at_work: set[asyncio.Future[None]] = field(default_factory=set)

    async def run(self, method: Callable[..., _Result], *args: Any) -> _Result:
        """One of the index's methods, in a thread; raises NotFound if the collection was deleted meanwhile."""
        if self.closed:
            raise missing(self.manifest.name)
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._at_work.add(ended)
        try:
            return await to_thread.run_sync(lambda: method(*args))
        finally:
            self._at_work.discard(ended)
            ended.set_result(None)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Held while a batch is written; raises NotFound if the collection was deleted meanwhile."""
        async with self._writing:
            if self.closed:
                raise missing(self.manifest.name)
            yield

    async def close(self) -> None:
        async with self.writing():
            self.closed = True
            if self._at_work:  # an engine is not closed under the hands of those who still read
                await asyncio.wait(self._at_work)
            await to_thread.run_sync(self.index.close)


def missing(name: str) -> NotFound:
    return NotFound(
        f"no collection {name!r}: ingest documents into it, or create it", details={"collection": name}
    )


class Collections:
    """All collections of one data directory."""

    def __init__(self, engine: Engine, folder: Path, embedder: Embedder) -> None:
        self._engine = engine
        self._folder = folder
        self._embedder = embedder
        self._open: dict[str, Collection] = {}
        self._changing = asyncio.Lock()
        self._finish_deletions()
        # Read once: the data directory is this process's, so nobody else changes them.
        self._manifests = {manifest.name: manifest for manifest in self._all()}

    async def create(self, name: str, chunk_size: int | None, chunk_overlap: int | None) -> Collection:
        """A new, empty collection; raises Conflict if there is one of that name."""
        size = chunk_size or DEFAULT_SIZE
        overlap = min(DEFAULT_OVERLAP, size // 4) if chunk_overlap is None else chunk_overlap
        if overlap >= size:
            raise InvalidRequest(f"chunk_overlap ({overlap}) must be smaller than chunk_size ({size})")
        from .qdrant_edge import EdgeIndex

        async with self._changing:
            if name in self._manifests:
                raise Conflict(f"there is a collection {name!r} already", details={"collection": name})
            sample = (await self._embedder.embed(["a text, to learn the dimension"])).values
            manifest = Manifest(
                name=name,
                id=str(uuid.uuid4()),
                embedding_model=self._embedder.name,
                dimension=int(sample.shape[1]),
                chunk_size=size,
                chunk_overlap=overlap,
                created_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
            # The index first: a kill in between leaves an empty folder, never a manifest without an index.
            await to_thread.run_sync(EdgeIndex.create, self._folder / manifest.id, manifest.dimension)
            await to_thread.run_sync(self._insert, manifest)
            self._manifests[name] = manifest
            self._open[name] = collection = await self._opened(manifest)
        return collection

    async def open(self, name: str) -> Collection:
        """The collection of that name, whatever made its vectors; raises NotFound."""
        if name not in self._open:
            async with self._changing:
                if name not in self._manifests:
                    raise missing(name)
                if name not in self._open:
                    self._open[name] = await self._opened(self._manifests[name])
        return self._open[name]

    async def get(self, name: str) -> Collection:
        """As `open`, to embed for it; raises Conflict, too, if another model made its vectors."""
        collection = await self.open(name)
        made_with = collection.manifest.embedding_model
        if made_with != self._embedder.name:
            raise Conflict(
                f"collection {name!r} was embedded by {made_with!r} and the model now is "
                f"{self._embedder.name!r}: set that model again, or delete the collection and ingest anew",
                details={"collection": name, "made_with": made_with},
            )
        return collection

    async def get_or_create(self, name: str, chunk_size: int | None, chunk_overlap: int | None) -> Collection:
        """As `get`, making it first if need be; raises Conflict if it was made with another chunking."""
        if name not in self._manifests:
            try:
                return await self.create(name, chunk_size, chunk_overlap)
            except Conflict:
                pass  # somebody else made it meanwhile
        collection = await self.get(name)
        made = collection.manifest
        for what, asked, is_now in (
            ("chunk_size", chunk_size, made.chunk_size),
            ("chunk_overlap", chunk_overlap, made.chunk_overlap),
        ):
            if asked is not None and asked != is_now:
                raise Conflict(
                    f"collection {name!r} was made with {what} {is_now}, not {asked}: leave it out, "
                    "or delete the collection and ingest anew",
                    details={"collection": name, what: is_now},
                )
        return collection

    def names(self) -> list[str]:
        return sorted(self._manifests)

    async def delete(self, name: str) -> int:
        """Remove a collection; returns how many documents it had. Raises NotFound."""
        collection = await self.open(name)
        async with self._changing:
            documents, _ = await collection.run(collection.index.count)
            with CancelScope(shield=True):
                await collection.close()
                del self._manifests[name], self._open[name]
                await to_thread.run_sync(self._delete, collection.manifest.id)
        return documents

    async def close(self) -> None:
        for collection in self._open.values():
            await collection.close()
        self._open.clear()

    async def _opened(self, manifest: Manifest) -> Collection:
        from .qdrant_edge import EdgeIndex

        return Collection(manifest, await to_thread.run_sync(EdgeIndex, self._folder / manifest.id))

    # What follows blocks, and runs in threads.

    def _all(self) -> list[Manifest]:
        with self._engine.connect() as connection:
            rows = connection.execute(select(table)).mappings()
            return [Manifest(**row) for row in rows]

    def _insert(self, manifest: Manifest) -> None:
        with self._engine.begin() as connection:
            connection.execute(insert(table).values(**manifest.__dict__))

    def _delete(self, collection_id: str) -> None:
        # Renaming is the point of no return; what a kill leaves after it, _finish_deletions completes.
        folder = self._folder / collection_id
        doomed = folder.with_suffix(".deleted")
        folder.rename(doomed)
        self._forget(doomed)

    def _forget(self, doomed: Path) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(table).where(table.c.id == doomed.stem))
        shutil.rmtree(doomed)

    def _finish_deletions(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        for doomed in self._folder.glob("*.deleted"):
            self._forget(doomed)
