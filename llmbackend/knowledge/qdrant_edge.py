"""The embedded vector engine: Qdrant Edge, one shard (a folder) a collection, in this process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import BackendError, InvalidRequest
from .vectors import PLACE, RRF_K, RRF_WEIGHTS, Chunk, Condition, Found, Mode, Page, fusion_depth, point_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DENSE, SPARSE = "dense", "bm25"
WRITE_BATCH = 256
SEARCH_THREADS = 2  # of each open collection; there may be hundreds


class EdgeIndex:
    """A VectorIndex in a folder. The folder belongs to one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open the shard in a folder; raises BackendError if there is none."""
        self._namespace = uuid.UUID(folder.name)
        # Present while the shard is open: finding it on opening means that the last process was killed.
        self._in_use = folder / "in-use"
        with _translated():
            import qdrant_edge

            self._edge: Any = qdrant_edge
            self._bm25 = qdrant_edge.Bm25()
            self._shard: Any = qdrant_edge.EdgeShard.load(str(folder))
            if self._in_use.exists():
                self._repair()
            self._in_use.touch()

    @staticmethod
    def create(folder: Path, dimension: int) -> None:
        """Make an empty shard in a folder that is not there yet."""
        with _translated():
            import qdrant_edge as edge

            folder.mkdir(parents=True)
            shard = edge.EdgeShard.create(
                str(folder),
                edge.EdgeConfig(
                    vectors={DENSE: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)},
                    sparse_vectors={SPARSE: edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
                    max_search_threads=SEARCH_THREADS,
                ),
            )
            for name, schema in (
                ("document_id", edge.PayloadSchemaType.Keyword),
                ("chunk", edge.PayloadSchemaType.Integer),
            ):
                shard.update(edge.UpdateOperation.create_field_index(name, schema))
            shard.flush()
            shard.close()

    def upsert(self, chunks: Sequence[Chunk], vectors: NDArray[np.float32]) -> None:
        edge = self._edge
        with _translated():
            for start in range(0, len(chunks), WRITE_BATCH):
                points = [
                    edge.Point(
                        id=chunk.point_id(self._namespace),
                        vector={DENSE: vector.tolist(), SPARSE: self._bm25.embed_document(chunk.in_context)},
                        payload=_payload(chunk),
                    )
                    for chunk, vector in zip(
                        chunks[start : start + WRITE_BATCH],
                        vectors[start : start + WRITE_BATCH],
                        strict=True,
                    )
                ]
                self._shard.update(edge.UpdateOperation.upsert_points(points))

    def stored(self, versions: Sequence[tuple[str, str]]) -> set[str]:
        heads = {point_id(self._namespace, name, digest, 0): name for name, digest in versions}
        with _translated():
            records = self._shard.retrieve(list(heads), with_payload=False, with_vector=False)
        return {heads[uuid.UUID(str(record.id))] for record in records}

    def known(self, document_ids: Sequence[str]) -> set[str]:
        return {record.payload["document_id"] for record in self._heads(list(document_ids))}

    def keep_only(self, versions: Sequence[tuple[str, str]]) -> None:
        names = [name for name, _ in versions]
        self._delete(self._edge.Filter(must=[self._of(names)], must_not=self._these(versions)))

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        self._delete(self._edge.Filter(should=self._these(versions)))

    def delete(self, document_ids: Sequence[str]) -> int:
        there = self.known(document_ids)
        if there:
            self._delete(self._edge.Filter(must=[self._of(list(there))]))
        return len(there)

    def search(
        self,
        text: str,
        vector: NDArray[np.float32] | None,
        *,
        mode: Mode,
        top_k: int,
        conditions: Sequence[Condition] = (),
    ) -> list[Found]:
        edge = self._edge
        where = edge.Filter(must=[self._condition(c) for c in conditions]) if conditions else None
        sparse = edge.Query.Nearest(self._bm25.embed_query(text), using=SPARSE)
        if mode == "sparse":
            request = edge.QueryRequest(limit=top_k, query=sparse, filter=where, with_payload=True)
        else:
            assert vector is not None, "dense and hybrid searches come with a vector"
            dense = edge.Query.Nearest(vector.tolist(), using=DENSE)
            if mode == "dense":
                request = edge.QueryRequest(limit=top_k, query=dense, filter=where, with_payload=True)
            else:
                depth = fusion_depth(top_k)
                request = edge.QueryRequest(
                    limit=top_k,
                    query=edge.Fusion.Rrf(k=RRF_K, weights=RRF_WEIGHTS),
                    prefetches=[
                        edge.Prefetch(limit=depth, query=query, filter=where) for query in (dense, sparse)
                    ],
                    with_payload=True,
                )
        with _translated():
            points = self._shard.query(request)
        return [Found(_chunk(point.payload), point.score) for point in points]

    def documents(self, limit: int, cursor: str | None) -> Page:
        edge = self._edge
        try:
            offset = uuid.UUID(cursor) if cursor else None
        except ValueError:
            raise InvalidRequest("cursor: not one that an earlier page gave") from None
        head = edge.Filter(must=[edge.FieldCondition("chunk", match=edge.MatchValue(0))])
        with _translated():
            records, following = self._shard.scroll(
                edge.ScrollRequest(offset=offset, limit=limit, filter=head, with_payload=True)
            )
        return Page([_chunk(record.payload) for record in records], str(following) if following else None)

    def count(self) -> tuple[int, int]:
        edge = self._edge
        head = edge.Filter(must=[edge.FieldCondition("chunk", match=edge.MatchValue(0))])
        with _translated():
            documents = self._shard.count(edge.CountRequest(filter=head, exact=True))
            chunks = self._shard.count(edge.CountRequest(exact=True))
        return documents, chunks

    def flush(self) -> None:
        with _translated():
            self._shard.flush()

    def close(self) -> None:
        with _translated():
            self._shard.flush()
            self._shard.close()
        self._in_use.unlink(missing_ok=True)

    def _repair(self) -> None:
        """After a kill: of each document keep the newest version that has its head, and nothing else."""
        edge = self._edge
        newest: dict[str, tuple[int, str]] = {}
        every: set[tuple[str, str]] = set()
        offset: Any = None
        while True:
            records, offset = self._shard.scroll(
                edge.ScrollRequest(
                    offset=offset,
                    limit=1000,
                    with_payload=["document_id", "hash", "chunk", "written"],
                )
            )
            for record in records:
                payload = record.payload
                name, digest = payload["document_id"], payload["hash"]
                every.add((name, digest))
                if payload["chunk"] == 0:
                    newest[name] = max(newest.get(name, (0, "")), (payload["written"], digest))
            if offset is None:
                break
        for name, digest in every:
            if name not in newest or newest[name][1] != digest:
                self.discard([(name, digest)])

    def _heads(self, document_ids: list[str]) -> list[Any]:
        edge = self._edge
        head = edge.FieldCondition("chunk", match=edge.MatchValue(0))
        with _translated():
            # A document being replaced has two heads for a moment, hence twice the number.
            records, _ = self._shard.scroll(
                edge.ScrollRequest(
                    limit=2 * len(document_ids) + 1,
                    filter=edge.Filter(must=[head, self._of(document_ids)]),
                    with_payload=["document_id"],
                )
            )
        return list(records)

    def _these(self, versions: Sequence[tuple[str, str]]) -> list[Any]:
        """Conditions that a point is of one of these versions: pairs, for two documents may have equal content."""
        edge = self._edge
        return [
            edge.Filter(must=[self._of([name]), edge.FieldCondition("hash", match=edge.MatchValue(digest))])
            for name, digest in versions
        ]

    def _of(self, document_ids: list[str]) -> Any:
        return self._edge.FieldCondition("document_id", match=self._edge.MatchAny(document_ids))

    def _delete(self, where: Any) -> None:
        with _translated():
            self._shard.update(self._edge.UpdateOperation.delete_points_by_filter(where))

    def _condition(self, condition: Condition) -> Any:
        edge = self._edge
        keys = [f'metadata."{condition.key}"']
        if condition.key in PLACE:
            keys.append(f"place.{condition.key}")
        return edge.Filter(should=[self._field(key, condition) for key in keys])

    def _field(self, key: str, condition: Condition) -> Any:
        import numpy as np

        edge = self._edge
        if condition.range is not None:
            return edge.FieldCondition(key, range=edge.RangeFloat(**condition.range))
        if condition.any_of is not None:
            return edge.FieldCondition(key, match=edge.MatchAny(condition.any_of))
        value: Any = condition.equals
        if isinstance(value, bool):
            # The binding takes Python's bool for the integer it is; numpy's it takes for a truth value.
            value = np.bool_(value)
        return edge.FieldCondition(key, match=edge.MatchValue(value))


def _payload(chunk: Chunk) -> dict[str, Any]:
    import time

    return {
        "document_id": chunk.document_id,
        "hash": chunk.hash,
        "chunk": chunk.number,
        "chunks": chunk.total,
        "written": time.time_ns(),
        "text": chunk.text,
        "metadata": chunk.metadata,
        "place": chunk.place,
    }


def _chunk(payload: dict[str, Any] | None) -> Chunk:
    assert payload is not None, "asked for with_payload"
    return Chunk(
        document_id=payload["document_id"],
        hash=payload["hash"],
        number=payload["chunk"],
        total=payload["chunks"],
        text=payload["text"],
        metadata=payload["metadata"],
        place=payload.get("place", {}),
    )


@contextmanager
def _translated() -> Iterator[None]:
    """Qdrant Edge raises bare Exceptions; here, and only here, they become ours."""
    try:
        yield
    except (BackendError, InvalidRequest):
        raise
    except ModuleNotFoundError as error:
        raise BackendError(
            f"the embedded vector engine is not installed (missing: {error.name}): "
            "pip install 'llmbackend[embedded]'",
            details={"backend": "Qdrant Edge"},
        ) from error
    except Exception as error:
        raise BackendError(f"Qdrant Edge: {error}", details={"backend": "Qdrant Edge"}) from error
