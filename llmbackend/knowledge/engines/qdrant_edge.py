"""The embedded vector engine: Qdrant Edge, one shard (a folder) a collection, in this process.

Its updates hold the interpreter's lock: they are kept small. `optimize`, which holds it for minutes, runs in a process
of its own (edge_build.py).
"""

from __future__ import annotations

import os
import shutil
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ... import threads
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
SEARCH_THREADS = 2  # of each open collection; there may be hundreds


class QdrantEdge:
    """A VectorEngine in a folder, which belongs to one process at a time."""

    name = "edge"
    shared = False
    threads = threads.engine

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def create(self, physical_id: str, dimension: int) -> None:
        EdgeIndex.create(self._folder / physical_id, dimension)

    def open(self, physical: Physical, *, repair: bool = True) -> EdgeIndex:
        return EdgeIndex(self._folder / physical.id, physical, repair)

    def drop(self, physical_id: str) -> None:
        folder = self._folder / physical_id
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)

    def folder(self, physical_id: str) -> Path:
        return self._folder / physical_id

    def copy(self, physical_id: str, copy_id: str) -> None:
        """Copy an index that nobody writes to and that has been flushed."""

        with _translated():
            # With the log, though a flush has put all of it into the segments: it numbers what is written, and
            # segments pass over what has a smaller number than they have seen.
            shutil.copytree(
                self.folder(physical_id), self.folder(copy_id), ignore=shutil.ignore_patterns(IN_USE)
            )

    def close(self) -> None:
        pass


class EdgeIndex(QdrantIndex):
    """A VectorIndex in a folder. The folder belongs to one process at a time."""

    threads = threads.engine

    def __init__(self, folder: Path, physical: Physical | None = None, repair: bool = True) -> None:
        """Open the shard in a folder; raises BackendError if there is none."""
        self._folder = folder
        self._flushing = threading.Lock()
        self._unflushed = True
        physical = physical or Physical(folder.name, uuid.UUID(folder.name), BM25)
        with _translated():
            import qdrant_edge

            super().__init__(physical, _Syntax(), folder / IN_USE)
            self._edge: Any = qdrant_edge
            self._shard: Any = qdrant_edge.EdgeShard.load(str(folder))
            self._begin(repair)

    @staticmethod
    def create(folder: Path, dimension: int) -> None:
        """Make an empty shard in a folder that is not there yet."""
        with _translated():
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
        with _translated():
            for start in range(0, len(points), WRITE_BATCH):
                batch = [
                    edge.Point(
                        id=point.id,
                        vector={DENSE: point.dense.data, SPARSE: edge.SparseVector(*point.sparse)},
                        payload=point.payload,
                    )
                    for point in points[start : start + WRITE_BATCH]
                ]
                self._update(edge.UpdateOperation.upsert_points(batch))

    def _update(self, operation: Any) -> None:
        try:
            self._shard.update(operation)
        finally:
            self._unflushed = True

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        with _translated():
            found: Sequence[Any] = self._shard.retrieve(ids, with_payload=False, with_vector=False)
        return [record.id for record in found]

    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        with _translated():
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
        with _translated():
            return int(self._shard.count(self._edge.CountRequest(filter=where, exact=True)))

    def _delete(self, where: Any) -> None:
        with _translated():
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
        with _translated():
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
        with _translated():
            self._shard.flush()

    def _close(self) -> None:
        with _translated():
            self._shard.close()


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
def _translated() -> Iterator[None]:
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
        raise BackendError(f"Qdrant Edge: {error}", details={"backend": "Qdrant Edge"}) from error
