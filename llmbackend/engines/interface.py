"""The interface of vector engines: `VectorEngine` makes and opens indexes, `VectorIndex` reads and writes one.

A version of a document is a set of points, one for each chunk. Its head (chunk 0) is written last, and a version without
a head is removed when its index is opened after a crash, so a document is always entirely old or entirely new. A point's
id is derived from collection, document, content hash and chunk number, so writing a version again changes nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from ..errors import InvalidRequest, LLMBackendError
from ..text.legible import legible, with_parts
from ..threads import Threads
from .indexes import NO_INDEXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .filters import Condition
    from .indexes import FieldType, Indexes

_Key = TypeVar("_Key", bound=Hashable)

Mode = Literal["hybrid", "dense", "sparse"]
List = Literal["dense", "sparse"]
LISTS: dict[Mode, list[List]] = {"dense": ["dense"], "sparse": ["sparse"], "hybrid": ["dense", "sparse"]}


@dataclass(slots=True)  # not frozen: that would take four times as long to make
class Chunk:
    """A passage of one version of a document. `number` counts from 0 to `total` - 1.

    `place` tells where in the document it is, as far as the document has these: `page` (from 1), `headings` (the titles
    above it, outermost first), and `sections` (the titles of the short sections that were joined into this chunk).
    """

    document_id: str
    hash: str
    number: int
    total: int
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    written: int = field(default=0, compare=False)
    """When it was stored, in nanoseconds since 1970; 0 if it is not stored yet."""
    superseded: bool = field(default=False, compare=False)
    """Whether a newer version has replaced it, so that it will be deleted soon."""

    @property
    def headings(self) -> list[str]:
        found: list[str] = self.place.get("headings", [])
        return found

    @property
    def in_context(self) -> str:
        """What is embedded: the text below its headings, with words that were hyphenated at line ends joined."""
        return legible(self.below_headings)

    @property
    def words(self) -> str:
        """What is searched by words: as `in_context`, with the parts of hyphenated words added."""
        return with_parts(self.below_headings)

    @property
    def below_headings(self) -> str:
        headings = " > ".join(self.headings)
        return f"{headings}\n\n{self.text}" if headings else self.text

    def point_id(self, namespace: uuid.UUID) -> uuid.UUID:
        return point_id(namespace, self.document_id, self.hash, self.number)


def point_id(namespace: uuid.UUID, document_id: str, content_hash: str, number: int) -> uuid.UUID:
    return uuid.uuid5(namespace, f"{document_id}\0{content_hash}\0{number}")


class Search(NamedTuple):
    """A search of one index."""

    text: str
    vector: NDArray[np.float32] | None
    """Of shape (dimension,); may be None in sparse mode only."""
    mode: Mode
    top_k: int
    conditions: Sequence[Condition] = ()
    weight: float = 1.0
    """The weight of the dense list, relative to the sparse list's 1."""


class Found(NamedTuple):
    """A search hit; a higher score is better."""

    chunk: Chunk
    score: float
    """What hits are ordered by: the last of `scores`."""
    scores: dict[str, float]
    """`dense` (cosine), `sparse` (BM25), `weight` (of dense relative to sparse) and `fused`, as far as they apply."""

    @classmethod
    def of(cls, chunk: Chunk, scores: dict[str, float]) -> Found:
        return cls(chunk, next(reversed(scores.values())), scores)


TRIES = 3
"""How often to search if hits are deleted or superseded before they are read, because their documents were replaced
meanwhile."""


def one_version(chunks: Mapping[_Key, Chunk]) -> dict[_Key, Chunk]:
    """Keep one version of each document: of several, the oldest that is not superseded."""
    shown: dict[str, Chunk] = {}
    several = False
    for chunk in chunks.values():
        other = shown.setdefault(chunk.document_id, chunk)
        if chunk.hash != other.hash:
            several = True
            if _order(chunk) < _order(other):
                shown[chunk.document_id] = chunk
    if not several:
        return dict(chunks)
    return {key: chunk for key, chunk in chunks.items() if shown[chunk.document_id].hash == chunk.hash}


