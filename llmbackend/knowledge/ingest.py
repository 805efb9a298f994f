"""Documents into a collection: unchanged ones cost nothing, changed ones replace their old version."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from anyio import CancelScope, to_thread

from ..inference.embeddings import Embedder
from ..schemas import Document, Failure, IngestReport
from .chunking import content_hash, split
from .collections import Collection
from .vectors import Chunk

Progress = Callable[[int, int, str], None]
"""Called with documents done, documents in all, and the stage."""

DOCUMENTS_A_BATCH = 64


async def ingest(
    collection: Collection,
    documents: Sequence[str | Document],
    embedder: Embedder,
    *,
    sync: bool = False,
    progress: Progress = lambda done, total, stage: None,
) -> IngestReport:
    """Store documents; if a batch fails, nothing of it stays, and what was stored before it does.

    `sync` also removes the collection's documents that are not among these. Embedding errors pass through.
    """
    report = IngestReport()
    versions = _distinct(documents, report)
    given = list(versions)
    total = len(documents)
    skipped = total - len(given)
    progress(skipped, total, "ingest")
    for start in range(0, len(given), DOCUMENTS_A_BATCH):
        batch = {name: versions[name] for name in given[start : start + DOCUMENTS_A_BATCH]}
        async with collection.writing():
            await _write(collection, batch, embedder, report)
        progress(skipped + start + len(batch), total, "ingest")
    if sync:
        progress(total, total, "sync")
        failed = {failure.id for failure in report.failed}
        report.deleted = await _remove_others(collection, set(given) | failed)
    await collection.run(collection.index.flush)
    progress(total, total, "done")
    return report


def _distinct(documents: Sequence[str | Document], report: IngestReport) -> dict[str, tuple[Document, str]]:
    """Documents by id, with their content hash; the same document given twice counts as unchanged."""
    versions: dict[str, tuple[Document, str]] = {}
    for given in documents:
        document = given if isinstance(given, Document) else _named(given)
        digest = content_hash(document)
        if not document.text.strip():
            report.failed.append(Failure(id=document.id, error="the document is empty"))
        elif document.id not in versions:
            versions[document.id] = (document, digest)
        elif versions[document.id][1] == digest:
            report.unchanged += 1
        else:
            report.failed.append(
                Failure(id=document.id, error="another document in this request has the same id")
            )
    return versions


def _named(text: str) -> Document:
    """A bare text's id is the hash of its content."""
    return Document(id=hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32], text=text)


async def _write(
    collection: Collection,
    batch: dict[str, tuple[Document, str]],
    embedder: Embedder,
    report: IngestReport,
) -> None:
    index, manifest = collection.index, collection.manifest
    versions = [(name, digest) for name, (_, digest) in batch.items()]
    unchanged = await collection.run(index.stored, versions)
    report.unchanged += len(unchanged)
    changed = [version for version in versions if version[0] not in unchanged]
    if not changed:
        return
    older = await collection.run(index.known, [name for name, _ in changed])

    def chunked() -> list[list[Chunk]]:
        return [
            split(batch[name][0], digest, manifest.chunk_size, manifest.chunk_overlap)
            for name, digest in changed
        ]

    documents = await to_thread.run_sync(chunked)
    # A document's head, its chunk 0, goes last: it makes the version count (see vectors.py).
    chunks = [chunk for document in documents for chunk in [*document[1:], *document[:1]]]
    vectors = await embedder.embed([chunk.text for chunk in chunks])
    replaced = [version for version in changed if version[0] in older]
    with CancelScope(shield=True):  # a cancelled ingest leaves no version half written or half replaced
        try:
            await collection.run(index.upsert, chunks, vectors.values)
            if replaced:
                await collection.run(index.keep_only, replaced)
        except BaseException:
            await collection.run(index.discard, changed)
            raise
    report.added += len(changed) - len(replaced)
    report.updated += len(replaced)
    report.chunks += len(chunks)


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
