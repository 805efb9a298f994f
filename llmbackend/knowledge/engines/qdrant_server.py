"""The shared vector engine: a Qdrant server or cluster, by qdrant-client's Query API.

What a server refuses for a moment (a restart, too much to do, a node of a cluster that is away) is asked again within
the time-out. The limits of a collection's strict mode are kept to, and what cannot be made to fit is told as ours.
"""

from __future__ import annotations

import json
import logging
import re
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ... import threads
from ...errors import (
    BackendError,
    BackendTimeout,
    InsufficientStorage,
    InvalidRequest,
    LLMBackendError,
    Overloaded,
)
from ...retrying import Patience, passing
from .bm25 import Sparse
from .filters import Condition
from .indexes import MOST, FieldType, Indexes, in_points, parts
from .interface import Layout, Physical, Scored, VectorIndex
from .qdrant import (
    DENSE,
    HNSW_EF_CONSTRUCT,
    HNSW_M,
    INDEXED_FIELDS,
    NAMED_AT_ONCE,
    SPARSE,
    Dense,
    Point,
    QdrantIndex,
)

log = logging.getLogger(__name__)

WRITE_BATCH = 256
WRITE_BYTES = 5 * 2**20
"""Of a request, about: what Qdrant's makers advise, and far from the 32 MiB that a server takes unless told otherwise."""
NUMBER_BYTES = 22
"""Of a number as JSON, with its comma, at most."""
LEAST_BATCH = 8
"""Points in a request that is not halved any more when the server takes too long for it."""

OWN_FIELDS = {**INDEXED_FIELDS, "hash": "keyword", "superseded": "integer", "written": "integer"}
"""What our own filters ask for."""

GRACE = 15.0
"""Seconds for which superseded points are kept: a server finds points first and reads them after, without those that are
deleted between, so that a search would find neither the old nor the new version of a document."""

QUANTILE = 0.99
"""Of a vector's numbers, which 8 bits are spread over; the few beyond become the last."""
OVERSAMPLING = 2.0

CONNECTING = 10.0
"""Seconds for which a server is waited for that has never answered: it may be the wrong URL."""

MOST_FOR_FILTERS = 45
"""Places in points that are indexed because filters asked for them, beside those declared; declarations come first."""
TRIED_AGAIN, MOST_UNMADE = 60.0, 1000
"""Seconds after which is tried again to make an index for a filter, and how many that could not be made are known."""

CONDITIONS = 3
"""Of a filter's, that one version of a document takes at most."""

# What a cluster says while some of its nodes are away, whatever the status.
_PARTIAL = re.compile(r"read operations failed|replica|consensus|not enough|shards? .*not available", re.I)
_NO_INDEX = re.compile(
    r'Index required but not found for \\*"(.+?)\\*"(?: of one of the following types: \[(.*?)\])?'
)
_TOO_LARGE = re.compile(r"larger than allowed|too large|length limit exceeded", re.I)
_TOO_MANY = re.compile(r"(Filter condition|Condition size) limit reached \((\d+) > (\d+)\)")
_STRICT = re.compile(r"Limit exceeded|disabled!")
_FULL = re.compile(r"(storage size|points) limit .*reached|Max .* reached|quota|disk", re.I)

_Result = TypeVar("_Result")
Ask = Callable[[Any], _Result]


class About(NamedTuple):
    version: str
    collections: int


