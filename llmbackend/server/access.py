"""Who may call: a bearer key on every path but the public ones. Pure ASGI, so that disconnects stay visible."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

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
    """Finds out who calls, and refuses requests without a key, if there is any. Only hashes of the keys are kept."""

    def __init__(self, app: ASGIApp, register: Register) -> None:
        self._app = app
        self._register = register

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # The path as the router will see it; a URL rebuilt from the Host header could tell another.
        if scope["type"] == "http" and (error := await self._refusal(scope)) is not None:
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
            await self._register.fresh()  # the first key may be made elsewhere
        if not self._register.guarded:
            headers = Headers(scope=scope)
            scope["caller"] = LOCAL
            # A web page can point a name of its own at this machine; its requests then carry that name.
            if _hostname(headers.get("host", "")) not in LOOPBACK:
                return Forbidden("without an API_KEY set, only requests to localhost are answered")
            if _is_of_another_site(headers):
                return Forbidden("without an API_KEY set, requests of other sites' pages are refused")
            return None
        given = _keys(scope)
        if len(given) > 1:
            return Unauthorized("there are several API keys in the request's headers: send one")
        for key in given:
            if (caller := await self._register.caller_with(key)) is not None:
                scope["caller"] = caller
                return None
        return Unauthorized("no valid API key: send it as 'Authorization: Bearer KEY' or as 'X-API-Key'")


def _keys(scope: Scope) -> set[str]:
    """All that are given: which of two would count is not for the order of headers to say."""
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
    """Whether a page elsewhere made the browser send this. It does so unasked, unless the body says that it is JSON."""
    origin = headers.get("origin")
    if origin is None or headers.get("content-type", "").startswith("application/json"):
        return False
    return origin.partition("://")[2] != headers.get("host")
