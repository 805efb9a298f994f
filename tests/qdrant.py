"""What stands in for a Qdrant server, of which there is none to be had for tests: qdrant-client's in-memory mode.

For one process as a client; for several behind HTTP, with as much of Qdrant's REST API as llmbackend uses. It has of a
real server (1.19 was looked at) what the in-memory mode lacks: indexes of fields and strict mode, which are its clients'
way to be refused; behind HTTP also a moment between finding points and reading them, a largest request, restarts, and
answers that were prepared for it.
"""

from __future__ import annotations

import asyncio
import math
import re
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import uvicorn
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models
from qdrant_client.http.exceptions import UnexpectedResponse
from qdrant_client.local import datetime_utils, local_collection
from qdrant_client.local.payload_filters import check_filter
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

CLOUD = models.StrictModeConfigOutput(
    enabled=True,
    unindexed_filtering_retrieve=False,
    unindexed_filtering_update=False,
    max_payload_index_count=100,
)
"""What Qdrant Cloud gives new collections (qdrant.tech/documentation/cloud/configure-cluster)."""


def _mask(
    payloads: list[dict[str, Any]],
    payload_filter: models.Filter | None,
    ids_inv: list[Any],
    deleted_per_vector: dict[str, Any],
) -> Any:
    """What fits a filter, as the in-memory mode finds it, looking only at the documents that are named, if some are."""
    named: set[Any] | None = None
    must = (payload_filter and payload_filter.must) or []
    for one in must if isinstance(must, list) else [must]:
        if isinstance(one, models.FieldCondition) and one.key == "document_id":
            named = set(one.match.any) if isinstance(one.match, models.MatchAny) else None
    if named is None:
        return _every(payloads, payload_filter, ids_inv, deleted_per_vector)
    mask = np.zeros(len(payloads), dtype=bool)
    for number, payload in enumerate(payloads):
        if payload.get("document_id") in named:
            mask[number] = check_filter(payload_filter, payload, ids_inv[number], {})
    return mask


# Else it takes minutes to write 20,000 documents: it asks each point about each name.
_every, local_collection.calculate_payload_mask = local_collection.calculate_payload_mask, _mask
# It tries each form of a date, for each point anew.
datetime_utils.parse = cache(datetime_utils.parse)


class Prepared(NamedTuple):
    """An answer instead of the next one."""

    status: int
    error: str = "told to"
    headers: dict[str, str] | None = None
    after: bool = False
    """The work is done all the same."""