class Limits(NamedTuple):
    """Of a collection's strict mode."""

    query: int | None = None
    """Points in an answer."""
    conditions: int | None = None
    """In a filter."""
    condition_size: int | None = None
    """Values in a condition."""
    upsert: int | None = None
    """Points in a write."""
    exact: bool = True
    """Whether anything may be asked for exactly, which counting is."""
    oversampling: float | None = None

    @classmethod
    def of(cls, config: Any) -> Limits:
        strict = config.strict_mode_config
        if strict is None or not strict.enabled:
            return cls()
        return cls(
            strict.max_query_limit,
            strict.filter_max_conditions,
            strict.condition_max_size,
            strict.upsert_max_batchsize,
            strict.search_allow_exact is not False,
            strict.search_max_oversampling,
        )

    @property
    def named(self) -> int:
        """Documents that a filter may name."""
        fit = NAMED_AT_ONCE if self.conditions is None else (self.conditions - CONDITIONS) // CONDITIONS
        return max(
            1, min(NAMED_AT_ONCE, fit, self.condition_size or NAMED_AT_ONCE, self.query or NAMED_AT_ONCE)
        )


class QdrantServer:
    """A VectorEngine on a server, or on any node of a cluster; its collections are named `llmbackend_<id>`.

    `url` may be several, with commas between: those that answer are asked. `marks` is a folder for what tells after a
    kill that an index was open. Nothing is asked of the server before it is needed, so that it may be away when this
    starts.
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
        options: Mapping[str, Any] | None = None,
        client: Any = None,
    ) -> None:
        if find_spec("qdrant_client") is None:
            raise BackendError(
                "QDRANT_URL is set, and Qdrant's client is not installed: pip install 'llmbackend[qdrant]'",
                details={"backend": "Qdrant"},
            )
        self.url = url
        self.options: Mapping[str, Any] | None = options or {}
        self._urls = [one.strip() for one in url.split(",") if one.strip()]
        self._api_key = api_key
        self._timeout = timeout
        self._marks = marks
        self.writer = writer
        self._client = client
        self._clients: dict[str, Any] = {}
        self._asked = 0
        """Which of the URLs is asked."""
        self._answered = False
        self._connecting = threading.Lock()

    def client(self, url: str) -> Any:
        if self._client is not None:
            return self._client
        with self._connecting:
            if url not in self._clients:
                from qdrant_client import QdrantClient

                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of a key without TLS, as in a network of one's own
                    self._clients[url] = QdrantClient(
                        url=url,
                        api_key=self._api_key,
                        timeout=max(1, round(self._timeout)),
                        check_compatibility=False,
                    )
            return self._clients[url]

    def ask(self, ask: Ask[_Result], *, again: bool = True) -> _Result:
        """What `ask` gets from the client, tried `again` while that may help, for as long as the time-out.

        What is written may be written twice, which changes nothing. Raises what `translated` does.
        """
        seconds = self._timeout if self._answered else min(CONNECTING, self._timeout)
        patience = Patience(time.monotonic() + seconds)
        while True:
            for _ in self._urls:
                url = self._urls[self._asked % len(self._urls)]
                try:
                    with self._translated(url):
                        result = ask(self.client(url))
                except LLMBackendError as error:
                    if not again or not error.details.get("passing"):
                        raise
                    self._asked += 1  # the next one, of several
                    failed = error
                else:
                    self._answered = True
                    return result
            pause = patience.pause(failed.details.get("retry_after"))
            used_up = isinstance(failed, BackendTimeout) and "status" not in failed.details
            if pause is None or used_up:
                raise failed
            time.sleep(pause)

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
            self.ask(
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
            if "already exists" not in error.message:  # the answer to an earlier try was lost
                raise
        for path, kind in {**OWN_FIELDS, **in_points(layout.indexes)}.items():
            self.make_index(name, path, kind)

    def make_index(self, name: str, path: str, kind: str) -> None:
        from qdrant_client import models

        schema = models.PayloadSchemaType(kind)
        self.ask(lambda client: client.create_payload_index(name, path, schema, wait=True))

    def remove_index(self, name: str, path: str) -> None:
        self.ask(lambda client: client.delete_payload_index(name, path, wait=True))

    def open(self, physical: Physical, *, repair: bool = True) -> QdrantServerIndex:
        return QdrantServerIndex(self, physical, self._mark(physical.id), repair)

    def drop(self, physical_id: str) -> None:
        self.ask(lambda client: client.delete_collection(_named(physical_id)))
        self._mark(physical_id).unlink(missing_ok=True)

    def about(self) -> About:
        """The server's version, and how many collections it has; raises BackendError."""
        return self.ask(
            lambda client: About(client.info().version, len(client.get_collections().collections)),
            again=False,
        )

    def close(self) -> None:
        for client in [self._client, *self._clients.values()]:
            if client is not None:
                client.close()

    def _mark(self, physical_id: str) -> Path:
        self._marks.mkdir(parents=True, exist_ok=True)
        return self._marks / f"{physical_id}.in-use"

    @contextmanager
    def _translated(self, url: str) -> Iterator[None]:
        """qdrant-client's exceptions become ours, here and only here; `passing` are those that may not come again."""
        import httpx
        from qdrant_client.common.client_exceptions import QdrantException, ResourceExhaustedResponse
        from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

        where = f"the Qdrant server at {url}"
        about: dict[str, Any] = {"backend": "Qdrant", "url": url}
        for_now = {**about, "passing": True}
        try:
            yield
        except LLMBackendError:
            raise
        except ResourceExhaustedResponse as error:
            raise Overloaded(
                f"{where} has too much to do", details={**for_now, "retry_after": error.retry_after_s}
            ) from error
        except UnexpectedResponse as error:
            raise _refusal(
                error.status_code or 0, error.content.decode(errors="replace"), where, about
            ) from error
        except ResponseHandlingException as error:
            if isinstance(error.source, httpx.TimeoutException):
                raise BackendTimeout(
                    f"{where} did not answer in {self._timeout:.3g} s", details=for_now
                ) from error
            if isinstance(error.source, httpx.TransportError):
                raise BackendError(
                    f"{where} cannot be reached ({type(error.source).__name__}): is it running there?",
                    details=for_now,
                ) from error
            raise BackendError(
                f"{where} gave an answer that does not fit ({type(error.source).__name__}): is this the right URL?",
                details=about,
            ) from error
        except QdrantException as error:  # a Retry-After that the client cannot read
            raise Overloaded(f"{where} has too much to do", details=for_now) from error
        except Exception as error:  # what the client finds wrong before it asks
            raise BackendError(f"{where}: {error}", details=about) from error


