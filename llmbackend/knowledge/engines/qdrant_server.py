"""The shared vector engine: a Qdrant server or cluster, by qdrant-client's Query API."""

from __future__ import annotations

import threading
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ... import threads
from ...errors import BackendError, BackendTimeout, LLMBackendError, Overloaded
from .bm25 import Sparse
from .qdrant import (
    DENSE,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    INDEXED_FIELDS,
    SPARSE,
    Dense,
    Point,
    QdrantIndex,
)
from .vectors import Physical, Scored

WRITE_BATCH = 256


class About(NamedTuple):
    version: str
    collections: int


class QdrantServer:
    """A VectorEngine on a server; its collections are named `llmbackend_<id>`.

    `marks` is a folder for what tells after a kill that an index was open. Nothing is asked of the server before it is
    needed, so that it may be away when this starts.
    """

    name = "qdrant"
    shared = True
    threads = threads.network

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        marks: Path,
        *,
        writer: str = "",
        client: Any = None,
    ) -> None:
        self.url = url
        self._api_key = api_key
        self._timeout = max(1, round(timeout))
        self._marks = marks
        self.writer = writer
        self._client = client
        self._connecting = threading.Lock()

    @property
    def client(self) -> Any:
        with self._connecting:
            if self._client is None:
                from qdrant_client import QdrantClient

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a key without TLS, as in a network of one's own
                    self._client = QdrantClient(
                        url=self.url, api_key=self._api_key, timeout=self._timeout, check_compatibility=False
                    )
        return self._client

    def create(self, physical_id: str, dimension: int) -> None:
        with self.translated():
            from qdrant_client import models

            name = _named(physical_id)
            self.client.create_collection(
                name,
                vectors_config={DENSE: models.VectorParams(size=dimension, distance=models.Distance.COSINE)},
                sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                hnsw_config=models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT),
            )
            for field, kind in INDEXED_FIELDS.items():
                self.client.create_payload_index(name, field, models.PayloadSchemaType(kind), wait=True)

    def open(self, physical: Physical, *, repair: bool = True) -> QdrantServerIndex:
        return QdrantServerIndex(self, physical, self._mark(physical.id), repair)

    def drop(self, physical_id: str) -> None:
        with self.translated():
            self.client.delete_collection(_named(physical_id))
        self._mark(physical_id).unlink(missing_ok=True)

    def about(self) -> About:
        """The server's version, and how many collections it has; raises BackendError."""
        with self.translated():
            return About(self.client.info().version, len(self.client.get_collections().collections))

    def close(self) -> None:
        if self._client is not None:
            self._client.close()

    def _mark(self, physical_id: str) -> Path:
        self._marks.mkdir(parents=True, exist_ok=True)
        return self._marks / f"{physical_id}.in-use"

    @contextmanager
    def translated(self) -> Iterator[None]:
        """qdrant-client's exceptions become ours, here and only here."""
        import httpx
        from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        where = f"the Qdrant server at {self.url}"
        about: dict[str, Any] = {"backend": "Qdrant", "url": self.url}
        try:
            yield
        except LLMBackendError:
            raise
        except ResourceExhaustedResponse as error:
            raise Overloaded(
                f"{where} has too much to do", details={**about, "retry_after": error.retry_after_s}
            ) from error
        except UnexpectedResponse as error:
            if error.status_code in (401, 403):
                reason = f"{where} refuses the key: set QDRANT_API_KEY to the right one"
            else:
                said = error.content.decode(errors="replace")[:300]
                reason = f"{where} answered {error.status_code}: {said}"
            details = {**about, "status": error.status_code}
            if error.status_code == 404:
                details["gone"] = True
            raise BackendError(reason, details=details) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException):
                raise BackendTimeout(f"{where} did not answer in {self._timeout} s", details=about) from error
            raise BackendError(
                f"{where} cannot be reached ({type(error.source).__name__}): is it running there?",
                details=about,
            ) from error
        except Exception as error:  # what the client finds wrong before it asks
            raise BackendError(f"{where}: {error}", details=about) from error


