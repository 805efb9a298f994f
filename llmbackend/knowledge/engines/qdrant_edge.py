"""The embedded vector engine: Qdrant Edge, one shard (a folder) a collection, in this process.

Its updates hold the interpreter's lock: they are kept small. `optimize`, which holds it for minutes, runs in a process
of its own (edge_build.py). What it writes is asked room for before (disk.py): it is killed where there is none.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ... import threads
from ...disk import DELETING, FULL, Disk, full
from ...errors import BackendError, LLMBackendError
from .bm25 import NAME as BM25
from .bm25 import Sparse
from .qdrant import (
    DENSE,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    INDEXED_FIELDS,
    SPARSE,
    Point,
    QdrantIndex,
)
from .vectors import RRF_K, RRF_WEIGHTS, Physical, fusion_depth

WRITE_BATCH = 128
GRAPH_FROM = 5_000  # kilobytes of vectors; fewer are searched as fast without
IN_USE = "in-use"  # a file in an open shard's folder
_OS_ERROR = re.compile(r"os error (\d+)")
SEARCH_THREADS = 2  # of each open collection; there may be hundreds

# Bytes, as measured and rounded up: files have holes, which are filled as they are written to, and on tmpfs as they are
# read.
MAKING = 16 * 2**20
UPDATE = 4 * 2**20
"""Of any update, beside its points: files that grow by a whole megabyte."""
READ_TO_OPEN = ("segments/*/payload_index/**/*", f"segments/*/vector_storage-{DENSE}/**/*.mmap")


class QdrantEdge:
    """A VectorEngine in a folder, which belongs to one process at a time."""

    name = "edge"
    shared = False
    threads = threads.engine

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        """`disk` is the one that the folder, which may not be there yet, will be on."""
        self._folder = folder
        self._disk = disk or Disk(folder, 0)

    def create(self, physical_id: str, dimension: int) -> None:
        with self._disk.writing(MAKING):
            EdgeIndex.create(self._folder / physical_id, dimension)

    def open(self, physical: Physical, *, repair: bool = True) -> EdgeIndex:
        folder = self.folder(physical.id)
        holes = sum(_hole(file) for files in READ_TO_OPEN for file in folder.glob(files))
        with self._disk.writing(UPDATE + holes, 0):  # the reserve is there for this, too
            return EdgeIndex(self._folder / physical.id, physical, repair, self._disk)

    def drop(self, physical_id: str) -> None:
        folder = self._folder / physical_id
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def folder(self, physical_id: str) -> Path:
        return self._folder / physical_id

    def copy(self, physical_id: str, copy_id: str) -> None:
        """Copy an index that nobody writes to and that has been flushed."""

        with self._disk.writing(2 * self._size(physical_id)), _translated(self._folder):
            # Twice the size, for the graph's builder writes everything anew.
            # With the log, though a flush has put all of it into the segments: it numbers what is written, and
            # segments pass over what has a smaller number than they have seen.
            shutil.copytree(
                self.folder(physical_id), self.folder(copy_id), ignore=shutil.ignore_patterns(IN_USE)
            )

    def _size(self, physical_id: str) -> int:
        """Bytes of an index's files, holes included: a copy has none."""
        return sum(file.stat().st_size for file in self.folder(physical_id).rglob("*"))

    def close(self) -> None:
        pass


