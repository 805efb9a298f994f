"""The shared vector engine: a Qdrant server or cluster, called through qdrant-client's Query API.

A call that fails for the moment (a restart, overload, a missing node) is retried within the timeout. Requests keep to the
limits of a collection's strict mode; if one cannot, a typed error says why.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import threads
from ..errors import (
    BackendError,
    BackendTimeout,
    InvalidRequest,
    LLMBackendError,
    Overloaded,
)
from . import fusion
from .bm25 import Sparse
from .filters import Condition
from .indexes import FieldType, Indexes, in_points
from .interface import (
    LISTS,
    Found,
    Layout,
    List,
    Physical,
    Scored,
    Search,
    VectorIndex,
    one_version,
    point_id,
)
from .qdrant import (
    DENSE,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    NAMED_AT_ONCE,
    SPARSE,
    Dense,
    Point,
    QdrantIndex,
    chunk_of,
    depth_of,
)
from .qdrant_connection import Ask, Connection, Result
from .qdrant_limits import Limits
from .qdrant_payload_indexes import OWN_FIELDS, PayloadIndexes
from .qdrant_requests import batches, records, too_large
from .qdrant_server_syntax import ServerSyntax
from .qdrant_sweeping import Sweeping

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

WRITE_BATCH = 256
WRITE_BYTES = 5 * 2**20
"""Bytes of a write request, about: what Qdrant recommends, and far below the 32 MiB that a server accepts by default."""
LEAST_BATCH = 8
"""A request of so many points is not halved again if the server takes too long for it."""

QUANTILE = 0.99
"""The share of a vector's numbers that the range of 8 bits covers; the few outliers are clipped."""
OVERSAMPLING = 2.0

ALONG = 2**18
"""Most characters of a list's chunks for them to be read with the list; if they are more, only the hits' chunks are read."""


class About(NamedTuple):
    version: str
    collections: int


class QdrantServer:
    """A VectorEngine on a server or cluster; its collections are named `llmbackend_<id>`.

    `url` may list several nodes of a cluster, separated by commas; if one does not answer, the next is called. `marks` is
    a folder of files that mark open indexes, so that a kill is noticed. The server is not called before it is needed, so
    it may be down when this is made.
    """

    name = "qdrant"
    shared = True
    threads = opening = threads.network

    def __init__(
        self,
        url: str,
        api_key: str | None,
        timeout: float,
        marks: Path,
        *,
        writer: str = "",
        options: Mapping[str, Any] | None = None,
        client: Any = None,
    ) -> None:
        if find_spec("qdrant_client") is None:
            raise BackendError(
                "QDRANT_URL is set, but Qdrant's client is not installed: pip install 'llmbackend[qdrant]'",
                details={"backend": "Qdrant"},
            )
        self.url = url
        self.options: Mapping[str, Any] | None = options or {}
        self._marks = marks
        self.writer = writer
        self.connection = Connection(url, api_key, timeout, client)

    def create(self, physical_id: str, layout: Layout) -> None:
        from qdrant_client import models

        name = _named(physical_id)
        options = dict(layout.options)
        on_disk = options.pop("on_disk", None)
        quantization = None
        if options.pop("quantization", None) == "int8":
            int8 = models.ScalarQuantizationConfig(
                type=models.ScalarType.INT8, quantile=QUANTILE, always_ram=True
            )
            quantization = models.ScalarQuantization(scalar=int8)
        dense = models.VectorParams(size=layout.dimension, distance=models.Distance.COSINE, on_disk=on_disk)
        sparse = models.SparseVectorParams(
            modifier=models.Modifier.IDF, index=models.SparseIndexParams(on_disk=on_disk)
        )
        graph = models.HnswConfigDiff(m=HNSW_M, ef_construct=HNSW_EF_CONSTRUCT, on_disk=on_disk)

        try:
            self.connection.ask(
                lambda client: client.create_collection(
                    name,
                    vectors_config={DENSE: dense},
                    sparse_vectors_config={SPARSE: sparse},
                    hnsw_config=graph,
                    on_disk_payload=on_disk,
                    quantization_config=quantization,
                    **options,
                )
            )
        except BackendError as error:
            if "already exists" not in error.message:  # an earlier try made it, and the reply was lost
                raise
        indexes = PayloadIndexes(self.connection, name)
        for path, kind in {**OWN_FIELDS, **in_points(layout.indexes)}.items():
            indexes.make(path, kind)

    def open(self, physical: Physical, *, repair: bool = True) -> QdrantServerIndex:
        return QdrantServerIndex(self, physical, self._mark(physical.id), repair)

    def drop(self, physical_id: str) -> None:
        self.connection.ask(lambda client: client.delete_collection(_named(physical_id)))
        self._mark(physical_id).unlink(missing_ok=True)

    def about(self) -> About:
        """Return the server's version and number of collections. Raises BackendError; does not retry."""
        return self.connection.ask(
            lambda client: About(client.info().version, len(client.get_collections().collections)),
            again=False,
        )

    def close(self) -> None:
        self.connection.close()

    def _mark(self, physical_id: str) -> Path:
        self._marks.mkdir(parents=True, exist_ok=True)
        return self._marks / f"{physical_id}.in-use"