def _order(chunk: Chunk) -> tuple[bool, int]:
    return (True, -chunk.written) if chunk.superseded else (False, chunk.written)


Scored = tuple[uuid.UUID, float]
"""A point's id and its score; a higher score is better."""


class Page(NamedTuple):
    """A page of chunks, or of documents' heads, in a stable order. `cursor` asks for the next page; None after the last."""

    heads: list[Chunk]
    cursor: str | None


class Stored(NamedTuple):
    """A page of chunks in no order. `vectors` has a row for each; `cursor` asks for the next page, None after the last."""

    chunks: list[Chunk]
    vectors: NDArray[np.float32]
    cursor: str | None


def gone(error: LLMBackendError) -> bool:
    """Whether the error says that the index does not exist (any more): another process may have removed it."""
    return error.details.get("gone") is True


def damaged(error: LLMBackendError) -> bool:
    """Whether the error says that the index is unreadable or corrupt."""
    return error.details.get("damaged") is True


def fitting(
    rows: Sequence[NDArray[np.float32] | list[float]], dimension: int, named: Callable[[int], str]
) -> NDArray[np.float32]:
    """Turn a caller's vectors into an array of shape (rows, dimension).

    Raises InvalidRequest for a row that cannot be stored or searched. The message names it by `named(row number)`.
    """
    import numpy as np

    for number, row in enumerate(rows):
        if len(row) != dimension:
            raise InvalidRequest(
                f"{named(number)} has {len(row)} dimensions, and the collection's vectors have {dimension}"
            )
    with np.errstate(all="ignore"):
        block = np.asarray(rows, dtype=np.float32).reshape(len(rows), dimension)
        lengths = np.linalg.norm(block.astype(np.float64), axis=1)
    for wrong, reason in (
        (~np.isfinite(block).all(axis=1), "has numbers that are not finite"),
        (lengths > MAX_NORM, "is too long: scale it to length 1"),
    ):
        if wrong.any():
            raise InvalidRequest(f"{named(int(wrong.argmax()))} {reason}")
    return block


MAX_NORM = 1e18
"""The longest vector that can be scaled to length 1: the squares of longer ones overflow float32."""


class Ids(NamedTuple):
    """A page of point ids, each with its document's id, in no order. `cursor` asks for the next page; None after the last."""

    documents: dict[uuid.UUID, str]
    cursor: str | None