class EdgeIndex(QdrantIndex):
    """A VectorIndex in a folder. The folder belongs to one process at a time."""

    threads = threads.engine

    def __init__(
        self,
        folder: Path,
        physical: Physical | None = None,
        repair: bool = True,
        disk: Disk | None = None,
    ) -> None:
        """Open the shard in a folder; raises BackendError if there is none."""
        self._folder = folder
        self._disk = disk or Disk(folder, 0)
        self._flushing = threading.Lock()
        self._unflushed = True
        physical = physical or Physical(folder.name, uuid.UUID(folder.name), BM25)
        with _translated(folder):
            import qdrant_edge

            super().__init__(physical, _Syntax(), folder / IN_USE)
            self._edge: Any = qdrant_edge
            self._shard: Any = qdrant_edge.EdgeShard.load(str(folder))
            self._begin(repair)

    @staticmethod
    def create(folder: Path, dimension: int) -> None:
        """Make an empty shard in a folder that is not there yet."""
        with _translated(folder):
            import qdrant_edge as edge

            folder.mkdir(parents=True)
            shard = edge.EdgeShard.create(str(folder), config(dimension))
            kinds = {"keyword": edge.PayloadSchemaType.Keyword, "integer": edge.PayloadSchemaType.Integer}
            for name, kind in INDEXED_FIELDS.items():
                shard.update(edge.UpdateOperation.create_field_index(name, kinds[kind]))
            shard.flush()
            shard.close()

    def _write(self, points: Sequence[Point]) -> None:
        edge = self._edge
        with _translated(self._folder):
            for start in range(0, len(points), WRITE_BATCH):
                batch = points[start : start + WRITE_BATCH]
                records = [
                    edge.Point(
                        id=point.id,
                        vector={DENSE: point.dense.data, SPARSE: edge.SparseVector(*point.sparse)},
                        payload=point.payload,
                    )
                    for point in batch
                ]
                with self._disk.writing(_size(batch) + UPDATE):
                    self._update(edge.UpdateOperation.upsert_points(records))

    def _update(self, operation: Any) -> None:
        try:
            self._shard.update(operation)
        finally:
            self._unflushed = True

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        with _translated(self._folder):
            found: Sequence[Any] = self._shard.retrieve(ids, with_payload=False, with_vector=False)
        return [record.id for record in found]

    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        with _translated(self._folder):
            page: tuple[Sequence[Any], Any] = self._shard.scroll(
                self._edge.ScrollRequest(
                    offset=offset,
                    limit=limit,
                    filter=where,
                    with_payload=payload,
                    with_vector=[DENSE] if vectors else False,
                )
            )
        return page

    def _count(self, where: Any = None) -> int:
        with _translated(self._folder):
            return int(self._shard.count(self._edge.CountRequest(filter=where, exact=True)))

    def _delete(self, where: Any) -> None:
        with _translated(self._folder), self._disk.writing(UPDATE, DELETING):
            self._update(self._edge.UpdateOperation.delete_points_by_filter(where))

    def _query(
        self, dense: list[float] | None, sparse: Sparse | None, top_k: int, where: Any
    ) -> Sequence[Any]:
        edge = self._edge
        lists = []
        if dense is not None:
            lists.append(edge.Query.Nearest(dense, using=DENSE))
        if sparse is not None:
            lists.append(edge.Query.Nearest(edge.SparseVector(*sparse), using=SPARSE))
        if len(lists) == 1:
            request = edge.QueryRequest(limit=top_k, query=lists[0], filter=where, with_payload=True)
        else:
            depth = fusion_depth(top_k)
            request = edge.QueryRequest(
                limit=top_k,
                query=edge.Fusion.Rrf(k=RRF_K, weights=RRF_WEIGHTS),
                prefetches=[edge.Prefetch(limit=depth, query=query, filter=where) for query in lists],
                with_payload=True,
            )
        with _translated(self._folder):
            found: Sequence[Any] = self._shard.query(request)
        return found

    def flush(self) -> None:
        """Takes tens of milliseconds even if little was written, so nothing is done if nothing was."""
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
        # Edge holds the interpreter's lock while it waits for the disk: let the disk have most of it before.
        for file in self._folder.rglob("*"):
            with suppress(OSError), file.open("rb+") as opened:  # some are folders, and some are gone by now
                os.fsync(opened.fileno())
        with _translated(self._folder):
            self._shard.flush()

    def _close(self) -> None:
        with _translated(self._folder):
            self._shard.close()


def _hole(file: Path) -> int:
    """Bytes of a file that are not on the disk yet."""
    about = file.stat()
    return max(0, about.st_size - 512 * getattr(about, "st_blocks", 0))  # Windows does not tell


def _size(points: Sequence[Point]) -> int:
    """Bytes that these take in the log and in the segments, generously."""
    size = 0
    metadata: Any = None
    of_metadata = 0
    for point in points:
        if (
            given := point.payload.get("metadata")
        ) is not metadata:  # of a document, which has several chunks
            metadata, of_metadata = given, len(repr(given))
        size += point.dense.nbytes + 8 * len(point.sparse.indices)
        size += 4 * (len(point.payload["text"]) + of_metadata) + 500
    return 3 * size


class _Syntax:
    def __init__(self) -> None:
        import qdrant_edge

        self._edge: Any = qdrant_edge

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._edge.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )

    def equals(self, key: str, value: str | int | bool) -> Any:
        import numpy as np

        # The binding takes Python's bool for the integer it is; numpy's it takes for a truth value.
        given: Any = np.bool_(value) if isinstance(value, bool) else value
        return self._edge.FieldCondition(key, match=self._edge.MatchValue(given))

    def any_of(self, key: str, values: list[str] | list[int]) -> Any:
        return self._edge.FieldCondition(key, match=self._edge.MatchAny(values))

    def range(self, key: str, bounds: dict[str, float]) -> Any:
        return self._edge.FieldCondition(key, range=self._edge.RangeFloat(**bounds))

    def empty(self, key: str) -> Any:
        return self._edge.IsEmptyCondition(key)


def config(dimension: int) -> Any:
    """What a shard is made with."""
    import qdrant_edge as edge

    return edge.EdgeConfig(
        vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
        sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        hnsw_config=edge.HnswIndexConfig(
            m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, full_scan_threshold=10_000
        ),
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=GRAPH_FROM),
        max_search_threads=SEARCH_THREADS,
    )


@contextmanager
def _translated(folder: Path) -> Iterator[None]:
    """Qdrant Edge raises bare Exceptions; here, and only here, they become ours."""

    try:
        yield
    except LLMBackendError:
        raise
    except ModuleNotFoundError as error:
        raise BackendError(
            f"the embedded vector engine is not installed (missing: {error.name}): "
            "pip install 'llmbackend[embedded]'",
            details={"backend": "Qdrant Edge"},
        ) from error
    except Exception as error:
        told = _OS_ERROR.search(str(error))
        if (int(told[1]) if told else getattr(error, "errno", None)) in FULL:
            raise full(folder) from error
        raise BackendError(f"Qdrant Edge: {error}", details={"backend": "Qdrant Edge"}) from error