class OneAtATime:
    """A client whose methods wait for one another: qdrant-client's in-memory mode takes no two calls at once."""

    def __init__(self, strict: models.StrictModeConfigOutput | None = None) -> None:
        self._client = QdrantClient(":memory:")
        self._lock = threading.RLock()
        self._indexes: dict[str, dict[str, models.PayloadIndexInfo]] = {}
        self.strict = strict
        """Of every collection."""
        self.refusals: dict[str, str] = {}
        """By methods' names: why they are refused."""
        self.made: dict[str, models.CreateCollection] = {}
        """Behind HTTP: what collections were made with."""
        self.searches: list[models.QueryRequest] = []
        self.calls: list[str] = []
        """Names of the client's methods that were called, in order."""
        # Behind HTTP:
        self.hangs = False
        """While this is set, no query is answered."""
        self.asked = 0
        """Queries that came."""
        self.gap = 0.0
        """Seconds between finding points and reading what is in them: those deleted meanwhile are left out."""
        self.largest = 32 * 2**20
        """Bytes of a request."""
        self.sizes: list[int] = []
        """Bytes of the requests that came."""
        self.prepared: list[Prepared] = []
        self.slow_from = 10**9
        """Points, of which a write takes `slow` seconds."""
        self.slow = 0.0
        self.minute = 60.0
        """Seconds of a minute, for its rates."""
        self._left: dict[str, tuple[float, float]] = {}
        """What is left of each rate, and since when (`time.monotonic`)."""

    def close(self) -> None:
        """A server outlives its clients."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*args: Any, **options: Any) -> Any:
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that indexes have no effect there
                self.calls.append(name)
                if name in self.refusals:
                    _refuse(self.refusals[name], "None.")
                self._check(name, args, options)
                result = method(*args, **options)
                if name == "create_payload_index":
                    kind = getattr(args[2], "value", args[2])
                    index = models.PayloadIndexInfo(data_type=kind, points=0)
                    self._indexes.setdefault(args[0], {})[_path(args[1])] = index
                elif name == "delete_payload_index":
                    del self._indexes[args[0]][_path(args[1])]
                elif name == "delete_collection":
                    self._indexes.pop(args[0], None)
                elif name == "get_collection":
                    result.payload_schema = self._indexes.get(args[0], {})
                    for path, index in result.payload_schema.items():
                        index.points = self._having(args[0], path)
                    result.config.strict_mode_config = self.strict
                    if args[0] in self.made:
                        result.config.quantization_config = self.made[args[0]].quantization_config
                return result

        return called

    def _having(self, name: str, path: str) -> int:
        """Points that have something there."""
        empty = models.IsEmptyCondition(is_empty=models.PayloadField(key=path))
        return int(self._client.count(name, models.Filter(must_not=[empty])).count)

    # Strict mode, as lib/collection/src/operations/verification of qdrant/qdrant has it

    def _check(self, name: str, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        strict = self.strict
        if strict is None or not strict.enabled:
            return
        if name == "create_payload_index":
            most = strict.max_payload_index_count
            if most is not None and len(self._indexes.get(args[0], {})) >= most:
                _refuse(
                    f"Collection already has the maximum number of payload indices ({most})",
                    "Please delete an existing index before creating a new one.",
                )
            return
        self._check_rate(strict, name, args, options)
        for given in ("limit", "timeout"):
            most = strict.max_query_limit if given == "limit" else strict.max_timeout
            _check_limit(options.get(given), most, given)
        if name == "upsert":
            _check_limit(len(args[1]), strict.upsert_max_batchsize, "upsert limit")
        if name == "count" and options.get("exact") and strict.search_allow_exact is False:
            _refuse("Exact search disabled!", "Set exact=false.")
        where = options.get("scroll_filter") or options.get("count_filter") or options.get("query_filter")
        indexed_only = strict.unindexed_filtering_retrieve is False
        if name in ("delete", "set_payload"):
            where = next((one.filter for one in args if isinstance(one, models.FilterSelector)), None)
            indexed_only = strict.unindexed_filtering_update is False
        if where is None:
            return
        conditions = list(_conditions(where))
        sizes = [len(getattr(getattr(one, "match", None), "any", None) or ()) for one in conditions]
        for what, size, most in (
            ("Filter condition", len(conditions), strict.filter_max_conditions),
            ("Condition size", max(sizes, default=0), strict.condition_max_size),
        ):
            if most is not None and size > most:
                _refuse(f"{what} limit reached ({size} > {most})", "Reduce it.")
        for one in conditions if indexed_only else ():
            key, types = _needs(one)
            index = self._indexes.get(args[0], {}).get(_path(key)) if key else None
            if key and (index is None or index.data_type.value not in types):
                _refuse(
                    f'Index required but not found for "{_path(key)}" of one of the following types: '
                    f"[{', '.join(sorted(types))}]",
                    "Create an index for this key or use a different filter.",
                )

    def _check_rate(
        self, strict: models.StrictModeConfigOutput, name: str, args: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        """As lib/collection/src/operations/point_ops and lib/common/common/src/rate_limiting.rs: points count."""
        match name:
            case "upsert":
                kind, rate, cost = "Write", strict.write_rate_limit, len(args[1])
            case "delete" | "set_payload":
                kind, rate, cost = "Write", strict.write_rate_limit, 5
            case "retrieve":
                kind, rate, cost = "Read", strict.read_rate_limit, len(args[1])
            case "scroll" | "count" | "query_points":
                kind, rate, cost = "Read", strict.read_rate_limit, 1
            case _:
                return
        if rate is None:
            return
        if cost > rate:
            reason = "request larger than rate limiter capacity, please try to split your request"
            _too_much(f"{kind} rate limit exceeded, {reason}", None)
        now = time.monotonic()
        left, since = self._left.get(kind, (float(rate), now))
        left = min(float(rate), left + (now - since) * rate / self.minute)
        self._left[kind] = left - cost if left >= cost else left, now
        if left < cost:
            seconds = math.ceil((cost - left) * self.minute / rate)
            needs = f"Operation requires {cost} tokens but only {left:.1f} were available"
            _too_much(f"{kind} rate limit exceeded: {needs}. Retry after {seconds}s", seconds)


def _too_much(reason: str, seconds: int | None) -> None:
    body = {"status": {"error": f"Rate limiting exceeded: {reason}"}, "time": 0}
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    raise UnexpectedResponse(429, "", TypeAdapter(Any).dump_json(body), httpx.Headers(headers))


def _refuse(reason: str, help_: str, status: int = 400) -> None:
    body = TypeAdapter(Any).dump_json(
        {"status": {"error": f"Bad request: {reason}. Help: {help_}"}, "time": 0}
    )
    raise UnexpectedResponse(status, "Bad Request", body, httpx.Headers())


def _check_limit(value: int | None, most: int | None, name: str) -> None:
    if value is not None and most is not None and value > most:
        _refuse(
            f'Limit exceeded {value} > {most} for "{name}"',
            f'Reduce the "{name}" parameter to or below {most}.',
        )


def _conditions(where: models.Filter) -> Iterator[Any]:
    for group in (where.must, where.should, where.must_not):
        for one in group if isinstance(group, list) else [group] if group is not None else []:
            if isinstance(one, models.Filter):
                yield from _conditions(one)
            else:
                yield one


_EVERY = {"keyword", "integer", "float", "bool", "datetime", "uuid", "text", "geo"}


def _needs(condition: Any) -> tuple[str | None, set[str]]:
    """A condition's key, and the types of index of which it needs one."""
    if isinstance(condition, models.IsEmptyCondition):
        return condition.is_empty.key, _EVERY
    if not isinstance(condition, models.FieldCondition):
        return None, set()  # of ids
    if condition.range is not None:
        dates = isinstance(condition.range, models.DatetimeRange)
        return condition.key, {"datetime"} if dates else {"float", "integer"}
    match = condition.match
    value = match.any[0] if isinstance(match, models.MatchAny) else getattr(match, "value", "")
    kinds: dict[type, str] = {bool: "bool", int: "integer"}
    return condition.key, {kinds.get(type(value), "keyword")}


