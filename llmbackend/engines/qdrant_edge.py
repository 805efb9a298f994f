"""The embedded vector engine: Qdrant Edge in this process, with a shard (a folder) for each collection.

Its calls hold the interpreter's lock, so updates are small, and long work (building indexes, making a shard quick to
open) runs in a separate process (edge_build.py). Free space is checked before each write (disk.py), because on a full
disk the engine kills the process.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from .. import slices, threads
from ..disk import DELETING, Disk
from . import fusion
from .bm25 import NAME as BM25
from .bm25 import Sparse
from .edge_filtering import HELD, LEAST_BATCH, READ_BATCH, WALKED_AT_ONCE, Filtering, next_size
from .edge_refusals import translated
from .edge_shard import OWN_FIELDS, WRITTEN, config, kind_of, make_indexes
from .edge_syntax import EdgeSyntax
from .filters import Condition
from .indexes import NO_INDEXES, FieldType, Indexes, in_points, parts
from .interface import LISTS, Found, Layout, List, Physical, Scored, Search, VectorIndex, one_version
from .qdrant import (
    DENSE,
    NAMED_AT_ONCE,
    SPARSE,
    Dense,
    Point,
    QdrantIndex,
    chunk_of,
    depth_of,
)
from .qdrant_filters import are_indexed

WRITE_BATCH = 32
IN_USE = "in-use"  # a file that is in the folder of an open shard

SLOW_TO_OPEN = 10_000
"""If opening would read more chunks than this, at 10 µs each, the shard is first made quick to open. Opening reads the
chunks outside built segments (those are mapped from the disk); a repair after a kill reads all."""
_OF_CHUNK = 21  # bytes that a chunk takes in the file of a segment's ids

Build = Literal["indexes", "graph", "segments", "repair"]
"""What edge_build.py makes: "indexes" of fields; "graph": these and the graph for approximate search; "segments": the
indexes, and segments that open fast, without a graph; "repair": nothing new. All repair what a kill left."""

# Bytes of disk space, measured and rounded up. Files have holes, which take space once they are written to, or on tmpfs
# once they are read.
MAKING = 16 * 2**20
UPDATE = 4 * 2**20
"""What an update takes beside its points: files grow by whole megabytes."""
READ_TO_OPEN = ("segments/*/payload_index/**/*", f"segments/*/vector_storage-{DENSE}/**/*.mmap")


class QdrantEdge:
    """A VectorEngine in a folder, which belongs to one process at a time."""

    name = "edge"
    shared = False
    opening = threads.opening
    threads = threads.engine
    options: Mapping[str, Any] | None = None

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        """`disk` is the disk that the folder is on, or will be: it need not exist yet."""
        self._folder = folder
        self._disk = disk or Disk(folder, 0)

    def create(self, physical_id: str, layout: Layout) -> None:
        with self._disk.writing(MAKING + UPDATE * len(layout.indexes)):
            EdgeIndex.create(self._folder / physical_id, layout.dimension, layout.indexes)

    def open(self, physical: Physical, *, repair: bool = True) -> EdgeIndex:
        folder = self.folder(physical.id)
        holes = sum(_hole(file) for files in READ_TO_OPEN for file in folder.glob(files))
        with self._disk.writing(UPDATE + holes, 0):  # opening may use the reserve
            return EdgeIndex(self._folder / physical.id, physical, repair, self._disk)

    def drop(self, physical_id: str) -> None:
        folder = self._folder / physical_id
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def folder(self, physical_id: str) -> Path:
        return self._folder / physical_id

    def to_open_quickly(self, physical_id: str, *, graph: bool) -> Build | None:
        """Return what edge_build.py must do first, if opening the index would block this process for long; else None.

        An index with a `graph` is not built anew without it, however long opening takes.
        """
        ids = [
            (file.name.startswith("mutable"), file.stat().st_size // _OF_CHUNK)
            for file in self.folder(physical_id).glob("segments/*/*id_tracker.mappings")
        ]
        if not graph and sum(chunks for mutable, chunks in ids if mutable) > SLOW_TO_OPEN:
            return "segments"
        killed = (self.folder(physical_id) / IN_USE).exists()
        return "repair" if killed and sum(chunks for _, chunks in ids) > SLOW_TO_OPEN else None

    def copy(self, physical_id: str, copy_id: str, *, is_open: bool) -> None:
        """Copy an index that nobody writes to: an open one that is flushed, or a closed one as it was left."""

        with self._disk.writing(2 * self._size(physical_id)), translated(self._folder):
            # Twice the size, because building a graph writes everything anew.
            # The log is copied too, although a flush has moved its content into segments: it continues the numbers of
            # writes, and segments skip writes with a number that they have already seen.
            mark = (
                shutil.ignore_patterns(IN_USE) if is_open else None
            )  # of a closed index, it tells of a kill
            shutil.copytree(self.folder(physical_id), self.folder(copy_id), ignore=mark)

    def _size(self, physical_id: str) -> int:
        """Return the bytes of an index's files, including holes, which a copy does not have."""
        return sum(file.stat().st_size for file in self.folder(physical_id).rglob("*"))

    def close(self) -> None:
        pass


