"""Documents into a collection: unchanged ones cost nothing, changed ones replace their old version."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from anyio import CancelScope, to_thread

from ..inference.embeddings import Embedder
from ..schemas import Document, Failure, IngestReport
from .chunking import content_hash, split
from .collections import Collection
from .pipeline import ahead
from .vectors import Chunk

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Progress = Callable[[int, int, str], None]
"""Called with documents done, documents in all, and the stage."""

DOCUMENTS_A_BATCH = 64


class _Version(NamedTuple):
    """A document as given, and the hash of its content."""

    document: Document
    digest: str


@dataclass
class _Batch:
    """Some documents on their way: those that are not stored as they are, in chunks, and the chunks' vectors."""

    size: int
    unchanged: int = 0
    changed: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    vectors: NDArray[np.float32] | None = None


async def ingest(
    collection: Collection,
    documents: Sequence[str | Document],
    embedder: Embedder,
    *,
    sync: bool = False,
    keep: Sequence[str] = (),
    failed: Sequence[Failure] = (),
    progress: Progress = lambda done, total, stage: None,
) -> IngestReport:
    """Store documents; if a batch fails, nothing of it stays, and what was stored before it does.

    One batch is being written while the next is being embedded and the one after that split: what is in memory beside
    the documents themselves does not grow with their number. `sync` also removes the collection's documents that are
    not among these; those to `keep`, and those that have `failed` before they could become documents, stay.
    Embedding errors pass through.
    """
    report = IngestReport(failed=list(failed))
    versions = await to_thread.run_sync(_distinct, documents, report)
    total = len(documents)
    done = total - len(versions)
    progress(done, total, "ingest")
    async with (
        ahead(_split(collection, list(versions.values()))) as split,
        ahead(_embedded(embedder, split)) as batches,
    ):
        async for batch in batches:
            await _write(collection, batch, report)
            done += batch.size
            progress(done, total, "ingest")
    if sync:
        progress(total, total, "sync")
        not_stored = {failure.id for failure in report.failed}
        report.deleted = await _remove_others(collection, {*versions, *keep, *not_stored})
    await collection.run(collection.index.flush)
    progress(total, total, "done")
    return report


def _distinct(documents: Sequence[str | Document], report: IngestReport) -> dict[str, _Version]:
    """Documents by id, with their content hash; the same document given twice counts as unchanged."""
    versions: dict[str, _Version] = {}
    for given in documents:
        document = given if isinstance(given, Document) else _named(given)
        digest = content_hash(document)
        if not document.text.strip():
            report.failed.append(Failure(id=document.id, error="the document is empty"))
        elif document.id not in versions:
            versions[document.id] = _Version(document, digest)
        elif versions[document.id].digest == digest:
            report.unchanged += 1
        else:
            report.failed.append(
                Failure(id=document.id, error="another document in this request has the same id")
            )
    return versions


def _named(text: str) -> Document:
    """A bare text's id is the hash of its content."""
    return Document(id=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], text=text)


async def _split(collection: Collection, versions: Sequence[_Version]) -> AsyncGenerator[_Batch, None]:
    """Batches with what is not stored yet, in chunks."""
    manifest = collection.manifest

    def chunked(batch: Sequence[_Version]) -> _Batch:
        stored = collection.index.stored([(document.id, digest) for document, digest in batch])
        changed = [version for version in batch if version.document.id not in stored]
        documents = [split(*version, manifest.chunk_size, manifest.chunk_overlap) for version in changed]
        # A document's head, its chunk 0, goes last: it makes the version count (see vectors.py).
        return _Batch(
            size=len(batch),
            unchanged=len(stored),
            changed=[(document.id, digest) for document, digest in changed],
            chunks=[chunk for document in documents for chunk in [*document[1:], *document[:1]]],
        )

    for start in range(0, len(versions), DOCUMENTS_A_BATCH):
        yield await collection.run(chunked, versions[start : start + DOCUMENTS_A_BATCH])


async def _embedded(embedder: Embedder, batches: AsyncIterator[_Batch]) -> AsyncGenerator[_Batch, None]:
    async for batch in batches:
        if batch.chunks:
            batch.vectors = (await embedder.embed([chunk.in_context for chunk in batch.chunks])).values
        yield batch


async def _write(collection: Collection, batch: _Batch, report: IngestReport) -> None:
    index = collection.index
    report.unchanged += batch.unchanged
    if not batch.changed:
        return
    async with collection.writing():
        # Since the batch was split, others may have written the same documents.
        stored = await collection.run(index.stored, batch.changed)
        older = await collection.run(index.known, [name for name, _ in batch.changed])
        replaced = [version for version in batch.changed if version[0] in older]
        with CancelScope(shield=True):  # a cancelled ingest leaves no version half written or half replaced
            try:
                await collection.run(index.upsert, batch.chunks, batch.vectors)
                if replaced:
                    await collection.run(index.keep_only, replaced)
            except BaseException:
                await collection.run(index.discard, [one for one in batch.changed if one[0] not in stored])
                raise
    report.added += len(batch.changed) - len(replaced)
    report.updated += len(replaced)
    report.chunks += len(batch.chunks)


async def _remove_others(collection: Collection, kept: set[str]) -> int:
    others: list[str] = []
    cursor: str | None = None
    while True:
        page = await collection.run(collection.index.documents, 1000, cursor)
        others += [head.document_id for head in page.heads if head.document_id not in kept]
        cursor = page.cursor
        if cursor is None:
            break
    deleted = 0
    for start in range(0, len(others), 1000):
        async with collection.writing():
            deleted += await collection.run(collection.index.delete, others[start : start + 1000])
    return deleted
