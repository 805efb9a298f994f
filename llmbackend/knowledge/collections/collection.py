"""A collection: search, read and write its documents. Its index is opened when first used, and may be exchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial, wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from ... import plugins, threads
from ...access.names import missing
from ...access.room import NOTHING, Require, Size
from ...chunks.own_parser import OwnParser
from ...engines.filters import Condition
from ...engines.indexes import FieldType, needed
from ...engines.interface import (
    Chunk,
    Found,
    Search,
    VectorIndex,
    damaged,
    gone,
)
from ...errors import BackendError, Conflict
from ...inference.fingerprint import AGREE, Fingerprint
from ...pipeline import paged
from .current_index import CollectionServices, CurrentIndex
from .manifests import Manifest, exchanged, made_otherwise
from .storing import Version, removed, size, store, to_its_end

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Params = ParamSpec("_Params")

SAMPLE = 8
"""Chunks that are read to find one with a vector that is not zero; a text without words has a zero vector."""


def _awaited(
    method: Callable[Concatenate[VectorIndex, _Params], _Result],
) -> Callable[Concatenate[Collection, _Params], Coroutine[Any, Any, _Result]]:
    """Make a VectorIndex method a coroutine method of Collection, which runs it in a thread."""
    name = method.__name__

    @wraps(method)
    async def call(self: Collection, /, *args: _Params.args, **options: _Params.kwargs) -> _Result:
        return await self._call(lambda index: getattr(index, name)(*args, **options))

    return call


class Collection(CurrentIndex):
    """One collection, open or not, in whichever physical collection it is now.

    Every method that uses the index opens it if needed. It raises NotFound if the collection was deleted meanwhile, and
    BackendError with `damaged` in its details if the index is damaged.
    """

    def __init__(
        self, manifest: Manifest, services: CollectionServices, counts: tuple[int, int] | None = None
    ) -> None:
        """`counts` are the numbers of documents and chunks from the database, valid until the next write."""
        super().__init__(manifest, services, counts)
        self.changed: set[str] | None = None
        """Ids of the documents written since a rebuild set this to an empty set; None without a rebuild."""
        self.read_ahead: int | None = None
        """The number of chunks that the judge has read ahead (retrieval/ahead.py)."""
        self._flushing = asyncio.Lock()
        self._writes = 0
        self._accepted: tuple[Manifest, Fingerprint] | None = None

    @property
    def chunking(self) -> tuple[int, int]:
        """The size and overlap of its chunks, in tokens."""
        return self.manifest.chunk_size, self.manifest.chunk_overlap

    @property
    def parser(self) -> OwnParser | None:
        """The project's own node parser that splits its documents, or None. Raises Conflict if it is not installed."""
        name = self.manifest.parser
        if name is None:
            return None
        if lacks := self.lacks_parser:
            raise Conflict(lacks, details={"collection": self.name, "parser": name})
        return OwnParser(plugins.NODE_PARSERS[name], self._services.plugin_seconds, *self.chunking)

    @property
    def lacks_parser(self) -> str | None:
        """Why its documents cannot be split, or None. It can still be searched."""
        name = self.manifest.parser
        if name is None or name in plugins.NODE_PARSERS:
            return None
        return f"collection {self.name!r} is split by the node parser {name!r}, which is not installed. {plugins.HOW}"

    @property
    def counts(self) -> tuple[int, int] | None:
        """The numbers of documents and chunks, if known without asking the index."""
        return self._counts

    # Reading

    async def search(self, asked: Search) -> list[Found]:
        """Return the `top_k` best chunks, best first; see `VectorIndex.search`."""
        return await self._call(lambda index: index.search(asked), lambda index: index.at_once(asked))

    lists = _awaited(VectorIndex.lists)
    chunks = _awaited(VectorIndex.chunks)
    documents = _awaited(VectorIndex.documents)
    passages = _awaited(VectorIndex.passages)
    read = _awaited(VectorIndex.read)
    ids = _awaited(VectorIndex.ids)
    there = _awaited(VectorIndex.there)
    known = _awaited(VectorIndex.known)
    stored = _awaited(VectorIndex.stored)
    lacks = _awaited(VectorIndex.lacks)

    async def count(self) -> tuple[int, int]:
        """Return the numbers of documents and chunks. Opens the index only if they are not known."""
        if self.closed:
            raise missing(self.name)
        if self._counts is not None:
            return self._counts
        writes = self._writes
        counts = await self._call(lambda index: index.count())
        if not (self.shared or self._writers) and writes == self._writes:
            self._counts = counts
        return counts

    async def counted(self) -> tuple[int, int] | None:
        """Return the counts as `count`, or None if that would open an index in this process, or the index is damaged."""
        if self._counts is None and not self.is_open and not self.shared:
            return None
        try:
            return await self.count()
        except BackendError as error:
            if damaged(error) or gone(error):
                return None
            raise

    # Writing

    async def require_room(self, characters: int) -> None:
        """Raise InsufficientStorage if chunks with so much text do not fit. Runs on the loop, which is faster than a thread."""
        await self._call(lambda index: index.require_room(characters), lambda index: True)

    async def upsert(
        self,
        versions: Sequence[Version],
        chunks: Sequence[Chunk],
        vectors: NDArray[np.float32],
        made_by: Fingerprint | None = None,
    ) -> int:
        """Store versions of documents in place of older ones; return how many documents were replaced.

        `chunks` are the chunks of all versions, each version's head last (see interface.py), and `vectors` has a row for
        each. After a failure nothing of them is stored; a cancelled call returns when all is written. Raises Conflict if
        the collection's vectors are by another model than `made_by`, and Overloaded if the project's storage is used up.
        """
        require = await self._services.storage_limits(self.manifest.project)
        async with self.writing():
            if made_by is not None:
                await self.accept(made_by, to_write=True)
            names = [name for name, _ in versions]
            note = partial(self._note_size, require)
            return await to_its_end(
                self._write(names, lambda index: store(index, versions, chunks, vectors, note))
            )

    async def delete(self, document_ids: Sequence[str], *, flush: bool = False) -> int:
        """Remove documents; return how many of them existed. A cancelled call returns when all are removed."""
        async with self.writing():
            work = partial(removed, document_ids=document_ids, note=self._note_size)
            deleted = await to_its_end(self._write(document_ids, work))
            if flush:
                await self.flush()
        return deleted

    async def flush(self) -> None:
        """Make everything written so far survive a power cut."""
        async with self._flushing:  # so that a second call waits until the first has ended
            if not self._unflushed:
                return
            self._unflushed = False
            try:
                await self._call(lambda index: index.flush())
            except BaseException:
                self._unflushed = True
                raise
        self._services.written.put(self)

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[None]:
        """Hold this around each write; writers take turns.

        Raises Conflict, before or after the block, if another process exchanges the collection: the write may be lost.
        """
        async with self._writing:
            if self.closed:
                raise missing(self.name)
            await self._require_unfrozen()
            before = self._exchanges
            yield
            await self._require_unfrozen()
            if self._exchanges != before:
                raise exchanged(self.name)

    def note(self, document_ids: Iterable[str]) -> None:
        """Note that these documents may have changed, for a rebuild under way."""
        if self.changed is not None:
            self.changed.update(document_ids)

    async def _write(self, document_ids: Sequence[str], work: Callable[[VectorIndex], _Result]) -> _Result:
        self.note(document_ids)
        self._writers += 1
        try:
            await self._ready()
            await self._measure()
            if self._counts_kept:
                await threads.database(self._services.manifests.note_counts, self.manifest, None)
                self._counts_kept = False
            self._counts = None
            self._writes += 1
            return await self._call(work)
        finally:
            self._writers -= 1
            self._counts, self._unflushed = None, True

    # How much it stores

    async def measure(self) -> None:
        """Make sure that the database knows how much the collection stores."""
        async with self.writing():
            await self._ready()
            await self._measure()

    async def _measure(self) -> None:
        """Called while `writing` is held."""
        if self._measured:
            return
        known = await threads.database(self._services.manifests.size, self.manifest)
        # In a shared collection, the counts may differ by what other processes are writing now.
        if known is None or (not self.shared and known.chunks != (await self.count())[1]):
            await self._count_anew()
        self._measured = True

    async def _count_anew(self) -> None:
        total = NOTHING
        async for page in paged(partial(self.passages, 1000)):
            total = total.more(size(page.heads))
        await threads.database(self._services.manifests.measured, self.manifest, total)

    def _note_size(self, require: Require | None, more: Size) -> None:
        """Add to the size that the database knows. Raises what `require` raises; blocks."""
        if more != NOTHING:
            self._services.manifests.grow(self.manifest, more, require)

    async def _require_unfrozen(self) -> None:
        if self.shared:
            await self.refresh()
            if self._frozen:
                raise exchanged(self.name)

    # Models and indexes of metadata fields

    async def accept(self, made_by: Fingerprint, *, to_write: bool = False) -> None:
        """Raise Conflict if another model made the collection's vectors. Before a write, learn the model if unknown."""
        known = self._accepted
        if known is None or known[0] is not self.manifest or known[1] is not made_by:
            await self._require_made_alike(made_by, to_write)
            if self.manifest.made_by is not None:
                self._accepted = self.manifest, made_by

    async def _require_made_alike(self, made_by: Fingerprint, to_write: bool) -> None:
        manifest, manifests = self.manifest, self._services.manifests
        if manifest.made_by is not None:
            was = await threads.database(manifests.model, manifest.made_by)
            if not was.agrees(made_by):
                raise made_otherwise(manifest, was, made_by)
            if manifest.embedding_model != made_by.model:
                log.warning(
                    "the embedding model of collection %r is now called %r instead of %r: its vectors are the same",
                    *(manifest.called, made_by.model, manifest.embedding_model),
                )
                await self._note_model(replace(manifest, embedding_model=made_by.model))
        elif manifest.embedding_model not in {made_by.model, *self._services.embedder.names}:
            raise made_otherwise(manifest, None, made_by)
        elif to_write:
            if not await self._made_by(made_by):
                raise made_otherwise(manifest, None, made_by)
            known = await threads.database(manifests.model_id, made_by)
            await self._note_model(replace(manifest, embedding_model=made_by.model, made_by=known))

    async def _made_by(self, model: Fingerprint) -> bool:
        """Return whether the model gives a stored chunk the vector that it has; for collections without a fingerprint."""
        stored = await self.read(SAMPLE, None)
        for chunk, vector in zip(stored.chunks, stored.vectors, strict=True):
            if vector.any():
                again = await self._services.embedder.uncached.embed([chunk.in_context], role="passage")
                same = len(again.values[0]) == len(vector) and again.values[0] @ vector >= AGREE
                return bool(same) and again.made_by is not None and again.made_by.agrees(model)
        return True

    async def _note_model(self, manifest: Manifest) -> None:
        before = self.manifest
        await threads.database(self._services.manifests.note_model, manifest)
        if self.manifest is before:  # else it was exchanged meanwhile
            self.manifest = manifest

    async def prepare(self, where: Sequence[Condition]) -> None:
        """Prepare the index for a search by conditions on fields that are not declared. Call this before the search."""
        declared = self.manifest.indexes
        if others := {name: kind for name, kind in needed(where).items() if name not in declared}:
            await self._call(
                lambda index: index.prepare(others, declared), lambda index: not index.needs_indexes
            )

    async def set_indexes(self, changes: Mapping[str, FieldType | None]) -> None:
        """Make, change or (None) remove indexes of metadata fields.

        Edge builds them in the background; until then, filters find the same without them.
        """
        now = {**self.manifest.indexes, **changes}
        declared = {field: kind for field, kind in now.items() if kind is not None}
        await self._call(lambda index: index.set_indexes(changes, declared))
        async with self._changing:
            note = partial(self._services.manifests.index, self.manifest, changes)
            self.manifest = replace(self.manifest, indexes=await threads.database(note))
        self._services.written.put(self)  # it may have to be rebuilt for them
