"""Admission: limits on requests in flight and their bodies, in all and per project."""

from __future__ import annotations

from starlette.types import Scope

from ..access.limits import Limiter
from ..access.register import Register
from ..errors import Overloaded
from ..operations import OPERATIONS
from ..settings import Settings
from .access import PUBLIC
from .reservations import Reservation, Shares

_SPENDING = {row.path for row in OPERATIONS.values() if row.asks or row.path.startswith("/v1/rag/")}


def _spends(path: str) -> bool:
    """Whether a request may use tokens; a caller with none left can still manage jobs and collections."""
    return path in _SPENDING or path.endswith("/reindex")


class Admission:
    """Refuses requests beyond the limits; public paths, such as health, are always admitted.

    With several projects, one project gets at most half of each limit.
    """

    def __init__(self, settings: Settings, register: Register, limiter: Limiter) -> None:
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

    async def enter(self, scope: Scope) -> None:
        """Admit a request; call `leave` when it has ended, even if this raises Overloaded."""
        if scope["path"] in PUBLIC:
            return
        caller = scope["caller"]
        limited = scope["limited"] = self._limiter.admission(caller, spends=_spends(scope["path"]))
        try:
            self._requests.take(caller.project, 1)
            scope["reserved"] = Reservation(self._bodies, caller.project)
            if limited is not None:
                await limited.enter()
        except Overloaded as error:
            if limited is not None:
                self._limiter.reached(error, caller)
            raise

    def leave(self, scope: Scope) -> None:
        """Release what the request held; by now, a stream has ended too."""
        if (body := scope.get("reserved")) is None:
            return
        body.release()
        self._requests.give_back(scope["caller"].project, 1)
        if (limited := scope["limited"]) is not None:
            trace = scope.get("trace")
            limited.leave(sum(trace.tokens.values()) if trace is not None else None)
