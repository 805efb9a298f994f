"""What both Qdrant engines share: how chunks are stored in points, and conditions and versions as filters.

Subclasses write and query points by their own library.
"""

from __future__ import annotations

import re
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import cached_property
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from .. import slices
from ..errors import InvalidRequest
from . import fusion
from .bm25 import Encoder, Sparse, encoder
from .filters import Condition
from .indexes import FieldType, Indexes, parts, places
from .interface import (
    LISTS,
    TRIES,
    Chunk,
    Found,
    Ids,
    List,
    Page,
    Physical,
    Scored,
    Search,
    Stored,
    VectorIndex,
    one_version,
    point_id,
)
from .qdrant_filters import Syntax, condition_of, groups_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DENSE, SPARSE = "dense", "bm25"
INDEXED_FIELDS = {"document_id": "keyword", "chunk": "integer"}

# The graph for approximate search (HNSW: Malkov and Yashunin, 2018).
HNSW_M, HNSW_EF_CONSTRUCT = 16, 128


NAMED_AT_ONCE = 256
"""Most documents that one call names: Edge holds the interpreter's lock during each call."""

READ_AT_ONCE = 256
PAGE_BYTES = 4 * 2**20
"""Bytes of a page's texts and vectors, about: a page is serialized as one piece of JSON."""

Dense: TypeAlias = "NDArray[np.float32]"

_Item = TypeVar("_Item")


class Point(NamedTuple):
    id: uuid.UUID
    dense: NDArray[np.float32]
    sparse: Sparse
    payload: dict[str, Any]


