"""The seam to vector engines: what an index of chunks can do, in terms that belong to no engine.

A document's version is a set of points, one a chunk, and its head (chunk 0) is written last. A version without a head
is removed when an index is opened after a crash, so that a document is wholly old or wholly new again. A point's id follows from collection, document,
content hash and chunk number, so that writing again changes nothing.
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


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of one version of a document. `number` counts from 0 to `total` - 1.

    `place` is where in its document it stands: `page`, from 1, and `headings`, the titles above it, outermost first,
    where the document has such. Of short sections that one chunk joins, the titles below those are `sections`.
    """

    document_id: str
    hash: str
    number: int
    total: int
    text: str
    metadata: dict[str, Any] = field(default_factory=dict)
    place: dict[str, Any] = field(default_factory=dict)
    written: int = field(default=0, compare=False)
    """When, in nanoseconds since 1970; 0 if it is not stored yet."""
    superseded: bool = field(default=False, compare=False)
    """Whether another version of its document has taken its place, and it will be gone soon."""

    @property
    def headings(self) -> list[str]:
        found: list[str] = self.place.get("headings", [])
        return found

    @property
    def in_context(self) -> str:
        """The text below the headings it stands under, its words in one piece: what is embedded."""
        return legible(self.below_headings)

    @property
    def words(self) -> str:
        """The same for a search by words."""
        return with_parts(self.below_headings)

    @property
    def below_headings(self) -> str:
        headings = " > ".join(self.headings)
        return f"{headings}\n\n{self.text}" if headings else self.text

    def point_id(self, namespace: uuid.UUID) -> uuid.UUID:
        return point_id(namespace, self.document_id, self.hash, self.number)


def point_id(namespace: uuid.UUID, document_id: str, content_hash: str, number: int) -> uuid.UUID:
    return uuid.uuid5(namespace, f"{document_id}\0{content_hash}\0{number}")


class Found(NamedTuple):
    """A chunk that a search found; a higher score is better."""

    chunk: Chunk
    score: float
    """The last of its `scores`."""
    scores: dict[str, float]
    """`dense` (cosine), `sparse` (BM25), `weight` (of the first beside the second), `fused`: what there is."""

    @classmethod
    def of(cls, chunk: Chunk, scores: dict[str, float]) -> Found:
        return cls(chunk, next(reversed(scores.values())), scores)


TRIES = 3
"""How often to search when hits are gone or superseded by the time they are read: their documents were replaced
meanwhile."""


def one_version(chunks: Mapping[_Key, Chunk]) -> dict[_Key, Chunk]:
    """The chunks of one version of each document: while one is being replaced, of the old version until it is
    superseded.
    """
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
"""A point that a search found, and its score; a higher one is better."""


class Page(NamedTuple):
    """Chunks, or heads of documents, in a stable order, and where the next page starts (None after the last)."""

    heads: list[Chunk]
    cursor: str | None


class Stored(NamedTuple):
    """Chunks with their dense vectors, in no order, and where the next page starts (None after the last)."""

    chunks: list[Chunk]
    vectors: NDArray[np.float32]
    cursor: str | None


def gone(error: LLMBackendError) -> bool:
    """Whether the error says that an index does not exist: another process may have removed it."""
    return error.details.get("gone") is True


def damaged(error: LLMBackendError) -> bool:
    """Whether the error says that an index is unreadable or has failed inside."""
    return error.details.get("damaged") is True


def fitting(
    rows: Sequence[NDArray[np.float32] | list[float]], dimension: int, named: Callable[[int], str]
) -> NDArray[np.float32]:
    """Vectors from elsewhere as a block; raises InvalidRequest for one that cannot be stored, and found again.

    Tells which by its name, for it is not among our own.
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
"""Length of a vector that can be scaled to 1 in float32, where its square would be infinite beyond."""


class Ids(NamedTuple):
    """Chunks' points with the documents that they are of, in no order, and where the next page starts (None after the last)."""

    documents: dict[uuid.UUID, str]
    cursor: str | None


