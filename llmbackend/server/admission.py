"""Which of the requests with a key are let in now: so many at once, for all callers and for each. Pure ASGI."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from ..access.register import Register
from ..errors import Overloaded
from ..settings import Settings
from .access import PUBLIC
from .replies import error_response
from .shares import Reservation, Shares


class Admission:
    """Refuses what would be too much at once; public paths, health among them, are always let in.

    One project has half of everything at most, where there are several.
    """

    def __init__(self, app: ASGIApp, settings: Settings, register: Register) -> None:
        self._app = app
        requests = settings.max_requests
        self._requests = Shares(
            requests, lambda: -(-requests // 2) if register.several else requests, "requests", "MAX_REQUESTS"
        )
        # The largest request must have room, alone.
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
        owner = scope["caller"].project
        under_way = Reservation(self._requests, owner)
        body = scope["reserved"] = Reservation(self._bodies, owner)
        try:
            under_way.grow(1)
        except Overloaded as error:
            await error_response(error, scope["request_id"])(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        finally:  # a stream has ended by now, too
            under_way.release()
            body.release()
