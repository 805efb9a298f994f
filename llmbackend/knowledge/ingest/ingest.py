"""Ingests documents into a collection: unchanged ones are skipped, changed ones replace their old version."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Container, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ... import slices, threads, tracing
from ...chunks.chunking import content_hash, split
from ...chunks.own_parser import OwnParser
from ...engines.interface import Chunk
from ...errors import Conflict
from ...files.syntax import PART_OF, BareText, ParsedDocument
from ...inference.budget import in_bulk
from ...inference.cached_embedder import CachedEmbedder
from ...inference.embeddings import added
from ...inference.fingerprint import Fingerprint
from ...pipeline import ahead, paged, side_by_side
from ...schemas import Document, Failure, IngestPlan, IngestReport, IngestWarning
from ..collections.collection import Collection

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Stages = dict[str, dict[str, int]]
"""For each stage, how much is `done`, and the `total` known so far."""

StagesProgress = Callable[[int, int, str, Stages], None]
"""Called with the documents done, all documents, the first unfinished stage, and the counts of each stage."""


def silent(done: int, total: int, stage: str, stages: Stages) -> None:
    """Report no progress."""


# A batch, which goes from stage to stage, has at most so many documents and characters.
BATCH_DOCUMENTS = 512
BATCH_CHARACTERS = 2**18

SPLIT_CHARACTERS = 2**17
"""Characters that are split in one go, which takes some ten milliseconds; then others have their turn."""

EMBEDDED_AT_ONCE = 2
"""Batches that are embedded at the same time: with only one, an embedding server would idle at the end of each."""

EMBEDDED_CHUNKS = 2_048
"""Chunks after which progress is told, since a batch may be one long document."""

BATCH_SECONDS = 0.5
"""Parsed files move on to the next stage at least this often."""

FLUSH_CHUNKS = 16_384
"""Chunks written between two flushes: very large and very frequent flushes both delay other callers."""

SAMPLE = 64
"""Chunks that a plan embeds to estimate how long an ingest takes."""


_Given = TypeVar("_Given", str | Document, Document | Failure, Document | BareText)


class Incoming(NamedTuple):
    """Documents that are still being parsed; a Failure stands for one that cannot be parsed."""

    documents: AsyncGenerator[tuple[int, Sequence[Document | Failure]], None]
    """Yields the number of files parsed, and their documents."""
    total: int
    """The number of files."""


class _Version(NamedTuple):
    """A document as given, and the hash of its content."""

    document: Document | BareText
    digest: str


@dataclass
class _Batch:
    """Documents on their way through the stages: their number, those that changed, and their chunks and vectors."""

    given: int
    unchanged: int = 0
    failed: list[Failure] = field(default_factory=list)
    warnings: list[IngestWarning] = field(default_factory=list)
    changed: list[tuple[str, str]] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    """The chunks' texts as they are embedded."""
    vectors: NDArray[np.float32] | None = None
    tokens: int | None = 0
    made_by: Fingerprint | None = None


async def ingest(
    collection: Collection,
    documents: Sequence[str | Document] | Incoming,
    embedder: CachedEmbedder,
    *,
    sync: bool = False,
    keep: Sequence[str] = (),
    progress: StagesProgress = silent,
) -> IngestReport:
    """Store documents. If a batch fails, nothing of it is stored; earlier batches stay.

    While one batch is written, the next ones are embedded, the one after those is split, and more files are parsed, so
    memory beside the documents themselves does not grow with their number. `sync` also removes the collection's documents
    that are not among these, except those to `keep` and those that failed. Raises what parsing, embedding and
    `Collection.upsert` raise.
    """
    report = IngestReport()
    stages = _Stages(documents, progress)
    seen: dict[str, str] = {}
    with in_bulk():
        await _ingested(collection, documents, embedder, seen, report, stages)
    if sync:
        stages.tell("sync")
        report.deleted = await _remove(collection, await _others(collection, seen, _left(keep, report)))
    await collection.flush()
    stages.tell("done")
    return report