class VectorIndex(Protocol):
    """An open index: one collection's chunks in a vector engine.

        index = engine.open(physical)
        index.upsert(chunks, vectors)                  # float32, shape (chunks, dimension)
        index.flush()                                  # a power cut before this may lose the write
        index.search(Search("reset button", vector, "hybrid", top_k=5))
        index.close()                                  # by whoever opened it, when no call is running

    Methods block; call them in `threads`. Any number of reads may run at once, beside one write. Every method may raise
    BackendError: `damaged(error)` is true if the index cannot be read, `gone(error)` if it does not exist any more.
    """

    @property
    def threads(self) -> Threads:
        """The threads to call its methods in."""

    @property
    def needs_indexes(self) -> bool:
        """Whether a search can filter by a field only once `prepare` has made its index."""

    def at_once(self, asked: Search) -> bool:
        """Return whether to run such a search on the event loop, because a thread would only add to its time."""

    def require_room(self, characters: int) -> None:
        """Raise InsufficientStorage if chunks with so much text do not fit. Called before they are embedded."""

    def upsert(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        """Write chunks with their dense vectors, of shape (chunks, dimension). The index makes the BM25 vectors itself.

        Chunks that are already stored are overwritten. Raises InsufficientStorage.
        """

    def stored(self, versions: Sequence[tuple[str, str]]) -> set[str]:
        """Return the document ids of those `(document id, content hash)` pairs that are stored completely."""

    def known(self, document_ids: Sequence[str]) -> dict[str, set[str]]:
        """Map each of these documents that exists to its content hashes; it has two while it is being replaced."""

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        """Remove all other versions of these documents, after `upsert` has written the given ones.

        `older` are the ids of the documents that existed before; None if that is not known. An engine that finds and
        reads points in two steps marks old versions as superseded first, and deletes them a little later, when no search
        needs them. If several processes write a document at the same moment, the version written last stays.
        """

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        """Remove these versions."""

    def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents, and return how many of them existed."""

    def search(self, asked: Search) -> list[Found]:
        """Return the `top_k` best chunks that fit all conditions, best first."""

    def lists(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        which: Sequence[List],
        limit: int,
        conditions: Sequence[Condition] = (),
        *,
        current: bool = False,
    ) -> dict[List, list[Scored]]:
        """Return the `limit` best points of each list, best first, unfused: the lists of several collections are merged.

        A few superseded points may be among them, unless `current` is true.
        """

    def chunks(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Chunk]:
        """Return the chunks of these points; points that do not exist are left out."""

    def documents(self, limit: int, cursor: str | None) -> Page:
        """Return a page of documents' heads.

        Over all pages, each document that exists throughout comes at least once, and again if it is written meanwhile.
        """

    def passages(
        self,
        limit: int,
        cursor: str | None,
        document_ids: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Page:
        """Return a page of chunks without vectors: all, or those of these documents that fit the conditions."""

    def read(self, limit: int, cursor: str | None, document_ids: Sequence[str] | None = None) -> Stored:
        """Return a page of chunks with their vectors: all, or those of these documents."""

    def ids(self, limit: int, cursor: str | None, conditions: Sequence[Condition] = ()) -> Ids:
        """Return a page of the ids of the points that fit the conditions."""

    def there(self, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Return which of these points exist."""

    def count(self) -> tuple[int, int]:
        """Return the numbers of documents and chunks."""

    def lacks(self, indexes: Indexes) -> bool:
        """Return whether any of these indexes of metadata fields is missing."""

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        """Prepare a search that filters by fields outside `declared`.

        An engine that cannot filter by a field without an index makes one, if there is room.
        """

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        """Make, change or (None) remove indexes of metadata fields. An engine where that takes long waits for a rebuild.

        `declared` are all indexes as they are after the change; indexes of other fields may be removed to make room.
        """

    def take_over(self, other: VectorIndex) -> None:
        """Take over the caches of an index with the same chunks, which this one has replaced."""

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""

    def close(self) -> None:
        """Flush, and release files and threads. The index cannot be used afterwards."""


class Physical(NamedTuple):
    """A physical collection: its name in the engine (`id`), and what is needed to open it.

    Point ids are derived from `namespace`, which stays the same when a collection moves to another physical one.
    """

    id: str
    namespace: uuid.UUID
    sparse_model: str


class Layout(NamedTuple):
    """What a new index is made with."""

    dimension: int
    indexes: Indexes = NO_INDEXES
    """Indexes of metadata fields."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Options of the engine."""


class VectorEngine(Protocol):
    """Makes, opens and removes indexes. Methods block; call them in threads. They raise BackendError."""

    name: str
    shared: bool
    """Whether other processes may write to its indexes."""
    threads: Threads
    """The threads to call its methods in, and those of its indexes."""
    opening: Threads
    """The threads to call `create` and `open` in."""
    options: Mapping[str, Any] | None
    """Default options of new indexes; None if the engine takes no options."""

    def create(self, physical_id: str, layout: Layout) -> None:
        """Make an empty index."""

    def open(self, physical: Physical, *, repair: bool = True) -> VectorIndex:
        """Open an index, and repair it after a crash. Raises BackendError, of which `gone` is true, if it does not exist.

        Whoever opens an index closes it; it must not be open twice in a process. Pass `repair=False` for an unfinished
        index, to which the rest of its documents is still to be written: a repair would remove incomplete documents.
        """

    def drop(self, physical_id: str) -> None:
        """Remove an index that nobody has open. Does nothing if it does not exist."""

    def close(self) -> None:
        """Close connections, after all indexes are closed."""
