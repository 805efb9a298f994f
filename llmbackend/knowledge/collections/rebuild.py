"""Rebuilds a collection in a new physical collection: to embed it anew, or to build its graph and indexes.

The new one is made beside the old one, which can be searched and written to meanwhile. What was written meanwhile is then
copied, the last of it while writers wait; then the manifest names the new one, and the old one is removed. If this ends
early, even by a kill, the old one stays as it was: the new one is an orphan until the end (manifests.py).

The collection notes which documents this process writes meanwhile. Changes by other processes, or between two attempts of
a job, are found by comparing the ids of both collections' points, which are derived from their content.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from ... import threads
from ...access.names import QualifiedName
from ...engines.bm25 import NAME as BM25
from ...engines.edge_build import built
from ...engines.interface import Chunk, Ids, Stored, VectorIndex
from ...engines.qdrant_edge import QdrantEdge
from ...errors import Conflict, InvalidRequest
from ...inference.budget import in_bulk
from ...inference.embeddings import added
from ...pipeline import ahead, paged
from ...schemas import ReindexReport
from .collection import Collection
from .collections import Collections
from .current_index import GRAPH
from .manifests import Manifest, called, moved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[Stored], Awaitable[NDArray[np.float32]]]
    """Returns the vectors of stored chunks in the new physical collection, of shape (chunks, dimension)."""

Still = Callable[[], Awaitable[None]]
"""To be called now and then while writers wait, to extend the freeze (`CurrentIndex.frozen`)."""

Progress = Callable[[int, int, str], None]
"""Called with the chunks done, all chunks, and the stage."""

PAGE = 256
SCAN = 1000
COPIED_LOCKED = 500  # most documents that are copied while writers wait
ROUNDS = 5  # most rounds of copying without making writers wait


class Job(Protocol):
    """A job that may be killed and tried again. `resume` is what an earlier attempt saved by `checkpoint`, or None."""

    job_id: str
    resume: Any

    async def checkpoint(self, state: Any) -> None: ...


async def reindex(
    collections: Collections,
    name: QualifiedName,
    *,
    model: str | None = None,
    progress: Progress = lambda done, total, stage: None,
    job: Job | None = None,
) -> ReindexReport:
    """Embed a collection's texts anew with the models set now.

    Documents may be written and deleted meanwhile. Raises NotFound, Conflict if another rebuild is under way,
    InvalidRequest for a `model` other than the one set, and what embedding raises. After an error or a cancellation,
    the collection is as before. What a `job` has made so far is kept for its next attempt, until the job has ended.
    """
    began = time.perf_counter()
    embedder = collections.embedder
    if model is not None and model not in embedder.names:
        raise InvalidRequest(
            f"the embedding model is {embedder.name!r}, not {model!r}: first set EMBEDDING_MODEL (or TEI_URL) to that "
            "model, because questions are embedded by it too",
            details={"model": embedder.name},
        )
    collection = await collections.get(name)

    dimension, made_by = await collections.model()
    tokens: int | None = 0

    async def embedded(stored: Stored) -> NDArray[np.float32]:
        texts = [chunk.in_context for chunk in stored.chunks]
        with in_bulk():
            vectors = await embedder.embed(texts, role="passage")
        nonlocal tokens
        tokens = added(tokens, vectors.total)
        if vectors.made_by is None or not vectors.made_by.agrees(made_by):
            raise Conflict(
                f"the embedding model changed while collection {called(name)!r} was being reindexed: reindex it again",
                details={"collection": called(name)},
            )
        return vectors.values

    async with collection.rebuilding("reindexed"):
        old = collection.manifest
        _, total = await collection.count()
        progress(0, total, "embed")
        new = moved(
            old,
            collections.physical.default.name,
            embedding_model=made_by.model,
            made_by=await threads.database(collections.manifests.model_id, made_by),
            dimension=dimension,
            sparse_model=BM25,
            indexed=0,
            made_with=collections.made_with(old.options),
        )
        resumed = await _made_before(collections, new, job) if job is not None else None
        new = resumed or new
        async with _replacing(collections, collection, new, kept=job is not None):
            async with collection.writing():
                collection.changed = set()
                if resumed is None:
                    await collections.physical.make(new, job.job_id if job is not None else "")
            if job is not None:
                await job.checkpoint(asdict(new))
            async with _opened(collections, collection, new, repair=resumed is None) as copy:
                done = 0
                async with aclosing(copy.filled(collection, embedded, rest=resumed is not None)) as filling:
                    async for chunks in filling:
                        done += chunks
                        progress(min(done, total), total, "embed")
                if resumed is not None or collection.shared:
                    collection.note(await _differing(collection, copy))
                await _exchange(collection, copy, embedded)
    documents, chunks = await collection.count()
    progress(chunks, chunks, "done")
    return ReindexReport(
        collection=called(name),
        from_model=old.embedding_model,
        to_model=new.embedding_model,
        documents=documents,
        chunks=chunks,
        tokens=tokens,
        seconds=round(time.perf_counter() - began, 3),
    )


async def _made_before(collections: Collections, new: Manifest, job: Job) -> Manifest | None:
    """Return the manifest that an earlier attempt of the job worked on, if it still fits; else None."""
    if job.resume is None:
        return None
    made = Manifest(**job.resume)
    left = await threads.database(collections.manifests.left_by_jobs)
    there = (made.physical_collection.id, made.engine, job.job_id) in left
    return made if there and made == replace(new, physical=made.physical) else None


async def build_indexes(
    collections: Collections, collection: Collection, edge: QdrantEdge, *, graph: bool
) -> None:
    """Build the indexes of metadata fields, with `graph` also the graph for approximate search.

    A separate process does that in a copy of the physical collection, which then replaces it.
    """

    async def as_it_is(stored: Stored) -> NDArray[np.float32]:
        return stored.vectors

    async with collection.rebuilding(GRAPH):
        old = collection.manifest
        _, chunks = await collection.count()
        new = moved(old, edge.name, indexed=chunks if graph else old.indexed)
        async with _replacing(collections, collection, new):
            async with collection.writing():
                collection.changed = set()
                await threads.database(collections.manifests.begin, new.physical_collection.id, new.engine)
                await collection.flush()
                both = old.physical_collection.id, new.physical_collection.id
                await edge.threads(partial(edge.copy, *both, is_open=True))
            folder = edge.folder(new.physical_collection.id)
            await built(folder, new.layout, "graph" if graph else "indexes")
            async with _opened(collections, collection, new) as copy:
                await _exchange(collection, copy, as_it_is)


@asynccontextmanager
async def _replacing(
    collections: Collections, collection: Collection, new: Manifest, *, kept: bool = False
) -> AsyncIterator[None]:
    """Wrap the making of a new physical collection for a collection.

    If it ends early, the new one is removed; a job's (`kept`) is removed when the job has ended.
    """
    try:
        yield
    except BaseException:
        if collection.manifest.physical_collection != new.physical_collection and not kept:
            await collections.physical.drop(new)
        raise
    finally:
        collection.changed = None


@asynccontextmanager
async def _opened(
    collections: Collections, collection: Collection, new: Manifest, *, repair: bool = True
) -> AsyncIterator[_Copy]:
    """Open the copy. After an error it is closed, unless it has become the collection's index."""
    copy = _Copy(new, await collections.physical.open(new, repair=repair))
    try:
        yield copy
    except BaseException:
        if collection.manifest.physical_collection != new.physical_collection:
            with CancelScope(shield=True):
                await copy.index.threads(copy.index.close)
        raise


