"""Authentication: every path but the public ones needs an API key. Pure ASGI, so that disconnects stay visible."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .. import turns
from ..access.caller import LOCAL
from ..access.register import Register
from ..errors import Forbidden, LLMBackendError, Unauthorized
from ..operations import OPERATIONS
from .replies import error_response

PUBLIC = {"/health/live", "/openapi.json"} | {
    operation.path for operation in OPERATIONS.values() if operation.scope == "public"
}

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Access:
    """Identifies the caller; once any key exists, refuses requests without a valid one."""

    def __init__(self, app: ASGIApp, register: Register) -> None:
        self._app = app
        self._register = register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Use the path that the router will see; a URL rebuilt from the Host header could differ.
        error = await self._refusal(scope) if scope["type"] == "http" else None
        if scope["path"] not in PUBLIC:
            await turns.turn(scope["caller"].project)
        if error is not None:
            refused = error_response(error, scope.get("request_id"))
            if error.status == 401:
                refused.headers["WWW-Authenticate"] = "Bearer"
            await refused(scope, receive, send)
            return
        await self._app(scope, receive, send)

    async def _refusal(self, scope: Scope) -> LLMBackendError | None:
        if scope["path"] in PUBLIC:
            return None
        if not self._register.guarded:
            await self._register.fresh()  # another process may have made the first key
        if not self._register.guarded:
            headers = Headers(scope=scope)
            scope["caller"] = LOCAL
            # DNS rebinding: a web page can point its own name at this machine; the Host header shows it.
            if _hostname(headers.get("host", "")) not in LOOPBACK:
                return Forbidden("without an API_KEY set, only requests to localhost are answered")
            if _is_of_another_site(headers):
                return Forbidden("without an API_KEY set, requests from other sites' pages are refused")
            return None
        given = _keys(scope)
        if len(given) > 1:
            return Unauthorized("the request's headers have more than one API key: send one")
        for key in given:
            if (caller := await self._register.caller_with(key)) is not None:
                scope["caller"] = caller
                return None
        return Unauthorized("no valid API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key'")


def _keys(scope: Scope) -> set[str]:
    """All keys in the headers, so that the order of headers does not decide between two."""
    found = set()
    for name, value in scope["headers"]:
        if name == b"x-api-key":
            found.add(value.decode("latin-1"))
        elif name == b"authorization":
            scheme, _, bearer = value.decode("latin-1").partition(" ")
            if scheme.lower() == "bearer":
                found.add(bearer.strip())
    return found - {""}


def _hostname(host: str) -> str | None:
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def _is_of_another_site(headers: Headers) -> bool:
    """Whether another site's page made the browser send this: browsers send non-JSON bodies without a preflight."""
    origin = headers.get("origin")
    if origin is None or headers.get("content-type", "").startswith("application/json"):
        return False
    return origin.partition("://")[2] != headers.get("host")