def _path(key: str) -> str:
    """As Qdrant tells it: with quotes where they are needed only."""
    return re.sub(r'"([\w-]+)"', r"\1", key)


def _create(client: OneAtATime, name: str, asked: models.CreateCollection) -> Any:
    client.made[name] = asked
    return client.create_collection(
        name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors
    )


def _index(client: OneAtATime, name: str, asked: models.CreateFieldIndex) -> Any:
    return client.create_payload_index(name, asked.field_name, asked.field_schema)


def _upsert(client: OneAtATime, name: str, asked: models.PointsList) -> Any:
    return client.upsert(name, asked.points)


def _delete(client: OneAtATime, name: str, asked: models.FilterSelector) -> Any:
    return client.delete(name, asked)


def _set_payload(client: OneAtATime, name: str, asked: models.SetPayload) -> Any:
    return client.set_payload(name, asked.payload, models.FilterSelector(filter=asked.filter))


def _retrieve(client: OneAtATime, name: str, asked: models.PointRequest) -> Any:
    return client.retrieve(name, asked.ids, asked.with_payload, asked.with_vector or False)


def _scroll(client: OneAtATime, name: str, asked: models.ScrollRequest) -> Any:
    points, following = client.scroll(
        name,
        scroll_filter=asked.filter,
        limit=asked.limit,
        offset=asked.offset,
        with_payload=asked.with_payload,
        with_vectors=asked.with_vector or False,
    )
    return models.ScrollResult(points=points, next_page_offset=following)


def _count(client: OneAtATime, name: str, asked: models.CountRequest) -> Any:
    return client.count(name, count_filter=asked.filter, exact=asked.exact)


def _query(client: OneAtATime, name: str, asked: models.QueryRequest) -> Any:
    client.searches.append(asked)
    found = client.query_points(
        name,
        query=asked.query,
        using=asked.using,
        prefetch=asked.prefetch,
        query_filter=asked.filter,
        limit=asked.limit,
        offset=asked.offset,
        with_payload=asked.with_payload,
    )
    if client.gap:
        time.sleep(client.gap)
        there = {point.id for point in client.retrieve(name, [point.id for point in found.points], False)}
        found.points = [point for point in found.points if point.id in there]
    return found