async def _exchange(collection: Collection, copy: _Copy, embed: Embed) -> None:
    """Copy what was written meanwhile, the last of it while writers wait, and exchange the physical collections."""
    for _ in range(ROUNDS):
        if len(collection.changed or ()) <= COPIED_LOCKED:
            break
        async with collection.writing():
            changed, collection.changed = collection.changed or set(), set()
        await copy.update(collection, changed, embed)
    async with collection.writing(), collection.frozen() as still:
        if collection.shared:
            collection.note(await _differing(collection, copy, still))
        await copy.update(collection, collection.changed or set(), embed, still)
        await copy.index.threads(copy.index.flush)
        await collection.exchange(copy.manifest, copy.index)


async def _differing(collection: Collection, copy: _Copy, still: Still = checkpoint) -> set[str]:
    """Return the ids of the documents whose points differ between the collection and the copy."""
    found: set[str] = set()
    both: tuple[tuple[Collection | _Copy, Collection | _Copy], ...] = ((collection, copy), (copy, collection))
    for one, other in both:
        async for page in paged(partial(one.ids, SCAN)):
            in_both = await other.there(list(page.documents))
            found.update(name for point, name in page.documents.items() if point not in in_both)
            await still()
    return found


@dataclass
class _Copy:
    """An open physical collection that no manifest names yet."""

    manifest: Manifest
    index: VectorIndex

    async def ids(self, limit: int, cursor: str | None) -> Ids:
        return await self.index.threads(self.index.ids, limit, cursor)

    async def there(self, ids: Sequence[uuid.UUID]) -> set[uuid.UUID]:
        return await self.index.threads(self.index.there, ids)

    async def update(
        self, collection: Collection, changed: set[str], embed: Embed, still: Still = checkpoint
    ) -> None:
        """Update these documents in the copy; remove those that were deleted."""
        names = sorted(changed)
        for start in range(0, len(names), COPIED_LOCKED):
            some = names[start : start + COPIED_LOCKED]
            await self.index.threads(self.index.delete, some)
            async with aclosing(self.filled(collection, embed, some)) as filling:
                async for _ in filling:
                    await still()

    async def filled(
        self,
        collection: Collection,
        embed: Embed,
        document_ids: Sequence[str] | None = None,
        *,
        rest: bool = False,
    ) -> AsyncGenerator[int, None]:
        """Copy a collection's chunks, all or those of some documents, and yield their number after each batch.

        With `rest`, chunks that the copy has already are counted, but not copied again.
        """
        index = self.index

        async def pages() -> AsyncGenerator[tuple[int, Stored], None]:
            async for page in paged(lambda cursor: collection.read(PAGE, cursor, document_ids)):
                if page.chunks:
                    yield len(page.chunks), await self._rest(page) if rest else page

        async def with_vectors(
            pages: AsyncIterator[tuple[int, Stored]],
        ) -> AsyncGenerator[tuple[int, list[Chunk], NDArray[np.float32]], None]:
            async for count, page in pages:
                await index.threads(index.require_room, sum(len(chunk.text) for chunk in page.chunks))
                yield count, page.chunks, await embed(page) if page.chunks else page.vectors

        async with ahead(pages()) as read, ahead(with_vectors(read)) as batches:
            async for count, chunks, vectors in batches:
                if chunks:
                    await index.threads(index.upsert, chunks, vectors)
                yield count

    async def _rest(self, page: Stored) -> Stored:
        """Return the part of a page that the copy does not have yet."""
        ids = [chunk.point_id(self.manifest.physical_collection.namespace) for chunk in page.chunks]
        there = await self.there(ids)
        rest = [number for number, one in enumerate(ids) if one not in there]
        return Stored([page.chunks[number] for number in rest], page.vectors[rest], page.cursor)
