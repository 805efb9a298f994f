"""Authentication: every path but the public ones needs an API key."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import Scope

from .. import turns
from ..access.caller import LOCAL, NOBODY
from ..access.register import Register
from ..errors import Forbidden, Unauthorized
from ..operations import OPERATIONS

PUBLIC = {"/health/live", "/openapi.json"} | {
    operation.path for operation in OPERATIONS.values() if operation.scope == "public"
}

_HOW = (
    "give one as api_key=… or in LLM_BACKEND_API_KEY; "
    "other clients send it as 'Authorization: Bearer KEY' or as 'X-API-Key: KEY'"
)

LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Access:
    """Identifies the caller; once any key exists, refuses requests without a valid one."""

    def __init__(self, register: Register) -> None:
        self._register = register

    async def identify(self, scope: Scope) -> None:
        """Set the scope's `caller`.

        Raises Unauthorized without a valid key; while there are no keys, Forbidden for a request from another site's page.
        """
        scope["caller"] = NOBODY
        # Use the path that the router will see; a URL rebuilt from the Host header could differ.
        if scope["path"] in PUBLIC:
            return
        try:
            await self._identify(scope)
        finally:  # a refusal takes its project's turn, too
            await turns.turn(scope["caller"].project)

    async def _identify(self, scope: Scope) -> None:
        if not self._register.guarded:
            await self._register.fresh()  # another process may have made the first key
            if not self._register.guarded:
                scope["caller"] = LOCAL
                _check_origin(Headers(scope=scope))
                return
        given = _keys(scope)
        if len(given) > 1:
            raise Unauthorized("the request's headers have more than one API key: send one")
        for key in given:
            if (caller := await self._register.caller_with(key)) is not None:
                scope["caller"] = caller
                return
        what = "the API key that was sent is not known here" if given else "no API key was sent"
        raise Unauthorized(f"{what}: {_HOW}")


def _check_origin(headers: Headers) -> None:
    # DNS rebinding: a web page can point its own name at this machine; the Host header shows it.
    if _hostname(headers.get("host", "")) not in LOOPBACK:
        raise Forbidden("without an API_KEY set, only requests to localhost are answered")
    if _is_of_another_site(headers):
        raise Forbidden("without an API_KEY set, requests from other sites' pages are refused")


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
