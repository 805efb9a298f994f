"""A new physical collection in the place of a collection's: to embed it anew, or to build its graph for search.

It is made beside the old one, which goes on answering and being written to. What is written meanwhile is copied once
more, the last of it while writers wait; then the manifest names the new one, and the old one goes. Whatever ends this
early, a kill included, leaves the old one as it was: the new one is an orphan until the end (manifests.py).

Of writes in this process it is known what they change. What other processes changed, or was changed between two
attempts of a job, is found by comparing both collections' points, whose ids follow from what is in them.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from anyio import CancelScope
from anyio.lowlevel import checkpoint

from ... import threads
from ...errors import Conflict, InvalidRequest
from ...inference.budget import in_bulk
from ...inference.embeddings import added
from ...schemas import ReindexReport
from ..engines.bm25 import NAME as BM25
from ..engines.edge_build import built
from ..engines.interface import Chunk, Stored, VectorIndex
from ..engines.qdrant_edge import QdrantEdge
from ..pipeline import ahead
from .collection import GRAPH, Collection
from .collections import Collections
from .manifests import Manifest, moved

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Embed = Callable[[Stored], Awaitable[NDArray[np.float32]]]
    """The vectors that stored chunks get in the new physical collection."""

Still = Callable[[], Awaitable[None]]
"""Called now and then while others wait."""

Progress = Callable[[int, int, str], None]
"""Called with chunks done, chunks in all, and the stage."""

PAGE = 256
SCAN = 1000
COPIED_LOCKED = 500  # documents that are copied while writers wait
ROUNDS = 5  # of copying without making them wait, at most


class Job(Protocol):
    """One that may be killed and tried again: `resume` is what an earlier attempt saved by `checkpoint`."""

    job_id: str
    resume: Any

    async def checkpoint(self, state: Any) -> None: ...


async def reindex(
    collections: Collections,
    name: str,
    *,
    model: str | None = None,
    progress: Progress = lambda done, total, stage: None,
    job: Job | None = None,
) -> ReindexReport:
    """Embed a collection's texts anew, with the models set now, whatever made its vectors.

    Documents may be written and deleted meanwhile. Raises NotFound, Conflict if somebody does it already,
    InvalidRequest for a `model` other than the one set, and what embedding raises; then, and when cancelled,
    everything is as before. What a job has made so far stays, to be gone on with, until the job has ended.
    """
    began = time.perf_counter()
    embedder = collections.embedder
    if model is not None and model not in embedder.names:
        raise InvalidRequest(
            f"the embedding model is {embedder.name!r}, not {model!r}: set EMBEDDING_MODEL (or TEI_URL) to it first, "
            "for questions are embedded by it too",
            details={"model": embedder.name},
        )
    collection = await collections.open(name)

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
                f"the embedding model was changed while collection {name!r} was being embedded: do it again",
                details={"collection": name},
            )
        return vectors.values

    async with collection.rebuilding("reindexed"):
        old = collection.manifest
        _, total = await collection.run(collection.index.count)
        progress(0, total, "embed")
        new = moved(
            old,
            collections.default_engine.name,
            embedding_model=made_by.model,
            made_by=await threads.database(collections.rows.model_id, made_by),
            dimension=dimension,
            sparse_model=BM25,
            indexed=0,
            made_with=collections.made_with(old.options),
        )

        resumed = await _made_before(collections, new, job) if job is not None else None
        new = resumed or new

        async def begin() -> None:
            if resumed is None:
                await collections.make(new, job.job_id if job is not None else "")

        async def opened() -> VectorIndex:
            if job is not None:
                await job.checkpoint(asdict(new))
            return await collections.opened(new, repair=resumed is None)

        async def fill(index: VectorIndex) -> None:
            done = 0
            rest = partial(_rest, index, new) if resumed is not None else None
            async with aclosing(_copied(collection, index, embedded, rest=rest)) as copying:
                async for chunks in copying:
                    done += chunks
                    progress(min(done, total), total, "embed")
            if resumed is not None or collection.look is not None:
                collection.index.note(await _differing(collection, index))

        await _replace(
            collections, collection, new, begin=begin, opened=opened, fill=fill, embed=embedded, job=job
        )
    collections.after_flush(collection)  # it has no graph yet
    documents, chunks = await collection.run(collection.index.count)
    progress(chunks, chunks, "done")
    return ReindexReport(
        collection=name,
        from_model=old.embedding_model,
        to_model=new.embedding_model,
        documents=documents,
        chunks=chunks,
        tokens=tokens,
        seconds=round(time.perf_counter() - began, 3),
    )


async def _made_before(collections: Collections, new: Manifest, job: Job) -> Manifest | None:
    """The manifest of what an earlier attempt of the job has made, if it still is what is to be made now."""
    if job.resume is None:
        return None
    made = Manifest(**job.resume)
    left = await threads.database(collections.rows.left_by_jobs)
    there = (made.physical_collection.id, made.engine, job.job_id) in left
    return made if there and made == replace(new, physical=made.physical) else None


async def build_indexes(
    collections: Collections, collection: Collection, edge: QdrantEdge, *, graph: bool
) -> None:
    """Build the indexes of metadata fields, and the graph for approximate search if that is due.

    In a copy of what a collection has now, by a process of its own.
    """
    async with collection.rebuilding(GRAPH):
        old = collection.manifest
        _, chunks = await collection.run(collection.index.count)
        new = moved(old, edge.name, indexed=chunks if graph else old.indexed)

        async def begin() -> None:
            await threads.database(collections.rows.begin, new.physical_collection.id, new.engine)
            await collection.run(collection.index.now.flush)
            await edge.threads(edge.copy, old.physical_collection.id, new.physical_collection.id)

        async def opened() -> VectorIndex:
            await built(edge.folder(new.physical_collection.id), new.layout, graph=graph)
            return await collections.opened(new)

        async def fill(index: VectorIndex) -> None:
            """The copy has everything."""

        async def as_it_is(stored: Stored) -> NDArray[np.float32]:
            return stored.vectors

        await _replace(collections, collection, new, begin=begin, opened=opened, fill=fill, embed=as_it_is)


async def _replace(
    collections: Collections,
    collection: Collection,
    new: Manifest,
    *,
    begin: Callable[[], Awaitable[None]],
    opened: Callable[[], Awaitable[VectorIndex]],
    fill: Callable[[VectorIndex], Awaitable[None]],
    embed: Embed,
    job: Job | None = None,
) -> None:
    """Make the new physical collection (`begin`, while writers wait; then `opened` and `fill`), and swap.

    What ends early is removed here, or, of a job, once that has ended.
    """
    live = collection.index
    index: VectorIndex | None = None
    try:
        async with collection.writing():
            live.changed = set()
            await begin()
        index = await opened()
        await fill(index)
        for _ in range(ROUNDS):
            if len(live.changed) <= COPIED_LOCKED:
                break
            async with collection.writing():
                changed, live.changed = live.changed, set()
            await _copy_again(collection, index, changed, embed)
        async with collection.writing(), collections.frozen(collection) as still:
            if collection.look is not None:
                live.note(await _differing(collection, index, still))
            await _copy_again(collection, index, live.changed, embed, still)
            await index.threads(index.flush)
            await collections.swap(collection, new, index)
    except BaseException:
        with CancelScope(shield=True):
            if index is not None and index is not live.now:
                await index.threads(index.close)
            if collection.manifest.physical_collection != new.physical_collection and job is None:
                await collections.drop(new)
        raise
    finally:
        live.changed = None


async def _copied(
    collection: Collection,
    index: VectorIndex,
    embed: Embed,
    document_ids: Sequence[str] | None = None,
    rest: Callable[[Stored], Awaitable[Stored]] | None = None,
) -> AsyncGenerator[int, None]:
    """Copy a collection's chunks, all or those of some documents; tells how many, as they are written.

    Of each page only the `rest`, if that is given.
    """

    async def pages() -> AsyncGenerator[tuple[int, Stored], None]:
        cursor: str | None = None
        while True:
            page = await collection.run(collection.index.read, PAGE, cursor, document_ids)
            if page.chunks:
                yield len(page.chunks), page if rest is None else await rest(page)
            cursor = page.cursor
            if cursor is None:
                return

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


async def _rest(index: VectorIndex, made: Manifest, page: Stored) -> Stored:
    """What of a page is not in the copy yet."""
    ids = [chunk.point_id(made.physical_collection.namespace) for chunk in page.chunks]
    there = await index.threads(index.there, ids)
    rest = [number for number, one in enumerate(ids) if one not in there]
    return Stored([page.chunks[number] for number in rest], page.vectors[rest], page.cursor)


async def _differing(collection: Collection, index: VectorIndex, still: Still = checkpoint) -> set[str]:
    """The documents of which either the collection or the copy has points that the other has not."""
    here, there = collection.run, index.threads
    found: set[str] = set()
    for run, one, other_run, other in (
        (here, collection.index, there, index),
        (there, index, here, collection.index),
    ):
        cursor: str | None = None
        while True:
            page = await run(one.ids, SCAN, cursor)
            both = await other_run(other.there, list(page.documents))
            found.update(name for point, name in page.documents.items() if point not in both)
            await still()
            cursor = page.cursor
            if cursor is None:
                break
    return found


async def _copy_again(
    collection: Collection, index: VectorIndex, changed: set[str], embed: Embed, still: Still = checkpoint
) -> None:
    """Make these documents in the copy what they are now, deleted ones included."""
    names = sorted(changed)
    for start in range(0, len(names), COPIED_LOCKED):
        some = names[start : start + COPIED_LOCKED]
        await index.threads(index.delete, some)
        async with aclosing(_copied(collection, index, embed, some)) as copying:
            async for _ in copying:
                await still()