def _refusal(status: int, body: str, where: str, about: dict[str, Any]) -> LLMBackendError:
    """The error for an answer with an error status."""
    said = _said(body)
    details = {**about, "status": status}
    if status in (401, 403):
        return BackendError(f"{where} refuses the key: set QDRANT_API_KEY to the right one", details=details)
    if (found := _NO_INDEX.search(said)) is not None:
        field = ".".join(parts(found[1])[1:]) or found[1]
        types = [one.strip() for one in (found[2] or "keyword").split(",")]
        return InvalidRequest(
            f"filters: {where} filters by indexed fields only (strict mode), and {field!r} has no index of the type "
            f"{' or '.join(types)}: make it by set_indexes(collection, {{{field!r}: {types[0]!r}}})",
            details={**details, "field": field, "types": types},
        )
    if (found := _TOO_MANY.search(said)) is not None:
        what = "conditions" if found[1].startswith("Filter") else "values in a condition"
        return InvalidRequest(
            f"filters: {found[2]} {what}, and {where} takes {found[3]} (strict mode): ask for less at a time",
            details={**details, "limit": int(found[3]), "strict": True},
        )
    if status == 400 and _STRICT.search(said):
        return InvalidRequest(
            f"{where} takes no such request (strict mode): {said}", details={**details, "strict": True}
        )
    if status == 413 or (status == 400 and _TOO_LARGE.search(said)):
        return InvalidRequest(
            f"{where} takes no request of that size: {said}", details={**details, "too_large": True}
        )
    if status == 429:
        return Overloaded(f"{where} has too much to do", details={**details, "passing": True})
    if status == 507 or (400 <= status < 500 and _FULL.search(said)):
        return InsufficientStorage(f"{where} has no room: {said}", details=details)
    if passing(status) or (status != 404 and _PARTIAL.search(said)):
        details["passing"] = True
    if status == 404:
        details["gone"] = True
    if status in (408, 504):
        return BackendTimeout(f"{where} did not answer in time: {said}", details=details)
    return BackendError(f"{where} answered {status}: {said}", details=details)