class QdrantIndex(ABC):
    """A VectorIndex of Qdrant points. The file `in_use` exists while the index is open.

    If several processes write to an index, `writer` identifies this one.
    """

    _walked_at_once = 1000
    """Records that `_every` reads at a time."""

    def __init__(self, physical: Physical, syntax: Syntax, in_use: Path, writer: str = "") -> None:
        self._namespace = physical.namespace
        self._sparse_model = physical.sparse_model
        self._syntax = syntax
        self._in_use = in_use
        self._writer = writer
        self._ahead: dict[str, int] = {}
        """Times of writing that are ahead of our clock, by document: another clock may be fast, or ours was set back."""
        self._last_moment = 0
        self._indexed: dict[tuple[str, ...], str] = {}
        """The type of index that each path of a point has."""

    @cached_property
    def _encoder(self) -> Encoder:
        """Looked up when needed, so that an index with an unknown sparse model can still be read and reindexed."""
        return encoder(self._sparse_model)

    def _begin(self, repair: bool) -> None:
        """Called by subclasses when points can be read. If the `in_use` file exists, the last process was killed."""
        self._learn_indexes()
        self._index_own_fields()
        if repair and self._in_use.exists():
            self._repair()
        self._in_use.touch()

    # What a subclass implements. Records have `id`, `payload` and `vector`; search hits also have a `score`.

    needs_indexes = True

    def at_once(self, asked: Search) -> bool:
        return False

    @abstractmethod
    def require_room(self, characters: int) -> None: ...

    @abstractmethod
    def _write(self, points: Sequence[Point]) -> None: ...

    @abstractmethod
    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        """Return which of these points exist."""

    @abstractmethod
    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        """Return records in a stable order, and the next page's offset (None after the last)."""

    @abstractmethod
    def _count(self, where: Any = None) -> int: ...

    @abstractmethod
    def _delete(self, where: Any) -> None: ...

    def _gone(self) -> list[Any]:
        """Return conditions that match superseded points."""
        return []

    @abstractmethod
    def _nearest(
        self, vectors: Sequence[Dense | Sparse], limit: int, where: Any, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        """Return the points nearest to each vector, best first. `where` is `conditions` as the engine's own filter."""

    @abstractmethod
    def _payloads(self, ids: list[uuid.UUID]) -> list[tuple[uuid.UUID, dict[str, Any]]]:
        """Return ids and payloads of those of these points that exist."""

    @abstractmethod
    def _learn_indexes(self) -> None:
        """Read which fields are indexed into `_indexed`."""

    @abstractmethod
    def _index_own_fields(self) -> None:
        """Index the fields of our own filters in collections of earlier versions that lack some."""

    @abstractmethod
    def prepare(self, fields: Indexes, declared: Indexes) -> None: ...

    @abstractmethod
    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None: ...

    @abstractmethod
    def take_over(self, other: VectorIndex) -> None: ...

    @abstractmethod
    def _close(self) -> None: ...

    # The index

    def upsert(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        points: list[Point] = []
        for chunk, vector in zip(chunks, vectors, strict=True):
            slices.give_way()
            sparse = self._encoder.document(chunk.words)
            points.append(Point(chunk.point_id(self._namespace), vector, sparse, self._payload(chunk)))
        self._write(points)

    def _payload(self, chunk: Chunk) -> dict[str, Any]:
        payload: dict[str, Any] = {
            "document_id": chunk.document_id,
            "hash": chunk.hash,
            "chunk": chunk.number,
            "chunks": chunk.total,
            "written": chunk.written or self._moment(chunk.document_id),
            "text": chunk.text,
        }
        # Edge is slow to convert dictionaries, even empty ones.
        if chunk.metadata:
            payload["metadata"] = chunk.metadata
        if chunk.place:
            payload["place"] = chunk.place
        if self._writer:
            payload["writer"] = self._writer
        return payload

    def _moment(self, document_id: str) -> int:
        """Return the time, which is later for each chunk than for the last: some clocks stand still for milliseconds."""
        self._last_moment = max(time.time_ns(), self._last_moment + 1)
        return max(self._last_moment, self._ahead.get(document_id, 0) + 1)

    def stored(self, versions: Sequence[tuple[str, str]]) -> set[str]:
        heads = {point_id(self._namespace, name, digest, 0): name for name, digest in versions}
        return {heads[there] for there in self._there(list(heads))}

    def known(self, document_ids: Sequence[str]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}

        def look(names: Sequence[str]) -> None:
            # A document being replaced has two heads for a moment, hence twice the number.
            where = self._all_current([self._head(), self._of(names)])
            heads, _ = self._scroll(where, 2 * len(names) + 1, None, ["document_id", "hash", "written"])
            now = time.time_ns()
            for record in heads:
                name, written = record.payload["document_id"], record.payload["written"]
                found.setdefault(name, set()).add(record.payload["hash"])
                if written >= now:
                    self._ahead[name] = written

        self._in_portions(document_ids, look)
        return found

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        def remove(some: Sequence[tuple[str, str]]) -> None:
            names = [name for name, _ in some]
            self._delete(self._syntax.group(must=[self._of(names)], must_not=self._these(some)))

        if older is not None:
            versions = [version for version in versions if version[0] in older]
        self._in_portions(versions, remove)

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        self._in_portions(versions, lambda some: self._delete(self._syntax.group(should=self._these(some))))

    def delete(self, document_ids: Sequence[str]) -> int:
        there = len(self.known(document_ids))
        self._in_portions(
            document_ids, lambda names: self._delete(self._syntax.group(must=[self._of(names)]))
        )
        return there

    def search(self, asked: Search) -> list[Found]:
        for attempt in range(TRIES):
            best = self._best(asked, current=attempt > 0)
            chunks = one_version(self.chunks([point for point, _ in best]))
            if len(chunks) == len(best) and not any(chunk.superseded for chunk in chunks.values()):
                break
        # Hashing a UUID is slow: each is looked up once.
        return [Found.of(chunk, scores) for point, scores in best if (chunk := chunks.get(point))]

    def _best(self, asked: Search, *, current: bool) -> list[tuple[uuid.UUID, dict[str, float]]]:
        """Return the `top_k` best points with their scores, best first; if `current`, none that are superseded."""
        limit = depth_of(asked)
        lists = self.lists(
            asked.text, asked.vector, LISTS[asked.mode], limit, asked.conditions, current=current
        )
        return fusion.best(lists, asked.weight, asked.top_k)

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
        vectors = {name: self._vector(name, text, vector) for name in which}
        where = self._where(conditions, current=current)
        found = self._nearest(list(vectors.values()), limit, where, conditions)
        return dict(zip(vectors, found, strict=True))

    def _where(self, conditions: Sequence[Condition], *, current: bool) -> Any:
        if not conditions and not current:
            return None
        groups = groups_of(self._syntax, self._indexed, conditions)
        groups["must_not"] += self._gone() if current else []
        return self._syntax.group(**groups) if any(groups.values()) else None

    def _vector(self, name: List, text: str, vector: NDArray[np.float32] | None) -> Dense | Sparse:
        if name == "sparse":
            return self._encoder.query(text)
        assert vector is not None, "dense and hybrid searches come with a vector"
        return vector

    def chunks(self, ids: Sequence[uuid.UUID]) -> dict[uuid.UUID, Chunk]:
        return {point: chunk_of(payload) for point, payload in self._payloads(list(ids))}

    def documents(self, limit: int, cursor: str | None) -> Page:
        """Return heads in the order of their ids, then those written since the listing began.

        A document that is replaced meanwhile gets a new head, whose id may be before the current page.
        """
        since, late, start = _listing(cursor)
        chunks: list[Chunk] = []
        following: str | None = None
        if not late:
            chunks, _, following = self._read([self._head()], limit, start)
            start = None
        if following is None and self._may_be_changed_since(since):
            late = True
            if len(chunks) == limit:
                return Page(_of_one_version(chunks), f"{since}+")
            written = self._syntax.range("written", {"gte": since})
            new, _, following = self._read([self._head(), written], limit - len(chunks), start)
            again = {chunk.document_id for chunk in new}
            chunks = [chunk for chunk in chunks if chunk.document_id not in again] + new
        return Page(_of_one_version(chunks), following and f"{since}{'+' if late else '-'}{following}")

    def _may_be_changed_since(self, moment: int) -> bool:
        return True

    def passages(
        self,
        limit: int,
        cursor: str | None,
        document_ids: Sequence[str] | None = None,
        conditions: Sequence[Condition] = (),
    ) -> Page:
        must = [] if document_ids is None else [self._of(document_ids)]
        chunks, _, following = self._read(must, limit, cursor, conditions)
        return Page(_of_one_version(chunks), following)

    def read(self, limit: int, cursor: str | None, document_ids: Sequence[str] | None = None) -> Stored:
        import numpy as np

        must = [] if document_ids is None else [self._of(document_ids)]
        chunks, rows, following = self._read(must, limit, cursor, vectors=True)
        return Stored(chunks, np.asarray(rows, dtype=np.float32), following)

    def _look(
        self, must: Sequence[Any], conditions: Sequence[Condition], limit: int, offset: Any, payload: Any
    ) -> tuple[Sequence[Any], Any]:
        """Return as `_scroll` does the current points that fit the engine's filters `must`, and conditions."""
        where = self._all_current([*must, *(self._condition(one) for one in conditions)])
        return self._scroll(where, limit, offset, payload)

    def _read(
        self,
        must: Sequence[Any],
        limit: int,
        cursor: str | None,
        conditions: Sequence[Condition] = (),
        *,
        vectors: bool = False,
    ) -> tuple[list[Chunk], list[NDArray[np.float32]], str | None]:
        """Return a page's chunks, their vectors (empty without `vectors`), and the next page's cursor."""
        import numpy as np

        chunks: list[Chunk] = []
        rows: list[NDArray[np.float32]] = []
        size, offset = 0, _offset(cursor)
        while True:
            most = min(READ_AT_ONCE, limit - len(chunks))
            if vectors:
                records, offset = self._scroll(self._all_current(must), most, offset, True, vectors=True)
            else:
                records, offset = self._look(must, conditions, most, offset, True)
            for record in records:
                payload = record.payload
                size += len(payload["text"]) + len(repr(payload.get("metadata")))
                if vectors:
                    row = np.asarray(record.vector[DENSE], dtype=np.float32)
                    size += row.nbytes
                if size > PAGE_BYTES and chunks:
                    return chunks, rows, str(record.id)
                chunks.append(chunk_of(payload))
                if vectors:
                    rows.append(row)
            if offset is None or len(chunks) >= limit:
                return chunks, rows, str(offset) if offset else None

    def ids(self, limit: int, cursor: str | None, conditions: Sequence[Condition] = ()) -> Ids:
        records, following = self._look([], conditions, limit, _offset(cursor), ["document_id"])
        documents = {uuid.UUID(str(record.id)): record.payload["document_id"] for record in records}
        return Ids(documents, str(following) if following else None)

    def there(self, ids: Collection[uuid.UUID]) -> set[uuid.UUID]:
        return set(self._there(list(ids)))

    def count(self) -> tuple[int, int]:
        return self._count(self._all_current([self._head()])), self._count(self._all_current())

    @abstractmethod
    def flush(self) -> None: ...

    def close(self) -> None:
        self.flush()
        self._close()
        self._in_use.unlink(missing_ok=True)

    def _repair(self) -> None:
        """After a kill, keep the newest version of each document that has a head.

        Of the versions without a head, only this process's are removed: other processes may still be writing theirs.
        """
        newest: dict[str, tuple[int, str]] = {}
        every: set[tuple[str, str]] = set()
        for record in self._every(["document_id", "hash", "chunk", "written", "writer", "superseded"]):
            if record.get("superseded"):
                continue
            version = name, digest = record["document_id"], record["hash"]
            if record["chunk"] == 0:
                newest[name] = max(newest.get(name, (0, "")), (record["written"], digest))
                every.add(version)
            elif record.get("writer", "") == self._writer:
                every.add(version)
        for name, digest in every:
            if name not in newest or newest[name][1] != digest:
                self.discard([(name, digest)])

    def _portions(self, items: Sequence[_Item], most: float = inf) -> Iterator[Sequence[_Item]]:
        size = int(min(most, self._named_at_once))
        for start in range(0, len(items), size):
            yield items[start : start + size]

    def _in_portions(self, items: Sequence[_Item], work: Callable[[Sequence[_Item]], None]) -> None:
        waiting = list(self._portions(items))
        while waiting:
            some = waiting.pop(0)
            try:
                work(some)
            except InvalidRequest as error:
                if len(some) == 1 or not error.details.get("strict"):
                    raise
                # The server's limit is lower than we knew.
                waiting[:0] = self._portions(some, len(some) // 2)

    @property
    def _named_at_once(self) -> int:
        """Most documents that a filter may name."""
        return NAMED_AT_ONCE

    def _every(self, payload: list[str]) -> Iterator[dict[str, Any]]:
        offset: Any = None
        while True:
            slices.give_way()
            records, offset = self._scroll(None, self._walked_at_once, offset, payload)
            yield from (record.payload for record in records)
            if offset is None:
                return

    # Indexes of metadata fields

    def lacks(self, indexes: Indexes) -> bool:
        return any(
            self._indexed.get(parts(path)) != kind
            for field, kind in indexes.items()
            for path in places(field)
        )

    # Filters

    def _all_current(self, must: Sequence[Any] = ()) -> Any:
        gone = self._gone()
        return self._syntax.group(must=must, must_not=gone) if must or gone else None

    def _head(self) -> Any:
        return self._syntax.equals("chunk", 0)

    def _of(self, document_ids: Sequence[str]) -> Any:
        return self._syntax.any_of("document_id", list(document_ids))

    def _these(self, versions: Sequence[tuple[str, str]]) -> list[Any]:
        """Return a condition for each version. It names the document too, because two may have the same content hash."""
        return [
            self._syntax.group(must=[self._of([name]), self._syntax.equals("hash", digest)])
            for name, digest in versions
        ]

    def _condition(self, condition: Condition) -> Any:
        return condition_of(self._syntax, self._indexed, condition)


def depth_of(asked: Search) -> int:
    """Return how many points of each list a search needs."""
    return fusion.depth(asked.top_k) if asked.mode == "hybrid" else asked.top_k


_CURSOR = re.compile(r"(\d{1,19})([+-])(.*)")


def _of_one_version(chunks: Sequence[Chunk]) -> list[Chunk]:
    return list(one_version(dict(enumerate(chunks))).values())


def _listing(cursor: str | None) -> tuple[int, bool, str | None]:
    """Parse a cursor: when the listing began, whether it lists what was written since, and where it continues."""
    if cursor is None:
        return time.time_ns(), False, None
    if not (found := _CURSOR.fullmatch(cursor)):
        raise _no_cursor()
    return int(found[1]), found[2] == "+", found[3]


def _no_cursor() -> InvalidRequest:
    return InvalidRequest("cursor: this is not a cursor that an earlier page returned")


def _offset(cursor: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(cursor) if cursor else None
    except ValueError:
        raise _no_cursor() from None


def chunk_of(payload: dict[str, Any]) -> Chunk:
    return Chunk(
        document_id=payload["document_id"],
        hash=payload["hash"],
        number=payload["chunk"],
        total=payload["chunks"],
        text=payload["text"],
        metadata=payload.get("metadata", {}),
        place=payload.get("place", {}),
        written=payload["written"],
        superseded="superseded" in payload,
    )