async def _ingested(
    collection: Collection,
    documents: Sequence[str | Document] | Incoming,
    embedder: CachedEmbedder,
    seen: dict[str, str],
    report: IngestReport,
    stages: _Stages,
) -> None:
    unflushed = 0
    async with (
        ahead(_given(documents, stages)) as given,
        ahead(_chunked(collection, given, seen, stages)) as chunked,
        side_by_side(chunked, partial(_embedded, embedder, stages), EMBEDDED_AT_ONCE) as embedded,
        ahead(_written(collection, embedded, report, stages)) as written,
    ):
        async for chunks in written:
            unflushed += chunks
            if unflushed >= FLUSH_CHUNKS:
                await collection.flush()
                unflushed = 0


async def plan(
    collection: Collection | None,
    documents: Sequence[str | Document] | Incoming,
    model: CachedEmbedder,
    *,
    chunking: tuple[int, int],
    sync: bool = False,
    keep: Sequence[str] = (),
    progress: StagesProgress = silent,
) -> IngestPlan:
    """Return what `ingest` would do, and about how long it would take. Embeds some chunks, but writes nothing.

    Without a `collection`, all documents are new. `chunking` is size and overlap in tokens. `model` must have no cache,
    because its speed is measured.
    """
    report = IngestPlan()
    stages = _Stages(documents, progress)
    seen: dict[str, str] = {}
    sample: list[str] = []
    characters = 0
    began = time.monotonic()
    async with ahead(_given(documents, stages)) as given:
        async for part in given:
            batch = await _batch(collection, part, seen, chunking, to_write=False)
            names = [name for name, _ in batch.changed]
            older = await collection.known(names) if collection and names else {}
            _count(report, batch, len(older))
            report.documents += batch.given
            characters += sum(map(len, batch.texts))
            sample += batch.texts[: SAMPLE - len(sample)]
            stages.chunked(batch)
            stages.through(batch)
    if collection and sync:
        report.deleted = len(await _others(collection, seen, _left(keep, report)))
    report.seconds = time.monotonic() - began
    if sample:
        await model.embed(sample[:1], role="passage")  # loads the model, which is not measured
        began = time.monotonic()
        vectors = await model.embed(sample, role="passage")
        if collection and vectors.made_by is not None:
            await collection.accept(vectors.made_by)
        tokens = vectors.total
        share = sum(map(len, sample)) / characters
        report.tokens = None if tokens is None else round(tokens / share)
        report.seconds += (time.monotonic() - began) / share
    report.seconds = math.ceil(report.seconds * 10) / 10
    stages.tell("done")
    return report


class _Stages:
    """Counts of each stage, reported whenever one changes."""

    def __init__(self, documents: Sequence[str | Document] | Incoming, tell: StagesProgress) -> None:
        self._tell = tell
        self._through = 0
        self._total = documents.total if isinstance(documents, Incoming) else len(documents)
        # The first two stages count documents, the others chunks; the number of chunks grows until all are chunked.
        self._of = {"parse": self._total, "chunk": self._total, "embed": 0, "write": 0}
        if not isinstance(documents, Incoming):
            del self._of["parse"]
        self._done = dict.fromkeys(self._of, 0)
        self.tell()

    def parsed(self, files: int, documents: int) -> None:
        self._done["parse"] += files
        self._total += documents - files  # a file may contain several
        self._of["chunk"] = self._total

    def chunked(self, batch: _Batch) -> None:
        self._done["chunk"] += batch.given
        self._of["embed"] += len(batch.chunks)
        self._of["write"] += len(batch.chunks)
        self.tell()

    def embedded(self, chunks: int) -> None:
        self._done["embed"] += chunks
        self.tell()

    def written(self, batch: _Batch) -> None:
        self._done["write"] += len(batch.chunks)
        self.through(batch)

    def through(self, batch: _Batch) -> None:
        """Count these documents as finished."""
        self._through += batch.given
        self.tell()

    def tell(self, stage: str | None = None) -> None:
        """Report the counts; `stage` is the first unfinished one, unless it is given."""
        stages = {name: {"done": done, "total": self._of[name]} for name, done in self._done.items()}
        first = next((name for name, one in stages.items() if one["done"] < one["total"]), "write")
        self._tell(self._through, self._total, stage or first, stages)