def _said(body: str) -> str:
    """What a server's answer says is wrong."""
    try:
        said = json.loads(body)["status"]["error"]
    except (ValueError, LookupError, TypeError):
        said = body
    return str(said)[:300]


class QdrantServerIndex(QdrantIndex):
    """A VectorIndex in a collection of a server. Whatever is written is there for the next call."""

    threads = threads.network

    def __init__(self, server: QdrantServer, physical: Physical, in_use: Path, repair: bool) -> None:
        """Open it; raises BackendError if it is not there."""
        self._server = server
        self._name = _named(physical.id)
        self._limits = Limits()
        self._quantized = False
        self._indexing = threading.Lock()
        self._paths: dict[tuple[str, ...], str] = {}
        self._indexed_points: dict[tuple[str, ...], int] = {}
        """How many points are in each index, when that was last asked for."""
        self._unmade: dict[str, float] = {}
        """Paths that could not be indexed for a filter, and until when (`time.monotonic`) that is not tried again."""
        self._sweeping = threading.Lock()
        self._sweeper: threading.Timer | None = None
        self._closed = False
        self._undone: set[tuple[str, str]] = set()
        """Versions to discard for which the server was away."""
        super().__init__(physical, _Syntax(self), in_use, server.writer)
        self._begin(repair)

    def _begin(self, repair: bool) -> None:
        if self._in_use.exists():
            self._sweep_later()
        super()._begin(repair)

    def _ask(self, ask: Ask[_Result]) -> _Result:
        """As the server's. `ask` may be called twice: the second time when limits have turned out to be others."""
        before = self._limits
        try:
            return self._server.ask(ask)
        except LLMBackendError as error:
            if not error.details.get("strict"):
                raise
            self._learn_indexes()
            if self._limits == before:
                raise
        return self._server.ask(ask)

    def _within(self, limit: int) -> int:
        """Points to ask for at once, of so many that are wanted."""
        return min(limit, self._limits.query or limit)

    def _learn(self) -> Any:
        """What the server tells about the collection."""
        try:
            return self._server.ask(lambda client: client.get_collection(self._name))
        except BackendError as error:
            if not error.details.get("gone"):
                raise
            raise BackendError(
                f"the Qdrant server at {self._server.url} has no collection {self._name!r} any more: delete the "
                "collection and ingest anew",
                details={"backend": "Qdrant", "url": self._server.url, "gone": True},
            ) from error

    def _schema(self) -> Mapping[str, str]:
        about = self._learn()
        self._limits = Limits.of(about.config)
        self._quantized = about.config.quantization_config is not None
        self._paths = {parts(path): path for path in about.payload_schema}
        self._indexed_points = {
            parts(path): int(index.points) for path, index in about.payload_schema.items()
        }
        return {path: str(index.data_type.value) for path, index in about.payload_schema.items()}

    def _index_own_fields(self) -> None:
        """Without them, a server in strict mode takes no changes."""
        for path, kind in OWN_FIELDS.items():
            if parts(path) not in self._indexed:
                try:
                    self._make_index(path, kind)
                except LLMBackendError as error:  # a key that may only read
                    log.warning("%s of %s could not be indexed: %s", path, self._name, error)

    def _make_index(self, path: str, kind: str) -> None:
        self._server.make_index(self._name, path, kind)
        self._indexed[parts(path)] = kind
        self._paths[parts(path)] = path

    def set_indexes(self, changes: Mapping[str, FieldType | None], declared: Indexes) -> None:
        with self._indexing:
            self._learn_indexes()  # other processes may have made some
            for field, kind in changes.items():
                for path in in_points({field: kind or "keyword"}):
                    there = self._indexed.get(parts(path))
                    if there is not None and there != kind:
                        self._remove_index(path)
                    if kind is not None and there != kind:
                        self._make_room(declared, MOST)
                        self._make_index(path, kind)

    def prepare(self, fields: Indexes, declared: Indexes) -> None:
        """Where an index cannot be made, the search tells if it cannot do without."""
        now = time.monotonic()

        def missing() -> dict[str, FieldType]:
            return {
                path: kind
                for path, kind in in_points(fields).items()
                if parts(path) not in self._indexed and self._unmade.get(path, 0.0) <= now
            }

        if not missing():
            return
        with self._indexing:
            self._learn_indexes()
            most = min(MOST, MOST_FOR_FILTERS + len(in_points(declared)))
            for path, kind in missing().items():
                try:
                    if self._make_room(declared, most, keep=in_points(fields)):
                        self._make_index(path, kind)
                        continue
                except LLMBackendError as error:
                    log.warning("%s of %s could not be indexed: %s", path, self._name, error)
                self._unmade[path] = now + TRIED_AGAIN
                while len(self._unmade) > MOST_UNMADE:
                    del self._unmade[next(iter(self._unmade))]

    def _make_room(self, declared: Indexes, most: int, keep: Iterable[str] = ()) -> bool:
        """Whether there may be another index: for a declared one, those that filters had made go, for such a one those
        that no point is in: a field's name may be made up."""
        stay = {parts(path) for path in (*OWN_FIELDS, *in_points(declared), *keep)}
        others = [path for path in self._indexed if path not in stay]
        others.sort(key=lambda path: self._indexed_points.get(path, 0))
        if keep:
            others = [path for path in others if not self._indexed_points.get(path, 0)]
        while len(self._indexed) - len(OWN_FIELDS) >= most and others:
            self._remove_index(self._paths[others.pop(0)])
        return len(self._indexed) - len(OWN_FIELDS) < most

    def _remove_index(self, path: str) -> None:
        self._server.remove_index(self._name, path)
        del self._indexed[parts(path)]

    def take_over(self, other: VectorIndex) -> None:
        """Nothing is in memory here."""

    @property
    def most_values(self) -> int | None:
        """That a condition may have."""
        return self._limits.condition_size

    @property
    def _named_at_once(self) -> int:
        return self._limits.named

    def require_room(self, characters: int) -> None:
        """The server's disk is not ours to ask: it tells when it is written to."""

    def discard(self, versions: Sequence[tuple[str, str]]) -> None:
        try:
            super().discard(versions)
        except LLMBackendError:
            with self._sweeping:
                self._undone.update(versions)
            self._sweep_later()
            raise

    def _write(self, points: Sequence[Point]) -> None:
        with self._sweeping:
            self._undone -= {(point.payload["document_id"], point.payload["hash"]) for point in points}
        for batch in _batches(points, self._limits.upsert or WRITE_BATCH):
            self._upsert(batch)

    def _upsert(self, batch: Sequence[Point]) -> None:
        """Write points in one request, or in halves where it is too much for the server."""
        records = _records(batch)
        try:
            self._ask(lambda client: client.upsert(self._name, records, wait=True))
        except (InvalidRequest, BackendTimeout) as error:
            if len(batch) > (LEAST_BATCH if isinstance(error, BackendTimeout) else 1):
                half = len(batch) // 2
                self._upsert(batch[:half])
                self._upsert(batch[half:])
            elif error.details.get("too_large"):
                raise _too_large(batch[0], error) from error
            else:
                raise

    def _there(self, ids: list[uuid.UUID]) -> list[uuid.UUID]:
        records = self._retrieved(ids, payload=["superseded"])
        return [uuid.UUID(record.id) for record in records if not record.payload]

    def _retrieved(self, ids: list[uuid.UUID], *, payload: bool | list[str]) -> Sequence[Any]:
        names = [str(one) for one in ids]
        found: Sequence[Any] = self._ask(
            lambda client: client.retrieve(self._name, names, with_payload=payload, with_vectors=False)
        )
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
        """As many of these records as an answer may have."""
        page: tuple[Sequence[Any], Any] = self._ask(
            lambda client: client.scroll(
                self._name,
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
                counted = self._ask(lambda client: client.count(self._name, count_filter=where, exact=True))
                return int(counted.count)
            except InvalidRequest:
                if self._limits.exact:  # else that was why
                    raise
        count, offset = 0, None
        while True:
            records, offset = self._scroll(where, 10_000, offset, False)
            count += len(records)
            if offset is None:
                return count

    def _delete(self, where: Any) -> None:
        from qdrant_client import models

        self._ask(lambda client: client.delete(self._name, models.FilterSelector(filter=where), wait=True))

    def keep_only(self, versions: Sequence[tuple[str, str]], older: Collection[str] | None = None) -> None:
        self._in_portions(versions, self._settle)

    def _settle(self, versions: Sequence[tuple[str, str]]) -> None:
        """Of each document the version written last stays: each process that writes one sees the same.

        Versions without a head are left to the process that is writing them.
        """
        where = self._all_current([self._head(), self._of([name for name, _ in versions])])
        there: dict[str, list[tuple[int, str]]] = {}
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
        """Have these points be found no more, and remove them when nobody reads them any more."""
        from qdrant_client import models

        moment = {"superseded": time.time_ns()}
        selected = models.FilterSelector(filter=where)
        self._ask(lambda client: client.set_payload(self._name, moment, selected, wait=True))
        self._sweep_later()

    def _gone(self) -> list[Any]:
        return [self._syntax.range("superseded", {"gte": 1})]

    def _sweep_later(self) -> None:
        with self._sweeping:
            if self._sweeper is None and not self._closed:
                self._sweeper = threading.Timer(2 * GRACE, self._sweep)
                self._sweeper.daemon = True
                self._sweeper.start()

    def _sweep(self) -> None:
        """Remove what was superseded a while ago, by whatever process; once more later, for what was since then."""
        with self._sweeping:
            self._sweeper = None
        try:
            self._remove_superseded(GRACE)
            with self._sweeping:
                super().discard(list(self._undone))
                self._undone.clear()
            left = self._syntax.group(must=self._gone())
            again = bool(self._scroll(left, 1, None, False)[0])
        except LLMBackendError as error:
            log.warning("superseded chunks of %s could not be removed yet: %s", self._name, error)
            again = not error.details.get("gone")
        if again:
            self._sweep_later()

    def _remove_superseded(self, seconds: float, *, again: bool = True) -> None:
        """Those that have been so for so long."""
        from qdrant_client import models

        old = self._syntax.range("superseded", {"gte": 1, "lte": time.time_ns() - seconds * 1e9})
        selected = models.FilterSelector(filter=self._syntax.group(must=[old]))
        self._server.ask(lambda client: client.delete(self._name, selected, wait=True), again=again)

    def _nearest(
        self, vectors: Sequence[Dense | Sparse], limit: int, where: Any, conditions: Sequence[Condition]
    ) -> list[list[Scored]]:
        return [self._nearest_to(vector, limit, where) for vector in vectors]

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
        """As many of the nearest, but for the first so many, as an answer may have."""
        from qdrant_client import models

        query: Any = vector
        if isinstance(vector, Sparse):
            query = models.SparseVector(indices=vector.indices, values=vector.values)
        answer = self._ask(
            lambda client: client.query_points(
                self._name,
                query=query,
                using=SPARSE if isinstance(vector, Sparse) else DENSE,
                query_filter=where,
                limit=self._within(limit),
                search_params=None if isinstance(vector, Sparse) else self._search_params,
                offset=start or None,
                with_payload=False,
            )
        )
        return {uuid.UUID(point.id): point.score for point in answer.points}

    @property
    def _search_params(self) -> Any:
        """Of quantized vectors a few more are found, and scored again by the whole ones."""
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
        """The server has written what it acknowledged to its log."""

    def close(self) -> None:
        """What cannot be removed now is when it is opened again."""
        with self._sweeping:
            sweeper, self._closed = self._sweeper, True
        if sweeper is not None:
            sweeper.cancel()
            try:
                self._remove_superseded(0, again=False)
            except LLMBackendError as error:
                log.warning("superseded chunks of %s could not be removed yet: %s", self._name, error)
                return  # and leaves the mark
        super().close()

    def _close(self) -> None:
        """The connection is the engine's."""


def _batches(points: Sequence[Point], most: int) -> Iterator[Sequence[Point]]:
    """As many points as go into a request."""
    start = size = of_metadata = 0
    metadata: Any = None
    for number, point in enumerate(points):
        if (
            given := point.payload.get("metadata")
        ) is not metadata:  # of a document, which has several chunks
            metadata, of_metadata = given, len(repr(given))
        its = _size(point) + of_metadata
        if number > start and (size + its > WRITE_BYTES or number - start == min(most, WRITE_BATCH)):
            yield points[start:number]
            start, size = number, 0
        size += its
    if points[start:]:
        yield points[start:]


def _size(point: Point) -> int:
    """Bytes of a point as JSON without its metadata, about, and rather more."""
    numbers = len(point.dense) + 2 * len(point.sparse.indices)
    return NUMBER_BYTES * numbers + _bytes(point.payload["text"]) + 500


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _records(points: Sequence[Point]) -> list[Any]:
    from qdrant_client import models

    return [
        models.PointStruct(
            id=str(point.id),
            vector={
                DENSE: point.dense.tolist(),
                SPARSE: models.SparseVector(indices=point.sparse.indices, values=point.sparse.values),
            },
            payload=point.payload,
        )
        for point in points
    ]


def _too_large(point: Point, error: LLMBackendError) -> InvalidRequest:
    """The error for a point that is refused by itself."""
    text, metadata = _bytes(point.payload["text"]), len(repr(point.payload.get("metadata")))
    field, size = ("text", text) if text >= metadata else ("metadata", metadata)
    return InvalidRequest(
        f"document {point.payload['document_id']!r}: the {field} of its chunk {point.payload['chunk']} has {size} bytes, "
        f"more than the Qdrant server takes in a request: make it shorter, or raise the server's max_request_size_mb "
        f"({error.message})",
        details={**error.details, "document_id": point.payload["document_id"], "field": field},
    )


class _Syntax:
    def __init__(self, index: QdrantServerIndex) -> None:
        from qdrant_client import models

        self._models: Any = models
        self._index = index

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )

    def equals(self, key: str, value: str | int | bool) -> Any:
        return self._models.FieldCondition(key=key, match=self._models.MatchValue(value=value))

    def any_of(self, key: str, values: list[str] | list[int]) -> Any:
        most = self._index.most_values or len(values)
        parts = [
            self._models.FieldCondition(
                key=key, match=self._models.MatchAny(any=values[start : start + most])
            )
            for start in range(0, len(values), most)
        ]
        return parts[0] if len(parts) == 1 else self.group(should=parts)

    def range(self, key: str, bounds: dict[str, float]) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.Range(**bounds))

    def times(self, key: str, bounds: dict[str, str]) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.DatetimeRange.model_validate(bounds))

    def empty(self, key: str) -> Any:
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=key))


def _named(physical_id: str) -> str:
    return f"llmbackend_{physical_id}"
