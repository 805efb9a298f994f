"""The table of operations as HTTP routes: a path and a body in, the operation's JSON or events out."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from anyio import CancelScope
from starlette.applications import Starlette
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__, operations
from ..access.caller import NOBODY
from ..backend import Backend
from ..errors import Conflict, InvalidRequest, LLMBackendError, MethodNotAllowed, NotFound
from ..operations import OPERATIONS, Operation
from ..settings import Settings
from ..tracing import Trace
from . import bodies, uploads
from .access import LOOPBACK, Access
from .admission import Admission
from .connections import IDLE, Connection, Connections
from .metrics import PATH, Metrics
from .openapi import document
from .refusals import Refusals, client, origin
from .replies import EventStream, error_response, result_response

log = logging.getLogger(__name__)

VERSION = (b"x-llmbackend-version", __version__.encode())
"""A header by which a client sees whether it fits."""


def create_app(
    backend: Backend, refusals: Refusals | None = None, metrics: Metrics | None = None
) -> Starlette:
    """The application that serves an open Backend."""
    # Those with fields last, and of them the longest first: `project/collection` fits where one name does.
    rows = sorted(OPERATIONS.values(), key=lambda row: ("{" in row.path, -row.path.count("/")))
    routes = [_route(row)(_path(row), _Endpoint(backend, row), methods=[row.method]) for row in rows]
    metrics = metrics or Metrics(backend)
    routes.append(Route(PATH, metrics.endpoint))
    routes += [Route("/health/live", _live), Route("/openapi.json", _openapi)]
    return Starlette(
        routes=routes,
        middleware=[
            *_cors(backend.settings.origins),
            Middleware(RequestId, refusals=refusals or Refusals(), metrics=metrics),
            Middleware(Access, register=backend.register),
            Middleware(
                Admission, settings=backend.settings, register=backend.register, limiter=backend.limiter
            ),
        ],
        exception_handlers={
            LLMBackendError: _refuse,
            HTTPException: _no_route,
            ClientDisconnect: _gone,
            Exception: _unforeseen,
        },
    )


def _cors(origins: list[str]) -> list[Middleware]:
    """What lets pages of other sites call: keys are sent in headers, so no cookies are asked for."""
    if not origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=origins,
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["*"],
            expose_headers=["*"],
        )
    ]


def _path(operation: Operation) -> str:
    """The path as Starlette has it: names of models, and of what is another project's, have slashes, or %2F."""
    path = operation.path.replace("{model}", "{model:path}")
    return path.replace("{collection}", "{collection:qualified}").replace("{name}", "{name:qualified}")