async def _given(
    documents: Sequence[str | Document] | Incoming, stages: _Stages
) -> AsyncGenerator[Sequence[str | Document | Failure], None]:
    """Yield the documents in batches."""
    if not isinstance(documents, Incoming):
        for part in _parts(documents):
            yield part
        return
    waiting: list[Document | Failure] = []
    since = time.monotonic()
    async with aclosing(documents.documents) as parsed:
        async for files, ready in parsed:
            stages.parsed(files, len(ready))
            stages.tell()
            waiting += ready
            size = sum(len(each.text) for each in waiting if isinstance(each, Document))
            if size > BATCH_CHARACTERS or time.monotonic() - since > BATCH_SECONDS:
                for group in _parts(waiting):
                    yield group
                waiting, since = [], time.monotonic()
    for group in _parts(waiting):
        yield group


def _parts(documents: Sequence[_Given], most: int = BATCH_CHARACTERS) -> Iterator[Sequence[_Given]]:
    start = 0
    while start < len(documents):
        end, characters = start, 0
        for one in islice(documents, start, start + BATCH_DOCUMENTS):
            characters += len(one if isinstance(one, str) else "" if isinstance(one, Failure) else one.text)
            if end > start and characters > most:
                break
            end += 1
        yield documents[start:end]
        start = end


async def _batch(
    collection: Collection | None,
    part: Sequence[str | Document | Failure],
    seen: dict[str, str],
    chunking: tuple[int, int],
    *,
    to_write: bool,
) -> _Batch:
    """Split those documents that are not stored yet into chunks.

    `seen` maps ids of earlier documents of the request to their hashes, and is added to. The same document given twice
    counts as unchanged. Raises InsufficientStorage if there is no room `to_write` the batch.
    """
    batch = _Batch(given=len(part))
    own = collection.parser if collection else None
    versions = await threads.processor(_versions, batch, part, seen, own)
    if collection and versions:
        stored = await collection.stored([(one.document.id, one.digest) for one in versions])
        versions = [one for one in versions if one.document.id not in stored]
        batch.unchanged += len(stored)
        if versions and to_write:
            await collection.require_room(sum(len(one.document.text) for one in versions))
    if own is not None:
        to_split = [one for one in versions if _is_to_split(one.document)]
        versions = [one for one in versions if not _is_to_split(one.document)]
        for version in to_split:
            _add(batch, version, await own.split(*version))
    if versions:
        for some in _parts([one.document for one in versions], SPLIT_CHARACTERS):
            await threads.splitting(_split, batch, versions[: len(some)], chunking)
            versions = versions[len(some) :]
    return batch


async def _chunked(
    collection: Collection,
    parts: AsyncIterator[Sequence[str | Document | Failure]],
    seen: dict[str, str],
    stages: _Stages,
) -> AsyncGenerator[_Batch, None]:
    async for part in parts:
        batch = await _batch(collection, part, seen, collection.chunking, to_write=True)
        stages.chunked(batch)
        yield batch


async def _embedded(embedder: CachedEmbedder, stages: _Stages, batch: _Batch) -> _Batch:
    """Embed a batch. Raises Conflict if the model is exchanged meanwhile."""
    import numpy as np

    parts: list[NDArray[np.float32]] = []
    for start in range(0, len(batch.texts), EMBEDDED_CHUNKS):
        vectors = await embedder.embed(batch.texts[start : start + EMBEDDED_CHUNKS], role="passage")
        assert vectors.made_by is not None
        if batch.made_by is not None and not vectors.made_by.agrees(batch.made_by):
            raise Conflict("the embedding model was exchanged while a document was embedded: ingest it again")
        batch.made_by = vectors.made_by
        batch.tokens = added(batch.tokens, vectors.total)
        parts.append(vectors.values)
        stages.embedded(len(vectors.values))
    batch.vectors = np.concatenate(parts) if parts else None
    return batch


