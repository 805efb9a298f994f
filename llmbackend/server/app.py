"""The HTTP application: each row of the table of operations becomes a route."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

from anyio import CancelScope
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Match, Route, Router
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import __version__, operations, schemas
from ..access.caller import NOBODY
from ..backend import Backend
from ..errors import InvalidRequest, LLMBackendError, MethodNotAllowed, NotFound
from ..operations import OPERATIONS, Operation
from ..settings import Settings
from ..tracing import Trace
from . import bodies, uploads
from .access import Access
from .admission import Admission
from .metrics import PATH, Metrics
from .openapi import document
from .refusals import Refusals, client, origin
from .replies import EventStream, error_response, result_response

log = logging.getLogger(__name__)

schemas.build()  # now, so that no call waits for it

VERSION = (b"x-llmbackend-version", __version__.encode())
"""Header by which a client checks its own version."""


def create_app(backend: Backend, refusals: Refusals | None = None, metrics: Metrics | None = None) -> ASGIApp:
    """The application that serves an open Backend."""
    # Paths with fields last, longest first, because `project/collection` also matches where a single name does.
    rows = sorted(OPERATIONS.values(), key=lambda row: ("{" in row.path, -row.path.count("/")))
    metrics = metrics or Metrics(backend)
    routes = [_route(row)(_path(row), _Endpoint(backend, row), methods=[row.method]) for row in rows]
    routes += [
        Route(PATH, metrics.endpoint),
        Route("/health/live", JSONResponse({"status": "ok"}), methods=["GET"]),
        Route("/openapi.json", _openapi),
    ]
    register = backend.register
    admission = Admission(backend.settings, register, backend.limiter)
    app = _Door(routes, Access(register), admission, refusals or Refusals(), metrics)
    return _with_cors(app, backend.settings.origins)


def _with_cors(app: ASGIApp, origins: list[str]) -> ASGIApp:
    """Let pages of other sites call the server. Keys are in headers, so cookies are not allowed."""
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["*"],
        expose_headers=["*"],
    )


def _path(operation: Operation) -> str:
    """The path in Starlette's syntax: names of models and of other projects' collections contain slashes."""
    path = operation.path.replace("{model}", "{model:path}")
    return path.replace("{collection}", "{collection:qualified}").replace("{name}", "{name:qualified}")


_FIXED = {row.path for row in OPERATIONS.values() if "{" not in row.path}
_PARTS = tuple(found for row in OPERATIONS.values() if (found := row.path.partition("{collection}")[2]))
"""What follows a collection in paths, such as `/documents`."""


class _WithFields(Route):
    """A path with fields. It does not match fixed paths: `/v1/jobs/batch_chat` is not a `/v1/jobs/{job_id}`,
    whatever the method.

    Nor does it match the path of another operation: `/v1/collections/hr/documents` lists the documents of
    `hr`. The collection `documents` of the project `hr` is `hr%2Fdocuments`.
    """

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["path"] in _FIXED:
            return Match.NONE, {}
        match, fields = super().matches(scope)
        return (match, fields) if match is Match.NONE or self._is_meant(scope) else (Match.NONE, {})

    def _is_meant(self, scope: Scope) -> bool:
        """Whether the path is meant for this route: encoded slashes are within names; without any, plain ones
        may be."""
        path: str = scope["path"]
        within = path.count("/") - self.path.count("/")
        if ":path}" in self.path:
            return True
        raw: bytes = scope.get("raw_path", b"")
        if encoded := raw.lower().count(b"%2f"):
            return within == encoded
        return not (within and self.path.endswith("{collection:qualified}") and path.endswith(_PARTS))


def _route(operation: Operation) -> type[Route]:
    return Route if operation.path in _FIXED else _WithFields


class _QualifiedName(Convertor[str]):
    """`name` or `project/name`."""

    regex = "[^/]+(?:/[^/]+)?"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("qualified", _QualifiedName())


class _Endpoint:
    """An operation as an ASGI application, because Starlette wraps a plain function in two more."""

    def __init__(self, backend: Backend, operation: Operation) -> None:
        self._backend = backend
        self._operation = operation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        reply = await self._answer(Request(scope, receive, send))
        await reply(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        backend, operation = self._backend, self._operation

        def streams(asked: Any) -> bool:
            if not operation.streams or asked.stream:
                return operation.streams
            return operation.method != "POST" and operation.media in request.headers.get("accept", "")

        body, fields = await _body(operation, request, backend.settings)
        # Timing starts here: until now, the caller was sending.
        scope = request.scope
        trace = scope["trace"] = Trace(
            operation.name, scope["request_id"], scope["caller"], client(scope), scope["path"]
        )
        if (reserved := scope.get("reserved")) is not None:
            trace.reserve = reserved.grow
        if backend.settings.otel:
            trace.parent = request.headers.get("traceparent", "")
        with CancelScope() as work:
            # If the caller hangs up, the connection calls `gone` and the work is cancelled.
            scope.setdefault("state", {})["gone"] = partial(trace.leave, work.cancel)
            result = await operations.answer(backend, trace, body, fields, streams)
            if isinstance(result, bytes):
                if reserved is not None and len(result) > bodies.STEP:
                    reserved.grow(len(result))  # the caller may read it slowly
                return await result_response(request, operation, result)
            return EventStream(result, operation.media, backend.settings.heartbeat_seconds, trace)
        raise ClientDisconnect


async def _body(
    operation: Operation, request: Request, settings: Settings
) -> tuple[operations.Body, Mapping[str, str]]:
    """A request's body and the fields in its path; without a body, the fields in path and query.

    Raises InvalidRequest for a body that is neither JSON nor a form where one is taken.
    """
    if operation.method != "POST":
        fields = {**request.query_params, **request.path_params}
        # Sent by event-stream clients when they reconnect.
        if "last_event_id" in operation.request.model_fields and "last-event-id" in request.headers:
            fields["last_event_id"] = request.headers["last-event-id"]
        return fields, {}
    headers = dict(request.scope["headers"])  # Starlette's search all of them for each name
    encoding = headers.get(b"content-encoding", b"identity").decode("latin-1").lower()
    if encoding != "identity":
        raise InvalidRequest(f"{operation.name}: a body in {encoding!r} is not read: send it as it is")
    kind = headers.get(b"content-type", b"").decode("latin-1").partition(";")[0].strip().lower()
    content = bodies.Body(request, settings.max_body_bytes, request.scope["reserved"])
    if kind == uploads.FORM and uploads.takes(operation):
        return await uploads.as_fields(operation, request, content, settings), request.path_params
    if kind and kind != "application/json":
        raise InvalidRequest(f"{operation.name}: the body must be application/json, not {kind}")
    body = bytearray()
    async for part in content:
        body += part
    return body, request.path_params


async def _openapi(request: Request) -> Response:
    return JSONResponse(document())


class _Door:
    """The entry of every request: gives it an id, identifies its caller, admits or refuses it, and turns
    errors into replies.

    The id goes into the header X-Request-Id, errors and the log. Requests that the connection has refused are answered
    here. The header X-LLMBackend-Overhead-Ms is the time until the reply began, less the time spent in models.
    """

    def __init__(
        self, routes: list[Route], access: Access, admission: Admission, refusals: Refusals, metrics: Metrics
    ) -> None:
        self._routes = routes
        self._router = Router(routes)
        # Paths without fields need one look-up; the router tries one regular expression after the other.
        self._direct = {
            (method, route.path): route.app
            for route in routes
            if "{" not in route.path
            for method in route.methods or ()
        }
        self._access = access
        self._admission = admission
        self._refusals = refusals
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._router(scope, receive, send)
            return
        request_id = scope["request_id"] = os.urandom(16).hex()
        scope["caller"], scope["app"] = NOBODY, self
        begun = False

        async def reply(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                if 400 <= message["status"] < 500:
                    self._refusals.note(scope, message["status"])
                    self._metrics.refused(message["status"])
                headers = [*message["headers"], (b"x-request-id", request_id.encode()), VERSION]
                if (limited := scope.get("limited")) is not None:
                    headers += limited.headers()
                if (trace := scope.get("trace")) is not None:
                    headers.append((b"x-llmbackend-overhead-ms", b"%.2f" % (trace.overhead * 1000)))
                message["headers"] = headers
            await send(message)

        try:
            if (refusal := scope.get("state", _NOTHING).get("refusal")) is not None:
                status, error = refusal
                answer = error_response(error, request_id)
                answer.status_code = status
                await answer(scope, receive, reply)
                return
            await self._access.identify(scope)
            await self._admission.enter(scope)
            route = self._direct.get((scope["method"], scope["path"]), self._router)
            await route(scope, receive, reply)
        except Exception as error:
            if begun:
                raise
            await self._error(scope, error)(scope, receive, reply)
            if not isinstance(error, (LLMBackendError, HTTPException, ClientDisconnect)):
                raise
        finally:
            self._admission.leave(scope)

    def _error(self, scope: Scope, error: Exception) -> Response:
        if isinstance(error, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it
        if isinstance(error, HTTPException):
            return self._no_route(scope, error)
        if not isinstance(error, LLMBackendError):
            log.error("%s failed unexpectedly", origin(scope), exc_info=error)
            error = LLMBackendError("the server failed unexpectedly")
        elif error.status >= 500:
            # The message may quote a model's text, which does not belong in logs.
            log.warning("%s: %s", origin(scope), error.code if "text" in error.details else error.message)
        return error_response(error, scope["request_id"])

    def _no_route(self, scope: Scope, error: HTTPException) -> Response:
        method, path = scope["method"], scope["path"][:200]
        if error.status_code != 405:
            unknown = NotFound(f"there is no {method} {path}: see /openapi.json")
            return error_response(unknown, scope["request_id"])
        # Starlette only knows the methods of the first route that matches.
        methods: set[str] = set()
        for route in self._routes:
            if route.matches(scope)[0] is not Match.NONE:
                methods |= route.methods or set()
        allowed = ", ".join(sorted(methods))
        refused = MethodNotAllowed(f"{path} takes {allowed}, not {method}: see /openapi.json")
        reply = error_response(refused, scope["request_id"])
        reply.headers["Allow"] = allowed
        return reply


_NOTHING: Mapping[str, Any] = MappingProxyType({})