class VectorIndex(Protocol):
    """One collection's chunks in a vector engine. Methods block and may be called from any thread, in `threads`:

        index = engine.open(physical)
        index.upsert(chunks, vectors)                  # a row of float32 a chunk, of the collection's dimension
        index.flush()                                  # until then, a power cut may lose it
        index.search("reset button", vector, mode="hybrid", top_k=5)
        index.close()                                  # by who opened it, when no call is under way

    Each raises BackendError: `damaged` is true of it where the index cannot be read, `gone` where it is no more. Any number of
    reads may be under way, beside one write.
    """

    @property
    def threads(self) -> Threads:
        """The threads that its calls run in."""

    def at_once(self, text: str, top_k: int, conditions: Sequence[Condition]) -> bool:
        """Whether such a search is best run on the event loop: in a thread, it would hold the interpreter's lock all
        the same.
        """

    def require_room(self, characters: int) -> None:
        """Raises InsufficientStorage where chunks with so much text could not be written: before they are embedded."""

    def upsert(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        """Write chunks with their dense vectors, of shape (chunks, dimension); BM25 vectors are the index's business.

        Those that are there already, by their points' ids, are written again. Raises InsufficientStorage.
        """

    def stored(self, versions: Sequence[tuple[str, str]]) -> set[str]:
        """Of `(document id, content hash)` pairs, the ids of those stored whole."""

    def known(self, document_ids: Sequence[str]) -> dict[str, set[str]]:
        """Of these documents those that are there, each with its versions' content hashes: while it is replaced, it has two."""

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        """Of these documents, which were just written, remove every version but the one named.

        `older` are those that were there before, if that is known. Others may be reading them: where finding and reading are not one, they
        go a little later, and are passed over. Where other processes may write the same documents at the same moment,
        the version that was written last stays, whoever comes last to this.
        """

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        """Remove these versions."""

    def delete(self, document_ids: Sequence[str]) -> int:
        """Remove documents; returns how many there were."""

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        mode: Mode,
        top_k: int,
        conditions: Sequence[Condition] = (),
        weight: float = 1.0,
    ) -> list[Found]:
        """The best chunks for a query, best first. `vector` may be None in sparse mode only.

        `weight` is what the dense list counts beside the sparse one.
        """

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
        """Of each of these lists the first points: those of several indexes become one before they are fused.

        Superseded ones, of which there are few and seldom, may be among them unless only the `current` are asked for.
        """

    def chunks(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Chunk]:
        """Of these points, those that are there."""

    def documents(self, limit: int, cursor: str | None) -> Page:
        """Heads, a page at a time: each that is there all the time at least once, and again if it is written meanwhile."""

    def passages(
        self,
        limit: int,
        cursor: str | None,
        document_ids: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Page:
        """Chunks without their vectors: all, those of these documents, those that fit the conditions."""

    def read(self, limit: int, cursor: str | None, document_ids: Sequence[str] | None = None) -> Stored:
        """Everything, or of these documents everything, a page at a time."""

    def ids(self, limit: int, cursor: str | None, conditions: Sequence[Condition] = ()) -> Ids: ...

    def there(self, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        """Which of these points there are."""

    def count(self) -> tuple[int, int]:
        """How many documents and how many chunks."""

    def lacks(self, indexes: Indexes) -> bool:
        """Whether any of these indexes of metadata fields is missing."""

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        """Called before a search by fields that are not declared: what it cannot do without an index of gets one, if there is room."""

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        """Make, change or (None) remove indexes of metadata fields; where that takes long they come with a rebuild.

        They are all `declared` then: of others, some may have to go.
        """

    def take_over(self, other: VectorIndex) -> None:
        """Called when this has replaced another index with the same chunks, whose caches it may take over."""

    def flush(self) -> None:
        """Make everything written so far survive a power cut."""

    def close(self) -> None:
        """Flush and release files and threads; not to be used afterwards."""


class Physical(NamedTuple):
    """A physical collection: what it is called in its engine, and what opening it takes.

    Points' ids follow from `namespace`, which stays when a collection moves to another physical one.
    """

    id: str
    namespace: uuid.UUID
    sparse_model: str


class Layout(NamedTuple):
    """What an index is made with."""

    dimension: int
    indexes: Indexes = NO_INDEXES
    """Of metadata fields."""
    options: Mapping[str, Any] = MappingProxyType({})
    """Of the engine."""


class VectorEngine(Protocol):
    """Where indexes are kept. Methods block and may be called from any thread."""

    name: str
    shared: bool
    """Whether other processes may write to its indexes."""
    threads: Threads
    """The threads that its calls, and those of its indexes, run in."""
    options: Mapping[str, Any] | None
    """What its indexes are made with unless other options are given; None if it takes no options."""

    def create(self, physical_id: str, layout: Layout) -> None:
        """Make an empty index."""

    def open(self, physical: Physical, *, repair: bool = True) -> VectorIndex:
        """An index that is there, repaired if need be; raises BackendError, of which `gone` is true, if it is not. It has one user at a time.

        One that is half filled with parts of documents is not to be repaired: they would go.
        """

    def drop(self, physical_id: str) -> None:
        """Remove an index that nobody has open; nothing happens if there is none."""

    def close(self) -> None: ...
