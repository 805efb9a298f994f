"""What stands in for a Qdrant server, of which there is none to be had for tests: qdrant-client's in-memory mode.

For one process as a client; for several behind HTTP, with as much of Qdrant's REST API as llmbackend uses.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import uvicorn
from pydantic import TypeAdapter
from qdrant_client import QdrantClient, models
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


class OneAtATime:
    """A client whose methods wait for one another: qdrant-client's in-memory mode takes no two calls at once."""

    def __init__(self) -> None:
        self._client = QdrantClient(":memory:")
        self._lock = threading.Lock()
        self.hangs = False
        """While this is set, the server of `running` answers no query."""
        self.asked = 0
        """Queries that came to it."""

    def close(self) -> None:
        """A server outlives its clients."""

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def called(*args: Any, **options: Any) -> Any:
            with self._lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that indexes have no effect there
                return method(*args, **options)

        return called


def _create(client: OneAtATime, name: str, asked: models.CreateCollection) -> Any:
    return client.create_collection(
        name, vectors_config=asked.vectors, sparse_vectors_config=asked.sparse_vectors
    )


def _index(client: OneAtATime, name: str, asked: models.CreateFieldIndex) -> Any:
    return client.create_payload_index(name, asked.field_name, asked.field_schema)


def _upsert(client: OneAtATime, name: str, asked: models.PointsList) -> Any:
    return client.upsert(name, asked.points)


def _delete(client: OneAtATime, name: str, asked: models.FilterSelector) -> Any:
    return client.delete(name, asked)


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
    return client.count(name, count_filter=asked.filter, exact=True)


def _query(client: OneAtATime, name: str, asked: models.QueryRequest) -> Any:
    return client.query_points(
        name,
        query=asked.query,
        using=asked.using,
        prefetch=asked.prefetch,
        query_filter=asked.filter,
        limit=asked.limit,
        with_payload=asked.with_payload,
    )


_CALLS: list[tuple[str, str, Any, Callable[[OneAtATime, str, Any], Any]]] = [
    ("GET", "/collections", None, lambda client, _name, _asked: client.get_collections()),
    (
        "GET",
        "/collections/{name}/exists",
        None,
        lambda client, name, _: models.CollectionExistence(exists=client.collection_exists(name)),
    ),
    ("PUT", "/collections/{name}", models.CreateCollection, _create),
    ("DELETE", "/collections/{name}", None, lambda client, name, _: client.delete_collection(name)),
    ("PUT", "/collections/{name}/index", models.CreateFieldIndex, _index),
    ("PUT", "/collections/{name}/points", models.PointsList, _upsert),
    ("POST", "/collections/{name}/points", models.PointRequest, _retrieve),
    ("POST", "/collections/{name}/points/delete", models.FilterSelector, _delete),
    ("POST", "/collections/{name}/points/scroll", models.ScrollRequest, _scroll),
    ("POST", "/collections/{name}/points/count", models.CountRequest, _count),
    ("POST", "/collections/{name}/points/query", models.QueryRequest, _query),
]


@contextmanager
def running() -> Iterator[tuple[str, OneAtATime]]:
    """A server's URL, and what is behind it."""
    client = OneAtATime()

    async def answer(
        asks: Any, work: Callable[[OneAtATime, str, Any], Any], request: Request
    ) -> JSONResponse:
        name = request.path_params.get("name", "")
        body = await request.body()
        asked = asks.model_validate_json(body) if asks is not None else None
        if work is _query:
            client.asked += 1
            while client.hangs:  # noqa: ASYNC110  # set by another thread
                await asyncio.sleep(0.02)
        try:
            result = await run_in_threadpool(work, client, name, asked)
        except ValueError as error:  # of a collection that is not there
            return JSONResponse({"status": {"error": str(error)}, "time": 0}, 404)
        return JSONResponse({"result": _ANY.dump_python(result, mode="json"), "status": "ok", "time": 0})

    routes = [
        Route(path, partial(answer, asks, work), methods=[method]) for method, path, asks, work in _CALLS
    ]
    # The protocol named, or asyncio leaves Nagle's algorithm on, which costs 40 ms a request.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(
        uvicorn.Config(Starlette(routes=routes), log_level=100, lifespan="off", ws="none")
    )
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


_ANY: TypeAdapter[Any] = TypeAdapter(Any)
