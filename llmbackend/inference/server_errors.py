"""Errors of model servers, turned into ours: each names the server, and none contains its key."""

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
"""How many characters of a key are enough to recognize it; servers that shorten keys show about as many."""

_IN_URLS = str.maketrans("+/", "-_")  # base64's other alphabet


class ServerErrors:
    """Makes the errors of one server. It never contacts the server."""

    def __init__(self, name: str, url: str, secret: str | None, key_setting: str, timeout: float) -> None:
        """`timeout` is in seconds; `key_setting` names the setting that has the server's key."""
        self._name = name
        self._url = url
        self._secret = secret
        self._key_setting = key_setting
        self._timeout = timeout

    def translated(self) -> AbstractContextManager[None]:
        """Within this block, errors of a client become LLMBackendErrors that name the server."""
        return _Translated(self)

    def translate(self, error: Exception) -> None:
        """Raise the error as an LLMBackendError, unless it is one. Whoever set our own time-outs
        (TimeoutError) translates these."""
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
            raise ours from None  # theirs contains what the server said, which may quote our key
        raise ours or BackendError(
            f"{self._name} at {self._url} gave an unexpected answer ({type(error).__name__}): "
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
            status = 401  # LiteLLM refuses a key like this if it has no database to look it up in
        elif status == 400 and b"Invalid model name" in body:
            status = 404  # and this is how it refuses an unknown model
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
        """The same for exceptions of OpenAI's client, if that is imported."""
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
            # OpenAI's client takes any exception while it reads for a broken connection.
            return error.__cause__ if isinstance(error.__cause__, LLMBackendError) else self.unreachable()
        if isinstance(error, openai.APIError):  # an error event in a stream
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
            f"{self._name} at {self._url} compresses its replies, though it was asked not to: switch that off",
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
        """The message in an error reply, in the form of OpenAI, LiteLLM, Starlette or TEI."""
        said = reply
        if isinstance(reply, dict):
            error = reply.get("error")
            said = error.get("message") if isinstance(error, dict) else error or reply.get("detail")
        if not isinstance(said, str):
            return ""
        if self._secret:
            said = _without(self._secret, said)  # some servers quote the key that they were sent
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
    """The text without a secret, also without its beginning, and without its forms in URLs and base64."""
    forms = {quote(secret, safe=""), secret, secret[:BEGINNING], quote(secret[:BEGINNING], safe="")}
    for before in range(3):
        coded = base64.b64encode(bytes(before) + secret.encode()).decode()
        middle = coded[4 if before else 0 : -4]  # the part that does not depend on what surrounds it
        if len(middle) >= BEGINNING:
            forms |= {middle, middle.translate(_IN_URLS)}
    known = sorted(forms, key=len, reverse=True)
    return re.sub(rf"(?:{'|'.join(map(re.escape, known))})[\w*./+%=-]*", "***", text)


def _json(body: bytes) -> Any:
    """A body's JSON, or None if it is not JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None