LARGE = 20_000  # chunks; so many are rebuilt to be named by time, in a shard of an earlier version
AT_ONCE, AT_ONCE_CHARACTERS = 64, 2_000
"""Most hits and characters of a search that runs on the event loop: in a thread, it would take a quarter longer."""


class EdgeIndex(QdrantIndex):
    """A VectorIndex in a folder, which belongs to one process at a time."""

    threads = threads.engine
    _walked_at_once = 64  # holds the interpreter's lock for half a millisecond

    def __init__(
        self,
        folder: Path,
        physical: Physical | None = None,
        repair: bool = True,
        disk: Disk | None = None,
    ) -> None:
        """Open the shard in a folder; raises BackendError if there is none."""
        self.folder = folder
        self._disk = disk or Disk(folder, 0)
        self._flushing = threading.Lock()
        self._unflushed = True
        self._written_at_once, self._deleted_at_once = 1, 16
        """Points of one update, adapted to the time that they take: metadata may be long, and indexed."""
        self._changed = 0
        """The time of the last change, in nanoseconds; no other process changes the folder."""
        physical = physical or Physical(folder.name, uuid.UUID(folder.name), BM25)
        with translated(folder, opening=True):
            import qdrant_edge

            self.syntax = EdgeSyntax()
            super().__init__(physical, self.syntax, folder / IN_USE)
            self._filtering = Filtering(self)
            self._edge: Any = qdrant_edge
            self._shard: Any = qdrant_edge.EdgeShard.load(str(folder))
            try:
                self._begin(repair)
            except BaseException:
                with suppress(Exception):
                    self._shard.close()
                raise

    @staticmethod
    def create(folder: Path, dimension: int, indexes: Indexes = NO_INDEXES) -> None:
        """Make an empty shard in a folder that does not exist yet."""
        with translated(folder):
            import qdrant_edge as edge

            folder.mkdir(parents=True)
            shard = edge.EdgeShard.create(str(folder), config(dimension))
            make_indexes(shard, OWN_FIELDS | in_points(indexes))
            shard.flush()
            shard.close()

    needs_indexes = False

    def at_once(self, asked: Search) -> bool:
        """True for short searches: Edge holds the interpreter's lock anyway, and the work around its call is short."""
        return not asked.conditions and asked.top_k <= AT_ONCE and len(asked.text) <= AT_ONCE_CHARACTERS

    def require_room(self, characters: int) -> None:
        self._disk.require(_COPIES * _BYTES * characters + UPDATE)

    def _write(self, points: Sequence[Point]) -> None:
        edge = self._edge
        start = 0
        with translated(self.folder):
            while start < len(points):
                slices.give_way()
                batch = points[start : start + self._written_at_once]
                start += len(batch)
                records = []
                for point in batch:
                    slices.give_way()
                    vector = {DENSE: point.dense.data, SPARSE: edge.SparseVector(*point.sparse)}
                    records.append(edge.Point(id=point.id, vector=vector, payload=point.payload))
                new = [(point.id, point.payload) for point in batch]
                with self._disk.writing(_size(batch) + UPDATE), self._filtering.adding(new):
                    took = self._update(edge.UpdateOperation.upsert_points(records))
                if took > HELD or len(batch) == self._written_at_once:
                    self._written_at_once = next_size(len(batch), took, 1, WRITE_BATCH)

    def _update(self, operation: Any) -> float:
        """Update the shard; return the seconds that this took."""
        began = time.perf_counter()
        try:
            self._shard.update(operation)
        finally:
            self._unflushed = True
            self._changed = time.time_ns()
        return time.perf_counter() - began

    def _may_be_changed_since(self, moment: int) -> bool:
        return self._changed >= moment

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        with translated(self.folder):
            found: Sequence[Any] = self._shard.retrieve(ids, with_payload=False, with_vector=False)
        return [record.id for record in found]

    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        records: list[Any] = []
        size = LEAST_BATCH if payload is True else limit
        while True:
            began = time.perf_counter()
            with translated(self.folder):
                page, offset = self._shard.scroll(
                    self._edge.ScrollRequest(
                        offset=offset,
                        limit=min(size, limit - len(records)),
                        filter=where,
                        with_payload=payload,
                        with_vector=[DENSE] if vectors else False,
                    )
                )
            records += page
            if offset is None or len(records) >= limit:
                return records, offset
            size = next_size(size, time.perf_counter() - began, LEAST_BATCH, READ_BATCH)
            slices.give_way()

    def _look(
        self, must: Sequence[Any], conditions: Sequence[Condition], limit: int, offset: Any, payload: Any
    ) -> tuple[Sequence[Any], Any]:
        quick = are_indexed(self._indexed, conditions) and self._filtering.quick(conditions)
        if not conditions or quick:
            return super()._look(must, conditions, limit, offset, payload)
        fitting: list[uuid.UUID] = []
        where = self._syntax.group(must=must) if must else None
        while len(fitting) <= limit:
            page, offset = self._scroll(where, WALKED_AT_ONCE, offset, False)
            fitting += self._filtering.fitting([record.id for record in page], conditions)
            if offset is None:
                break
        if len(fitting) > limit:
            offset = fitting[limit]
        found = {record.id: record for record in self._records(fitting[:limit], payload)}
        return [found[point] for point in fitting[:limit] if point in found], offset

    def _records(self, ids: list[uuid.UUID], payload: Any) -> list[Any]:
        """Return these points, in any order, with these fields of their payloads, or all."""
        found: list[Any] = []
        start, size = 0, LEAST_BATCH
        while start < len(ids):
            began = time.perf_counter()
            with translated(self.folder):
                some = self._shard.retrieve(
                    ids[start : start + size], with_payload=payload, with_vector=False
                )
            found += some
            start += size
            size = next_size(size, time.perf_counter() - began, 1, READ_BATCH)
            slices.give_way()
        return found

    def _count(self, where: Any = None) -> int:
        with translated(self.folder):
            return int(self._shard.count(self._edge.CountRequest(filter=where, exact=True)))

    def count(self) -> tuple[int, int]:
        return self._count(self._all_current([self._head()])), self.about()

    def _delete(self, where: Any) -> None:
        """Delete in parts: heads first, so that a version of which a kill leaves some is removed when this is opened."""
        for some in (self._syntax.group(must=[self._head(), where]), where):
            while ids := self.ids_of(some, self._deleted_at_once):
                slices.give_way()
                named = self.syntax.group(must=[self.syntax.among(set(ids))])
                with translated(self.folder), self._disk.writing(UPDATE, DELETING):
                    took = self._update(self._edge.UpdateOperation.delete_points_by_filter(named))
                last = len(ids) < self._deleted_at_once
                if took > HELD or not last:
                    self._deleted_at_once = next_size(len(ids), took, 1, NAMED_AT_ONCE)
                if last:
                    break

    def _nearest(
        self, vectors: Sequence[Dense | Sparse], limit: int, where: Any, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        queries = [self._nearest_to(vector) for vector in vectors]
        if where is None:
            return self.query(queries, limit)
        if are_indexed(self._indexed, conditions):
            in_graph = [not isinstance(vector, Sparse) for vector in vectors]
            return self._filtering.by_indexes(queries, in_graph, limit, where, conditions)
        return self._filtering.nearest(queries, limit, where, conditions)

    def search(self, asked: Search) -> list[Found]:
        mode = asked.mode
        if mode != "hybrid" and not asked.conditions and asked.top_k <= LEAST_BATCH:
            # With one list, these are the hits: reading their payloads in a second call would take longer.
            given = self._vector(mode, asked.text, asked.vector)
            [found] = self._queried([self._nearest_to(given)], asked.top_k, payload=True)
            hits = [Found(chunk_of(one.payload), one.score, {mode: one.score}) for one in found]
            if len(one_version({number: hit.chunk for number, hit in enumerate(hits)})) == len(hits):
                return hits
        return super().search(asked)

    def _best(self, asked: Search, *, current: bool) -> list[tuple[uuid.UUID, dict[str, float]]]:
        if asked.mode != "hybrid" or asked.conditions or current:
            return super()._best(asked, current=current)
        # Making an id takes a microsecond, and reading a version next to nothing. The same point has the same version in
        # both lists, so ids are compared only where a version is in both, and made for the best.
        vectors = [self._vector(name, asked.text, asked.vector) for name in LISTS["hybrid"]]
        dense, sparse = self._queried([self._nearest_to(one) for one in vectors], depth_of(asked))
        shared = {point.version for point in dense} & {point.version for point in sparse}
        places = {point.id: place for place, point in enumerate(sparse) if point.version in shared}
        points = [*sparse, *dense]
        numbers = [
            places.get(point.id, number) if point.version in shared else number
            for number, point in enumerate(dense, len(sparse))
        ]
        lists: dict[List, list[tuple[int, float]]] = {
            "dense": [(number, point.score) for number, point in zip(numbers, dense, strict=True)],
            "sparse": [(number, point.score) for number, point in enumerate(sparse)],
        }
        return [
            (points[number].id, scores) for number, scores in fusion.best(lists, asked.weight, asked.top_k)
        ]

    def about(self) -> int:
        """Return the number of chunks, without looking at each."""
        with translated(self.folder):
            return int(self._shard.count(self._edge.CountRequest(exact=False)))

    def estimated(self, conditions: Sequence[Condition]) -> int:
        """Return about how many points fit a filter on indexed fields, without looking at them."""
        with translated(self.folder):
            asked = self._edge.CountRequest(filter=self.where(conditions), exact=False)
            return int(self._shard.count(asked))

    def query(
        self, queries: list[Any], limit: int, where: Any = None, *, exact: bool = False
    ) -> list[list[Scored]]:
        """Return the points nearest to each query; if `exact`, by looking at all that fit, not by the graph."""
        found = self._queried(queries, limit, where, exact=exact)
        return [[(point.id, point.score) for point in points] for points in found]

    def _queried(
        self, queries: list[Any], limit: int, where: Any = None, *, payload: bool = False, exact: bool = False
    ) -> Any:
        edge = self._edge
        params = edge.SearchParams(exact=True) if exact else None
        asked = [
            edge.QueryRequest(limit=limit, query=query, filter=where, with_payload=payload, params=params)
            for query in queries
        ]
        with translated(self.folder):
            return self._shard.query_batch(edge.QueryBatchRequest(asked))

    def _nearest_to(self, vector: Dense | Sparse) -> Any:
        edge = self._edge
        if isinstance(vector, Sparse):
            return edge.Query.Nearest(edge.SparseVector(*vector), using=SPARSE)
        return edge.Query.Nearest(vector.data, using=DENSE)

    def ids_of(self, where: Any, limit: int) -> list[uuid.UUID]:
        """Return the first `limit` points that fit."""
        records, _ = self._scroll(where, limit, None, False)
        return [record.id for record in records]

    def where(self, conditions: Sequence[Condition]) -> Any:
        """Return conditions as Edge's filter."""
        return self._where(conditions, current=False)

    def pages(self, payload: Literal[False] | list[str], size: int) -> Iterator[Sequence[Any]]:
        """Yield all records in pages of at most `size`, with these fields of their payloads."""
        offset: Any = None
        some = size if payload is False else LEAST_BATCH
        while True:
            began = time.perf_counter()
            page, offset = self._scroll(None, some, offset, payload)
            some = next_size(some, time.perf_counter() - began, 1, size)
            yield page
            if offset is None:
                return

    def _learn_indexes(self) -> None:
        with translated(self.folder):
            schema = self._shard.info().payload_schema
        self._indexed = {parts(path): kind_of(index) for path, index in schema.items()}

    @property
    def names_by_time(self) -> bool:
        """Whether points can be named by the time at which they were written; not so in shards of earlier versions."""
        return (WRITTEN,) in self._indexed

    def lacks(self, indexes: Indexes) -> bool:
        return super().lacks(indexes) or (not self.names_by_time and self.about() >= LARGE)

    def _index_own_fields(self) -> None:
        """Nothing to do: every shard is made with them."""

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        """Nothing to do: a rebuild makes indexes (edge_build.py), since making them here would hold the interpreter's lock."""

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        """Nothing to do: searches also filter without an index (edge_filtering.py)."""

    def take_over(self, other: VectorIndex) -> None:
        if isinstance(other, EdgeIndex):
            self._filtering.take_over(other._filtering)

    def _payloads(self, ids: list[uuid.UUID]) -> list[tuple[uuid.UUID, dict[str, Any]]]:
        return [(record.id, record.payload) for record in self._records(ids, True)]

    def flush(self) -> None:
        """Flush, unless nothing was written: a flush takes tens of milliseconds in any case."""
        with self._flushing:
            if not self._unflushed:
                return
            self._unflushed = False
            try:
                self._flush()
            except BaseException:
                self._unflushed = True
                raise

    def _flush(self) -> None:
        # Edge holds the interpreter's lock while it waits for the disk, so most is synced before.
        for folder, _, names in os.walk(self.folder):
            for name in names:
                with suppress(OSError):  # some may be removed by now
                    file = os.open(os.path.join(folder, name), os.O_RDWR)
                    try:
                        os.fsync(file)
                    finally:
                        os.close(file)
        with translated(self.folder):
            self._shard.flush()

    def _close(self) -> None:
        self._filtering.close()
        with translated(self.folder):
            self._shard.close()
        if self._changed:  # looking for it takes some milliseconds
            _give_back_memory()


def _give_back_memory() -> None:
    """Have glibc return what a shard held in memory: it keeps free memory that lies between pieces in use."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None:
        trim(0)


def _hole(file: Path) -> int:
    """Return the bytes of a file that take no disk space yet."""
    about = file.stat()
    return max(0, about.st_size - 512 * getattr(about, "st_blocks", 0))  # Windows has no st_blocks


def _size(points: Sequence[Point]) -> int:
    """Estimate, generously, the bytes that these chunks take in the log and in segments."""
    size = 0
    metadata: Any = None
    of_metadata = 0
    for point in points:
        if (given := point.payload.get("metadata")) is not metadata:  # a document's chunks share one object
            metadata, of_metadata = given, len(repr(given))
        size += point.dense.nbytes + 8 * len(point.sparse.indices)
        size += _BYTES * (len(point.payload["text"]) + of_metadata) + 500
    return _COPIES * size


_BYTES = 4
"""Most bytes of a character."""
_COPIES = 3
"""Each chunk is in the log, in a segment, and in the segment that is being built from that one."""
