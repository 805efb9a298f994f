"""Errors of servers behind us as ours: each names the server, and none quotes its key."""

from __future__ import annotations

import base64
import json
import re
import sys
from contextlib import AbstractContextManager
from typing import Any
from urllib.parse import quote

from ..backoff import asked_for, passing
from ..errors import BackendError, BackendTimeout, InvalidRequest, LLMBackendError, NotFound, Overloaded

BEGINNING = 8
"""Characters by which a key is known; servers that shorten one keep about as many."""

_IN_URLS = str.maketrans("+/", "-_")  # base64's other alphabet


class ServerErrors:
    """Those of one server. Nothing here asks it anything."""

    def __init__(self, name: str, url: str, secret: str | None, key_setting: str, timeout: float) -> None:
        """`timeout` is in seconds; `key_setting` is where to set another key."""
        self._name = name
        self._url = url
        self._secret = secret
        self._key_setting = key_setting
        self._timeout = timeout

    def translated(self) -> AbstractContextManager[None]:
        """Within this block, whatever a client of the server raises becomes an LLMBackendError that names it."""
        return _Translated(self)

    def translate(self, error: Exception) -> None:
        """Raise it as an LLMBackendError, unless it is one; time-outs of our own are told by whoever set them."""
        import aiohttp

        if isinstance(error, aiohttp.SocketTimeoutError):
            raise self.too_late() from error
        if isinstance(error, aiohttp.ClientError):
            raise self.unreachable() from error
        if isinstance(error, (LLMBackendError, TimeoutError)):
            return
        if isinstance(error, OSError):
            raise self.unreachable() from error
        ours = self._of_openai(error)
        if ours is not None and getattr(error, "body", None) is not None:
            raise ours from None  # theirs has in it what the server said, and that may quote our key
        raise ours or BackendError(
            f"{self._name} at {self._url} gave an answer that does not fit ({type(error).__name__}): "
            "is this the right URL?",
            details={"backend": self._name},
        ) from error

    def refusal(self, status: int, body: bytes, retry_after: str | None = None) -> LLMBackendError:
        """The error for a reply with an error status."""
        about: dict[str, Any] = {"backend": self._name, "status": status}
        if passing(status) and (seconds := asked_for(retry_after)) is not None:
            about["retry_after"] = seconds
        said = self._said(_json(body)) or f"HTTP {status}"
        if status == 400 and b"no_db_connection" in body:
            status = 401  # how LiteLLM's proxy refuses a key where it has no database to look it up in
        elif status == 400 and b"Invalid model name" in body:
            status = 404  # how it says that there is no such model
        match status:
            case 400 | 413 | 422:
                return InvalidRequest(f"{self._name} refused the request: {said}", details=about)
            case 401 | 403:
                return BackendError(
                    f"{self._name} at {self._url} refused our API key: check {self._key_setting}",
                    details=about,
                )
            case 404:
                return NotFound(
                    f"{self._name} at {self._url} has no such model or path: {said}", details=about
                )
            case 408 | 504:
                return BackendTimeout(f"{self._name} at {self._url} did not answer in time", details=about)
            case 429:
                return Overloaded(f"{self._name} is busy: try again later", details=about)
            case _:
                return BackendError(
                    f"{self._name} at {self._url} failed with {status}: {said}", details=about
                )

    def _of_openai(self, error: Exception) -> LLMBackendError | None:
        """The same for what OpenAI's client raises, where that is at work."""
        if "openai" not in sys.modules:
            return None
        import openai

        from .openai_client import TIMEOUTS, UNREACHABLE

        if isinstance(error, openai.APIStatusError):
            reply = error.response
            return self.refusal(error.status_code, reply.content, reply.headers.get("Retry-After"))
        if isinstance(error, TIMEOUTS):
            return self.too_late()
        if isinstance(error, UNREACHABLE):
            # OpenAI's client takes whatever is raised while it reads for a broken connection.
            return error.__cause__ if isinstance(error.__cause__, LLMBackendError) else self.unreachable()
        if isinstance(error, openai.APIError):  # an event of a stream
            return self.gave_up(error.body)
        return None

    def too_large(self, what: str, limit: int) -> BackendError:
        """The error for more than `limit` bytes."""
        return BackendError(
            f"{self._name} at {self._url} sent {what} of more than {limit} bytes: is this the right URL? "
            "MAX_REPLY_BYTES is the limit of a reply",
            details={"backend": self._name, "limit": limit},
        )

    def packed(self) -> BackendError:
        return BackendError(
            f"{self._name} at {self._url} packs its replies, though it was asked not to: switch that off",
            details={"backend": self._name},
        )

    def no_events(self) -> BackendError:
        return BackendError(
            f"{self._name} at {self._url} sent no stream of events: is this the right URL?",
            details={"backend": self._name},
        )

    def gave_up(self, error: Any) -> BackendError:
        said = self._said({"error": error}) or "no reason given"
        return BackendError(f"{self._name} at {self._url} gave up: {said}", details={"backend": self._name})

    def _said(self, reply: Any) -> str:
        """The message in an error reply: OpenAI's, LiteLLM's, Starlette's or TEI's shape."""
        said = reply
        if isinstance(reply, dict):
            error = reply.get("error")
            said = error.get("message") if isinstance(error, dict) else error or reply.get("detail")
        if not isinstance(said, str):
            return ""
        if self._secret:
            said = _without(self._secret, said)  # servers have been seen to quote what they were sent
        return said[:500]

    def unreachable(self) -> BackendError:
        return BackendError(
            f"{self._name} at {self._url} cannot be reached, or broke off: is it running?",
            details={"backend": self._name},
        )

    def too_late(self, seconds: float | None = None) -> BackendTimeout:
        return BackendTimeout(
            f"{self._name} at {self._url} did not answer in {seconds or self._timeout:.3g} s",
            details={"backend": self._name},
        )


class _Translated:
    __slots__ = ("_errors",)

    def __init__(self, errors: ServerErrors) -> None:
        self._errors = errors

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, Exception):
            self._errors.translate(error)


def _without(secret: str, text: str) -> str:
    """The text without a secret, as it is or as in a URL or in base64, and without what begins like it."""
    forms = {quote(secret, safe=""), secret, secret[:BEGINNING], quote(secret[:BEGINNING], safe="")}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + secret.encode()).decode()
        middle = coded[4 if before else 0 : -4]  # what does not depend on its neighbours
        if len(middle) >= BEGINNING:
            forms |= {middle, middle.translate(_IN_URLS)}
    known = sorted(forms, key=len, reverse=True)
    return re.sub(rf"(?:{'|'.join(map(re.escape, known))})[\w*./+%=-]*", "***", text)


def _json(body: bytes) -> Any:
    """What a body says, if it is JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None
