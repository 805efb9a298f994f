"""Admission: limits on requests in flight and their bodies, in all and per project. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ..access.limits import Limiter
from ..access.register import Register
from ..errors import Overloaded
from ..operations import OPERATIONS
from ..settings import Settings
from .access import PUBLIC
from .replies import error_response
from .shares import Reservation, Shares

_SPENDING = {row.path for row in OPERATIONS.values() if row.asks or row.path.startswith("/v1/rag/")}


def _spends(path: str) -> bool:
    """Whether a request may use tokens; a caller with none left can still manage jobs and collections."""
    return path in _SPENDING or path.endswith("/reindex")


class Admission:
    """Refuses requests beyond the limits; public paths, such as health, are always admitted.

    With several projects, one project gets at most half of each limit.
    """

    def __init__(self, app: ASGIApp, settings: Settings, register: Register, limiter: Limiter) -> None:
        self._app = app
        self._limiter = limiter
        requests = settings.max_requests
        self._requests = Shares(
            requests, lambda: -(-requests // 2) if register.several else requests, "requests", "MAX_REQUESTS"
        )
        # The largest request must fit, if alone.
        size = max(settings.max_bodies_bytes, settings.max_body_bytes)
        half = max(size // 2, settings.max_body_bytes)
        self._bodies = Shares(
            size, lambda: half if register.several else size, "bytes of requests", "MAX_BODIES_BYTES"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] in PUBLIC:
            await self._app(scope, receive, send)
            return
        caller = scope["caller"]
        owner = caller.project
        limited = scope["limited"] = self._limiter.admission(caller, spends=_spends(scope["path"]))
        under_way = Reservation(self._requests, owner)
        body = scope["reserved"] = Reservation(self._bodies, owner)
        try:
            under_way.grow(1)
            if limited is not None:
                await limited.enter()
        except Overloaded as error:
            under_way.release()
            if limited is not None:
                limited.leave(None)
                self._limiter.reached(error, caller)
            await error_response(error, scope["request_id"])(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:  # by now, a stream has ended too
            under_way.release()
            body.release()
            if limited is not None:
                trace = scope.get("trace")
                limited.leave(sum(trace.tokens.values()) if trace is not None else None)