class QdrantServerIndex(QdrantIndex):
    """A VectorIndex in a collection of a server. Whatever is written is there for the next call."""

    threads = threads.network

    def __init__(self, server: QdrantServer, physical: Physical, in_use: Path, repair: bool) -> None:
        """Open it; raises BackendError if it is not there."""
        self._server = server
        self._name = _named(physical.id)
        super().__init__(physical, _Syntax(), in_use, server.writer)
        with server.translated():
            if not server.client.collection_exists(self._name):
                raise BackendError(
                    f"the Qdrant server at {server.url} has no collection {self._name!r} any more: delete the "
                    "collection and ingest anew",
                    details={"backend": "Qdrant", "url": server.url, "gone": True},
                )
        self._begin(repair)

    def require_room(self, characters: int) -> None:
        """The server's disk is not ours to ask: it tells when it is written to."""

    def _write(self, points: Sequence[Point]) -> None:
        with self._server.translated():
            from qdrant_client import models

            for start in range(0, len(points), WRITE_BATCH):
                batch = [
                    models.PointStruct(
                        id=str(point.id),
                        vector={
                            DENSE: point.dense.tolist(),
                            SPARSE: models.SparseVector(
                                indices=point.sparse.indices, values=point.sparse.values
                            ),
                        },
                        payload=point.payload,
                    )
                    for point in points[start : start + WRITE_BATCH]
                ]
                self._server.client.upsert(self._name, batch, wait=True)

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        with self._server.translated():
            found: Sequence[Any] = self._server.client.retrieve(
                self._name, [str(one) for one in ids], with_payload=False, with_vectors=False
            )
        return [uuid.UUID(record.id) for record in found]

    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        with self._server.translated():
            page: tuple[Sequence[Any], Any] = self._server.client.scroll(
                self._name,
                scroll_filter=where,
                limit=limit,
                offset=None if offset is None else str(offset),
                with_payload=payload,
                with_vectors=[DENSE] if vectors else False,
            )
        return page

    def _count(self, where: Any = None) -> int:
        with self._server.translated():
            return int(self._server.client.count(self._name, count_filter=where, exact=True).count)

    def _delete(self, where: Any) -> None:
        with self._server.translated():
            from qdrant_client import models

            self._server.client.delete(self._name, models.FilterSelector(filter=where), wait=True)

    def _nearest(
        self, vectors: Sequence[Dense | Sparse], limit: int, where: Any, terms: int
    ) -> list[list[Scored]]:
        with self._server.translated():
            from qdrant_client import models

            found: list[list[Scored]] = []
            for vector in vectors:
                query: Any = vector
                if isinstance(vector, Sparse):
                    query = models.SparseVector(indices=vector.indices, values=vector.values)
                answer = self._server.client.query_points(
                    self._name,
                    query=query,
                    using=SPARSE if isinstance(vector, Sparse) else DENSE,
                    query_filter=where,
                    limit=limit,
                    with_payload=False,
                )
                found.append([(uuid.UUID(point.id), point.score) for point in answer.points])
        return found

    def _payloads(self, ids: list[uuid.UUID]) -> list[tuple[uuid.UUID, dict[str, Any]]]:
        with self._server.translated():
            found = self._server.client.retrieve(
                self._name, [str(one) for one in ids], with_payload=True, with_vectors=False
            )
        return [(uuid.UUID(record.id), record.payload) for record in found]

    def flush(self) -> None:
        """The server has written what it acknowledged to its log."""

    def _close(self) -> None:
        """The connection is the engine's."""


class _Syntax:
    def __init__(self) -> None:
        from qdrant_client import models

        self._models: Any = models

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )

    def equals(self, key: str, value: str | int | bool) -> Any:
        return self._models.FieldCondition(key=key, match=self._models.MatchValue(value=value))

    def any_of(self, key: str, values: list[str] | list[int]) -> Any:
        return self._models.FieldCondition(key=key, match=self._models.MatchAny(any=values))

    def range(self, key: str, bounds: dict[str, float]) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.Range(**bounds))

    def empty(self, key: str) -> Any:
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=key))


def _named(physical_id: str) -> str:
    return f"llmbackend_{physical_id}"