class _Fixed(Route):
    """Of a path without fields: comparing it comes before Starlette's pattern, which takes ten times as long."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        return super().matches(scope) if scope["path"] == self.path else (Match.NONE, {})


def _route(operation: Operation) -> type[Route]:
    return Route if "{" in operation.path else _Fixed


class _QualifiedName(Convertor[str]):
    """`name` or `project/name`."""

    regex = "[^/]+(?:/[^/]+)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("qualified", _QualifiedName())


class _Endpoint:
    """An operation as an ASGI application: Starlette would put two more around a function."""

    def __init__(self, backend: Backend, operation: Operation) -> None:
        self._backend = backend
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            reply = await self._answer(request)
        except LLMBackendError as error:
            reply = await _refuse(request, error)
        await reply(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        backend, operation = self._backend, self._operation

        def streams(asked: Any) -> bool:
            if not operation.streams or asked.stream:
                return operation.streams
            return operation.method != "POST" and operation.media in request.headers.get("accept", "")

        body, fields = await _body(operation, request, backend.settings)
        # From here on it is our time, or the models': what came before was the caller's.
        scope = request.scope
        trace = scope["trace"] = Trace(
            operation.name, scope["request_id"], scope["caller"], client(scope), scope["path"]
        )
        if backend.settings.otel:
            trace.parent = request.headers.get("traceparent", "")
        with CancelScope() as work:
            # A caller who hangs up need not be worked for: the connection tells.
            patience = backend.settings.hang_up_seconds
            scope.setdefault("state", {})["gone"] = partial(trace.leave, work.cancel, patience)
            result = await operations.answer(backend, operation.name, body, trace, fields, streams)
            if isinstance(result, bytes):
                return await result_response(request, operation, result)
            gone = partial(trace.leave, patience=patience)
            return EventStream(result, operation.media, backend.settings.heartbeat_seconds, gone)
        raise ClientDisconnect


async def _body(
    operation: Operation, request: Request, settings: Settings
) -> tuple[operations.Body, Mapping[str, str]]:
    """What a request says: its body, and the fields in its path. Without a body, in path and query."""
    if operation.method != "POST":
        fields = {**request.query_params, **request.path_params}
        # Sent by readers of events who come back.
        if "last_event_id" in operation.request.model_fields and "last-event-id" in request.headers:
            fields["last_event_id"] = request.headers["last-event-id"]
        return fields, {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    content = bodies.Body(request, settings.max_body_bytes, request.scope["reserved"])
    if kind == uploads.FORM and uploads.takes(operation):
        return await uploads.as_fields(operation, request, content, settings), request.path_params
    if kind and kind != "application/json":
        raise InvalidRequest(f"{operation.name}: the body must be application/json, not {kind}")
    body = bytearray()
    async for part in content:
        body += part
    return body, request.path_params


async def _live(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _openapi(request: Request) -> Response:
    return JSONResponse(document())


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, LLMBackendError)
    if error.status >= 500:
        # Where there is a text by a model in it, the message quotes that.
        what = error.code if "text" in error.details else error.message
        log.warning("%s: %s", origin(request.scope), what)
    return error_response(error, request.scope.get("request_id"))


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.scope["path"][:200]
    ours: LLMBackendError = NotFound(f"there is no {request.method} {path}: see /openapi.json")
    if error.status_code != 405:
        return error_response(ours, request.scope.get("request_id"))
    # Starlette tells those of the first route on that path only.
    methods: set[str] = set()
    for route in request.app.routes:
        if route.matches(request.scope)[0] is not Match.NONE:
            methods |= route.methods
    allowed = ", ".join(sorted(methods))
    ours = MethodNotAllowed(f"{path} takes {allowed}, not {request.method}: see /openapi.json")
    reply = error_response(ours, request.scope.get("request_id"))
    reply.headers["Allow"] = allowed
    return reply


async def _gone(request: Request, error: Exception) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _unforeseen(request: Request, error: Exception) -> Response:
    log.error("%s failed unexpectedly", origin(request.scope), exc_info=error)
    return error_response(LLMBackendError("the server failed unexpectedly"), request.scope.get("request_id"))


class RequestId:
    """Gives every request an id, sent back as X-Request-Id and written into errors and the log, and logs refusals.

    What the connection has refused already is answered here.

    X-LLMBackend-Overhead-Ms tells the time until the reply began that no model took.
    """

    def __init__(self, app: ASGIApp, refusals: Refusals, metrics: Metrics) -> None:
        self._app = app
        self._refusals = refusals
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["request_id"] = os.urandom(16).hex()
        scope["caller"] = NOBODY

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                if 400 <= message["status"] < 500:
                    self._refusals.note(scope, message["status"])
                    self._metrics.refused(message["status"])
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode()), VERSION]
                if (limited := scope.get("limited")) is not None:
                    message["headers"] += limited.headers()
                if (trace := scope.get("trace")) is not None:
                    overhead = f"{trace.overhead * 1000:.2f}".encode()
                    message["headers"].append((b"x-llmbackend-overhead-ms", overhead))
            await send(message)

        if (refusal := scope.get("state", {}).get("refusal")) is None:
            await self._app(scope, receive, send_with_id)
            return
        status, error = refusal
        reply = error_response(error, request_id)
        reply.status_code = status
        await reply(scope, receive, send_with_id)


def check_exposure(settings: Settings) -> None:
    """Refuse to listen beyond this machine without a key; raises InvalidRequest."""
    if not settings.callers and settings.host not in LOOPBACK:
        raise InvalidRequest(
            f"HOST is {settings.host} and there is no API_KEY: set one, or listen on 127.0.0.1 only"
        )


def check_address(host: str, port: int) -> None:
    """Whether a server can listen there, before anything is opened; raises InvalidRequest or Conflict."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            with socket.socket(family, kind, protocol) as trying:
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trying.bind(address)
                trying.listen()
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidRequest(
            f"HOST {host!r} is no address of this machine, nor a name of one: set another"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is in use by another process: end that, or choose another by --port or PORT"
            ) from error
        if error.errno == errno.EACCES:
            raise InvalidRequest(
                f"this user may not listen on port {port}: choose one from 1024 on by --port or PORT"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidRequest(f"HOST {host!r} is no address of this machine: set another") from error
        raise InvalidRequest(
            f"a server cannot listen at {host}, port {port}: {error.strerror or error}"
        ) from error


def run(settings: Settings, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until stopped (SIGINT, SIGTERM); calls `started` with the URL once requests are answered.

    Raises InvalidRequest, Conflict or BackendError if it cannot start.
    """
    # uvicorn's choice of loop: uvloop where there is one.
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        runner.run(_serve(settings, started))


async def _serve(settings: Settings, started: Callable[[str], None]) -> None:
    check_exposure(settings)
    check_address(settings.host, settings.port)
    if settings.metrics_port is not None:
        check_address(settings.host, settings.metrics_port)
    backend = await Backend.open(settings, forwards=True)
    gc.collect()
    gc.freeze()  # what is there by now stays: looking through it time and again is left out
    gc.set_threshold(5000)
    gc.callbacks.append(_Freezing())
    sys.setswitchinterval(
        0.001
    )  # seconds that a thread at work may keep the loop from its turn; Python's are 5 ms
    refusals, metrics = Refusals(backend.audited), Metrics(backend)
    connections = Connections(_most_connections(settings))
    try:
        config = uvicorn.Config(
            create_app(backend, refusals, metrics),
            http=partial(Connection, connections),  # type: ignore[arg-type]
            ws="none",
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=10,
            timeout_keep_alive=int(IDLE),
        )
        watching = asyncio.create_task(connections.watch(refusals.summarise))
        measuring = None
        if settings.metrics_port is not None:
            measuring = asyncio.create_task(metrics.serve(settings.host, settings.metrics_port))
        try:
            await _Server(config, started).serve()
        finally:
            watching.cancel()
            if measuring is not None:
                measuring.cancel()
                await asyncio.wait([measuring])
    finally:
        await backend.close()


class _Freezing:
    """Leaves out what survived a collection of garbage that took long: most of it is modules that were imported late.

    A collection stops all threads, and would take a tenth of a second each time. Of what is left out, garbage that refers
    to itself is never freed; that is little, for only tens of thousands of new objects make a collection long again.
    """

    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        elif info["generation"] == 2 and time.thread_time() > self._began + LONG_COLLECTION:
            gc.freeze()


LONG_COLLECTION = 0.02  # seconds


def _most_connections(settings: Settings) -> int:
    """MAX_CONNECTIONS, or as many as leave half of the files that this process may open to collections and models."""
    if sys.platform == "win32":  # where connections are no files
        return settings.max_connections
    import resource

    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(files, min(4 * settings.max_connections, most if most != resource.RLIM_INFINITY else 2**20))
    if wanted > files:
        with suppress(OSError, ValueError):  # refused in a sandbox: what there is has to do
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            files = wanted
    return min(settings.max_connections, files // 2)


class _Server(uvicorn.Server):
    """uvicorn, telling where it listens: port 0 lets the system choose."""

    def __init__(self, config: uvicorn.Config, started: Callable[[str], None]) -> None:
        super().__init__(config)
        self._tell = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn raises the signal again once it has stopped, which would end the process before the backend closes."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self._tell(f"http://{host}:{port}")