_CALLS: list[tuple[str, str, Any, Callable[[OneAtATime, str, Any], Any]]] = [
    ("GET", "/collections", None, lambda client, _name, _asked: client.get_collections()),
    ("GET", "/collections/{name}", None, lambda client, name, _: client.get_collection(name)),
    (
        "GET",
        "/collections/{name}/exists",
        None,
        lambda client, name, _: models.CollectionExistence(exists=client.collection_exists(name)),
    ),
    ("PUT", "/collections/{name}", models.CreateCollection, _create),
    ("DELETE", "/collections/{name}", None, lambda client, name, _: client.delete_collection(name)),
    ("PUT", "/collections/{name}/index", models.CreateFieldIndex, _index),
    (
        "DELETE",
        "/collections/{name}/index/{field}",
        None,
        lambda client, names, _: client.delete_payload_index(*names),
    ),
    ("PUT", "/collections/{name}/points", models.PointsList, _upsert),
    ("POST", "/collections/{name}/points", models.PointRequest, _retrieve),
    ("POST", "/collections/{name}/points/delete", models.FilterSelector, _delete),
    ("POST", "/collections/{name}/points/payload", models.SetPayload, _set_payload),
    ("POST", "/collections/{name}/points/scroll", models.ScrollRequest, _scroll),
    ("POST", "/collections/{name}/points/count", models.CountRequest, _count),
    ("POST", "/collections/{name}/points/query", models.QueryRequest, _query),
]


class Server:
    """What is behind a URL, which can be away for a while."""

    def __init__(self, client: OneAtATime) -> None:
        self.client = client
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        routes = [
            Route(path, partial(self._answer, asks, work), methods=[method])
            for method, path, asks, work in _CALLS
        ]
        # The protocol named, or asyncio leaves Nagle's algorithm on, which costs 40 ms a request.
        self._listener = socket.socket(proto=socket.IPPROTO_TCP)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen()
        self._port = self._listener.getsockname()[1]
        config = uvicorn.Config(
            Starlette(routes=routes), log_level=100, lifespan="off", ws="none", timeout_graceful_shutdown=0
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Connections are refused, and those there are break off, until it starts again."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    async def _answer(
        self, asks: Any, work: Callable[[OneAtATime, Any, Any], Any], request: Request
    ) -> JSONResponse:
        client = self.client
        name: Any = request.path_params.get("name", "")
        if "field" in request.path_params:
            name = (name, request.path_params["field"])
        body = await request.body()
        client.sizes.append(len(body))
        prepared = client.prepared.pop(0) if client.prepared else None
        if prepared is not None and not prepared.after:
            return _failed(prepared.error, prepared.status, prepared.headers)
        if len(body) > client.largest:
            return _failed(
                f"JSON payload ({len(body)} bytes) is larger than allowed (limit: {client.largest} bytes).",
                400,
            )
        asked = asks.model_validate_json(body) if asks is not None else None
        if work is _upsert and len(asked.points) >= client.slow_from:
            await asyncio.sleep(client.slow)
        if work is _query:
            client.asked += 1
            while client.hangs:  # noqa: ASYNC110  # set by another thread
                await asyncio.sleep(0.02)
        try:
            result = await run_in_threadpool(work, client, name, asked)
        except UnexpectedResponse as error:
            headers = dict(error.headers) if error.status_code == 429 else None
            return JSONResponse(error.structured(), error.status_code or 400, headers)
        except ValueError as error:  # of a collection that is not there
            return _failed(str(error), 404)
        if prepared is not None:
            return _failed(prepared.error, prepared.status, prepared.headers)
        return JSONResponse({"result": _ANY.dump_python(result, mode="json"), "status": "ok", "time": 0})


def _failed(error: str, status: int, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"status": {"error": error}, "time": 0}, status, headers)


@contextmanager
def serving(strict: models.StrictModeConfigOutput | None = None) -> Iterator[Server]:
    """A server, and what is behind it."""
    server = Server(OneAtATime(strict))
    try:
        yield server
    finally:
        server.stop()


Connect = Callable[..., LLMBackendClient]


@contextmanager
def connecting(url: str, folder: Path, **defaults: Any) -> Iterator[Connect]:
    """Opens clients in this process on that server; settings come over the defaults. All are closed at the end."""
    with ExitStack() as opened:

        def connect(data: str = "data", **settings: Any) -> LLMBackendClient:
            options = Settings(
                data_dir=folder / data, qdrant_url=settings.pop("qdrant_url", url), **{**defaults, **settings}
            )
            return opened.enter_context(LLMBackendClient(transport=LocalTransport(options)))

        yield connect


@contextmanager
def running() -> Iterator[tuple[str, OneAtATime]]:
    """A server's URL, and what is behind it."""
    with serving() as server:
        yield server.url, server.client


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