class QdrantServerIndex(QdrantIndex):
    """A VectorIndex in a server's collection. Writes are visible to the next call."""

    threads = threads.network

    def __init__(self, server: QdrantServer, physical: Physical, in_use: Path, repair: bool) -> None:
        """Open it; raises BackendError if it does not exist."""
        self._connection = server.connection
        self.name = _named(physical.id)
        self._limits = Limits()
        self._quantized = False
        self._payload_indexes = PayloadIndexes(self._connection, self.name, self._learn_indexes)
        self._sweeping = Sweeping(self)
        self._characters = 0.0
        """Average characters of a chunk with its metadata, in the last search."""
        self._heads: dict[tuple[str, str], int] = {}
        """When the versions of the last write were written."""
        super().__init__(physical, ServerSyntax(self), in_use, server.writer)
        self._begin(repair)

    def _begin(self, repair: bool) -> None:
        if self._in_use.exists():
            self._sweeping.later()
        super()._begin(repair)

    def _ask(self, ask: Ask[Result], *, again: bool = True) -> Result:
        """Call the server (`Connection.ask`), and once more if strict mode refused it and its limits have changed."""
        before = self._limits
        try:
            return self._connection.ask(ask, again=again)
        except LLMBackendError as error:
            if not error.details.get("strict"):
                raise
            self._learn_indexes()
            if self._limits == before:
                raise
        return self._connection.ask(ask, again=again)

    def _within(self, limit: int) -> int:
        """Return how many of `limit` points one request may ask for."""
        return min(limit, self._limits.query or limit)

    def _learn(self) -> Any:
        """Read the collection's configuration from the server."""
        try:
            return self._connection.ask(lambda client: client.get_collection(self.name))
        except BackendError as error:
            if not error.details.get("gone"):
                raise
            raise BackendError(
                f"the Qdrant server at {self._connection.url} has no collection {self.name!r} any more: delete our "
                "collection and ingest its documents again",
                details={"backend": "Qdrant", "url": self._connection.url, "gone": True},
            ) from error

    def _learn_indexes(self) -> None:
        about = self._learn()
        self._limits = Limits.of(about.config)
        self._quantized = about.config.quantization_config is not None
        self._payload_indexes.told(about.payload_schema)
        self._indexed = self._payload_indexes.kinds

    def _index_own_fields(self) -> None:
        self._payload_indexes.make_own()

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        self._payload_indexes.change(changes, declared)

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        self._payload_indexes.prepare(fields, declared)

    def take_over(self, other: VectorIndex) -> None:
        """Nothing to take over: this index caches nothing."""

    @property
    def most_values(self) -> int | None:
        """Most values that a condition may have."""
        return self._limits.condition_size

    @property
    def unindexed(self) -> bool:
        """Whether the server filters by fields without an index."""
        return self._limits.unindexed

    @property
    def _named_at_once(self) -> int:
        return self._limits.named

    def require_room(self, characters: int) -> None:
        """Nothing to do: the server checks its disk at each write."""

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        """Remove these versions, later if the server does not answer now."""
        try:
            self.remove(versions, again=False)
        except LLMBackendError as error:
            log.warning("incomplete versions in %s could not be removed yet: %s", self.name, error)
            self._sweeping.discard_later(versions)

    def remove(self, versions: Sequence[tuple[str, str]], *, again: bool = True) -> None:
        self._in_portions(
            versions, lambda some: self._delete(self._syntax.group(should=self._these(some)), again=again)
        )

    def _write(self, points: Sequence[Point]) -> None:
        self._sweeping.written((point.payload["document_id"], point.payload["hash"]) for point in points)
        self._heads = {
            (point.payload["document_id"], point.payload["hash"]): point.payload["written"]
            for point in points
            if point.payload["chunk"] == 0
        }
        for batch in batches(points, min(self._limits.upsert or WRITE_BATCH, WRITE_BATCH), WRITE_BYTES):
            self._upsert(batch)

    def _upsert(self, batch: Sequence[Point]) -> None:
        """Write points in one request, or in halves if that is too much for the server."""
        written = records(batch)
        try:
            self._ask(lambda client: client.upsert(self.name, written, wait=True))
        except (InvalidRequest, BackendTimeout) as error:
            if len(batch) > (LEAST_BATCH if isinstance(error, BackendTimeout) else 1):
                half = len(batch) // 2
                self._upsert(batch[:half])
                self._upsert(batch[half:])
            elif error.details.get("too_large"):
                raise too_large(batch[0], error) from error
            else:
                raise

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        records = self._retrieved(ids, payload=["superseded"])
        return [uuid.UUID(record.id) for record in records if not record.payload]

    def _retrieved(self, ids: list[uuid.UUID], *, payload: bool | list[str]) -> Sequence[Any]:
        found: list[Any] = []
        waiting = [str(one) for one in ids]
        while waiting:
            names = waiting[: self._limits.read]
            try:
                found += self._ask(partial(self._retrieve, names, payload))
            except InvalidRequest:
                if len(names) <= (self._limits.read or len(names)):
                    raise
                continue  # the server's limit is lower than we knew
            waiting = waiting[len(names) :]
        return found

    def _retrieve(self, names: list[str], payload: bool | list[str], client: Any) -> Sequence[Any]:
        found: Sequence[Any] = client.retrieve(self.name, names, with_payload=payload, with_vectors=False)
        return found

    def _scroll(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool = False
    ) -> tuple[Sequence[Any], Any]:
        records: list[Any] = []
        while True:
            page, offset = self._page(where, limit - len(records), offset, payload, vectors)
            records += page
            if offset is None or len(records) >= limit:
                return records, offset

    def _page(
        self, where: Any, limit: int, offset: Any, payload: bool | list[str], vectors: bool
    ) -> tuple[Sequence[Any], Any]:
        """Return as many of these records as one reply may have, and the next page's offset."""
        page: tuple[Sequence[Any], Any] = self._ask(
            lambda client: client.scroll(
                self.name,
                scroll_filter=where,
                limit=self._within(limit),
                offset=None if offset is None else str(offset),
                with_payload=payload,
                with_vectors=[DENSE] if vectors else False,
            )
        )
        return page

    def _count(self, where: Any = None) -> int:
        if self._limits.exact:
            try:
                counted = self._ask(lambda client: client.count(self.name, count_filter=where, exact=True))
                return int(counted.count)
            except InvalidRequest:
                if self._limits.exact:  # else exact counts are forbidden: count page by page
                    raise
        count, offset = 0, None
        while True:
            records, offset = self._scroll(where, 10_000, offset, False)
            count += len(records)
            if offset is None:
                return count

    def _delete(self, where: Any, *, again: bool = True) -> None:
        from qdrant_client import models

        selected = models.FilterSelector(filter=where)
        self._ask(lambda client: client.delete(self.name, selected, wait=True), again=again)

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        try:
            self.settle(versions)
        except (BackendError, Overloaded) as error:
            if error.details.get("gone"):
                raise
            # They may be superseded without our having been told, so the new ones, which are written, have to stay.
            log.warning("older versions in %s could not be removed yet: %s", self.name, error)
            self._sweeping.settle_later(versions)

    def settle(self, versions: Sequence[tuple[str, str]]) -> None:
        """Supersede all versions but the one written last, which is the same one in every process that does this.

        Versions without a head are left to the process that is writing them.
        """
        self._in_portions(versions, self._settle)

    def _settle(self, versions: Sequence[tuple[str, str]]) -> None:
        from qdrant_client import models

        there: dict[str, list[tuple[int, str]]] = {}
        own: list[Any] = []
        for name, digest in versions:
            if (written := self._heads.get((name, digest))) is not None:
                there[name] = [(written, digest)]
                own.append(str(point_id(self._namespace, name, digest, 0)))
        # What was just written need not be read again: of new documents, nothing is.
        others = [models.HasIdCondition(has_id=own)] if own else []
        of = [self._head(), self._of([name for name, _ in versions])]
        where = self._syntax.group(must=of, must_not=[*self._gone(), *others])
        offset: Any = None
        while True:
            heads, offset = self._scroll(where, NAMED_AT_ONCE, offset, ["document_id", "hash", "written"])
            for head in heads:
                its = there.setdefault(head.payload["document_id"], [])
                its.append((head.payload["written"], head.payload["hash"]))
            if offset is None:
                break
        earlier = [(name, digest) for name, its in there.items() for _, digest in sorted(its)[:-1]]
        for some in self._portions(earlier):
            self._supersede(self._syntax.group(should=self._these(some), must_not=self._gone()))

    def _supersede(self, where: Any) -> None:
        """Mark these points as superseded, so that searches skip them; they are removed later, when no reader needs them."""
        from qdrant_client import models

        moment = {"superseded": time.time_ns()}
        selected = models.FilterSelector(filter=where)
        self._ask(lambda client: client.set_payload(self.name, moment, selected, wait=True))
        self._sweeping.later()

    def _gone(self) -> list[Any]:
        return [self._syntax.range("superseded", {"gte": 1})]

    def has_superseded(self) -> bool:
        return bool(self._scroll(self._syntax.group(must=self._gone()), 1, None, False)[0])

    def remove_superseded(self, seconds: float, *, again: bool = True) -> None:
        """Remove points that were superseded at least so many seconds ago."""
        old = self._syntax.range("superseded", {"gte": 1, "lte": time.time_ns() - seconds * 1e9})
        self._delete(self._syntax.group(must=[old]), again=again)

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
        return super().lists(text, vector, which, limit, conditions, current=current or self._passes_over)

    @property
    def _passes_over(self) -> bool:
        """Whether searches exclude superseded points: while there are some, that costs less than searching again."""
        return self._sweeping.is_due and self._limits.conditions is None

    def search(self, asked: Search) -> list[Found]:
        limit = depth_of(asked)
        # A single list consists of the hits.
        along = asked.mode != "hybrid" or limit * self._characters <= ALONG
        if along and limit <= self._within(limit):
            hits = self._search(asked, limit)
            if hits is not None:
                return hits
        return super().search(asked)

    def _search(self, asked: Search, limit: int) -> list[Found] | None:
        """Search in one round trip, reading payloads with the lists. Returns None if another search is needed."""
        where = self._where(asked.conditions, current=self._passes_over)
        vectors = {name: self._vector(name, asked.text, asked.vector) for name in LISTS[asked.mode]}
        answers = threads.side_by_side(
            *(partial(self._query, one, limit, where, payload=True) for one in vectors.values())
        )
        points = {point.id: point.payload for points in answers for point in points}
        lists = {
            name: [(point.id, point.score) for point in points]
            for name, points in zip(vectors, answers, strict=True)
        }
        best = fusion.best(lists, asked.weight, asked.top_k)
        chunks = [chunk_of(points[point]) for point, _ in best]
        if any(chunk.superseded for chunk in chunks) or len(one_version(dict(enumerate(chunks)))) < len(best):
            return None
        if asked.mode != "hybrid" and len(best) < asked.top_k:  # some may just have been deleted
            return None
        if chunks:
            characters = [len(chunk.text) + len(repr(chunk.metadata)) for chunk in chunks]
            self._characters = sum(characters) / len(characters)
        return [Found.of(chunk, scores) for chunk, (_, scores) in zip(chunks, best, strict=True)]

    def _nearest(
        self, vectors: Sequence[Dense | Sparse], limit: int, where: Any, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        return threads.side_by_side(*(partial(self._nearest_to, vector, limit, where) for vector in vectors))

    def _nearest_to(self, vector: Dense | Sparse, limit: int, where: Any) -> list[Scored]:
        found: dict[uuid.UUID, float] = {}
        start = 0
        while start < limit:
            page = self._nearest_from(start, vector, limit - start, where)
            found |= page
            asked = self._within(limit - start)
            if len(page) < asked:
                break
            start += asked
        return list(found.items())

    def _nearest_from(
        self, start: int, vector: Dense | Sparse, limit: int, where: Any
    ) -> dict[uuid.UUID, float]:
        """Return points and scores of the nearest from rank `start` on, as many as one reply may have."""
        return {uuid.UUID(point.id): point.score for point in self._query(vector, limit, where, start)}

    def _query(
        self, vector: Dense | Sparse, limit: int, where: Any, start: int = 0, *, payload: bool = False
    ) -> Sequence[Any]:
        from qdrant_client import models

        query: Any
        if isinstance(vector, Sparse):
            query = models.SparseVector(indices=vector.indices, values=vector.values)
        else:
            query = vector.tolist()
        answer = self._ask(
            lambda client: client.query_points(
                self.name,
                query=query,
                using=SPARSE if isinstance(vector, Sparse) else DENSE,
                query_filter=where,
                limit=self._within(limit),
                search_params=None if isinstance(vector, Sparse) else self._search_params,
                offset=start or None,
                with_payload=payload,
            )
        )
        points: Sequence[Any] = answer.points
        return points

    @property
    def _search_params(self) -> Any:
        """With quantization, find a few more points, and score them again by their full vectors."""
        from qdrant_client import models

        if not self._quantized:
            return None
        oversampling = min(OVERSAMPLING, self._limits.oversampling or OVERSAMPLING)
        return models.SearchParams(
            quantization=models.QuantizationSearchParams(rescore=True, oversampling=oversampling)
        )

    def _payloads(self, ids: list[uuid.UUID]) -> list[tuple[uuid.UUID, dict[str, Any]]]:
        return [(uuid.UUID(record.id), record.payload) for record in self._retrieved(ids, payload=True)]

    def flush(self) -> None:
        """Nothing to do: what the server has acknowledged is in its log."""

    def close(self) -> None:
        """Remove superseded points, and close. If they cannot be removed now, that is done after the next opening."""
        if self._sweeping.close():
            super().close()  # else the mark stays, so that the next opening sweeps

    def _close(self) -> None:
        """Nothing to close: the connection is the engine's."""


def _named(physical_id: str) -> str:
    return f"llmbackend_{physical_id}"
