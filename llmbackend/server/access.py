"""Who may call: a bearer key on every path but the public ones. Pure ASGI, so that disconnects stay visible."""

from __future__ import annotations

import hashlib
import hmac

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import Unauthorized
from ..operations import OPERATIONS
from .replies import error_response

PUBLIC = {"/health/live", "/openapi.json"} | {
    operation.path for operation in OPERATIONS.values() if operation.scope == "public"
}


class Access:
    """Refuses requests without the key, if there is one. Only a hash of the key is kept."""

    def __init__(self, app: ASGIApp, key: str | None) -> None:
        self._app = app
        self._digest = _digest(key.encode()) if key else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path as the router will see it; a URL rebuilt from the Host header could tell another.
        if scope["type"] == "http" and not self._allowed(scope):
            refused = error_response(
                Unauthorized("no valid API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key'"),
                scope.get("request_id"),
            )
            refused.headers["WWW-Authenticate"] = "Bearer"
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _allowed(self, scope: Scope) -> bool:
        if self._digest is None or scope["path"] in PUBLIC:
            return True
        headers = Headers(scope=scope)
        scheme, _, bearer = headers.get("authorization", "").partition(" ")
        given = bearer.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        return hmac.compare_digest(_digest(given.encode()), self._digest)


def _digest(key: bytes) -> bytes:
    # A key is random and long, so one round of SHA-256 hides it well enough, and fast.
    return hashlib.sha256(key).digest()