async def _written(
    collection: Collection, batches: AsyncIterator[_Batch], report: IngestReport, stages: _Stages
) -> AsyncGenerator[int, None]:
    """Write batches, and yield the number of chunks of each."""
    async for batch in batches:
        replaced = 0
        if batch.changed:
            assert batch.vectors is not None, "a batch is embedded before it is written"
            replaced = await collection.upsert(batch.changed, batch.chunks, batch.vectors, batch.made_by)
        _count(report, batch, replaced)
        tracing.current().wrote(len(batch.chunks))
        stages.written(batch)
        yield len(batch.chunks)


def _count(report: IngestReport, batch: _Batch, replaced: int) -> None:
    report.added += len(batch.changed) - replaced
    report.updated += replaced
    report.unchanged += batch.unchanged
    report.failed += batch.failed
    report.warnings += batch.warnings
    report.chunks += len(batch.chunks)
    report.tokens = added(report.tokens, batch.tokens)


def _left(keep: Sequence[str], report: IngestReport) -> set[str]:
    """Return the ids of documents that a sync keeps: those to `keep`, and those that failed."""
    return {*keep, *(failure.id for failure in report.failed)}


async def _others(collection: Collection, seen: Container[str], left: set[str]) -> list[str]:
    """Return the ids of the collection's documents that were not given, except those in `left` and parts of them."""
    others: list[str] = []
    async for page in paged(partial(collection.documents, 1000)):
        for head in page.heads:
            name, whole = head.document_id, head.metadata.get(PART_OF)
            if name not in seen and name not in left and (whole not in left or whole in seen):
                others.append(name)
    return others


async def _remove(collection: Collection, names: Sequence[str]) -> int:
    return sum([await collection.delete(names[start : start + 1000]) for start in range(0, len(names), 1000)])


# The functions below block, and run in threads.


_SAME_ID = "another document in this request has the same id"
_SAME_FILE = (
    f"{_SAME_ID}: pass the folder or pattern that both files are in, so that their paths are their ids"
)
_ARE_LOST = "are U+FFFD, which replaces characters that could not be read, and halves of surrogate pairs"


def _versions(
    batch: _Batch, part: Sequence[str | Document | Failure], seen: dict[str, str], own: OwnParser | None
) -> list[_Version]:
    """Return the documents that may be new or changed; count all others in the batch."""
    versions: list[_Version] = []
    for given in part:
        slices.give_way()
        if isinstance(given, Failure):
            batch.failed.append(given)
            continue
        document = given if isinstance(given, Document) else BareText.of(given)
        if isinstance(document, ParsedDocument):
            batch.warnings += (IngestWarning(id=document.id, warning=said) for said in document.warnings)
        elif lost := document.text.count("\ufffd"):
            batch.warnings.append(
                IngestWarning(id=document.id, warning=f"{lost} of its characters {_ARE_LOST}")
            )
        digest = content_hash(document)
        if own is not None and _is_to_split(document):
            digest = own.digest(digest)
        if not document.text.strip():
            batch.failed.append(Failure(id=document.id, error="the document is empty"))
        elif document.id not in seen:
            seen[document.id] = digest
            versions.append(_Version(document, digest))
        elif seen[document.id] == digest:
            batch.unchanged += 1
        else:
            is_file = isinstance(document, ParsedDocument)
            batch.failed.append(Failure(id=document.id, error=_SAME_FILE if is_file else _SAME_ID))
    return versions


def _split(batch: _Batch, versions: Sequence[_Version], chunking: tuple[int, int]) -> None:
    for version in versions:
        slices.give_way()
        _add(batch, version, split(*version, *chunking))


def _add(batch: _Batch, version: _Version, chunks: list[Chunk]) -> None:
    if chunks:
        batch.changed.append((version.document.id, version.digest))
        # A document's head, its chunk 0, goes last: it makes the version count (see interface.py).
        chunks = [*chunks[1:], chunks[0]]
        batch.chunks += chunks
        batch.texts += [chunk.in_context for chunk in chunks]
    else:
        batch.failed.append(Failure(id=version.document.id, error="the document has no text"))


def _is_to_split(document: Document | BareText) -> bool:
    """Return whether a document was given as a whole, not as chunks."""
    return isinstance(document, BareText) or document.chunks is None
