"""A model server behind us: one HTTP client, one retry loop, and the one place where its errors become ours.

Bytes pass through as they come. What is worth trying again (no connection, 429, 5xx) is tried again within the
deadline, waiting twice as long each time (with jitter), or as long as the server asks by Retry-After. A stream may
be tried again until its first bytes are there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import re
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import SecretStr

from .. import threads, tracing
from ..errors import BackendError, BackendTimeout, InvalidRequest, LLMBackendError, NotFound, Overloaded
from ..retrying import Patience, passing
from ..sse import Events

if TYPE_CHECKING:
    import aiohttp

    from .openai_client import OpenAIClient

RETRIES = 2
CONNECTING = 10.0  # seconds at most
REPLY_BYTES = 2**25
"""The largest reply, unless MAX_REPLY_BYTES says otherwise: hundreds of vectors, or several books."""

EVENT_BYTES = 2**22
"""The longest event of a stream: a chunk of a reply has a thousandth of that."""

REFUSAL_BYTES = 2**16  # read of a reply with an error status

BEGINNING = 8
"""Characters by which a key is known; servers that shorten one keep about as many."""

_IN_URLS = str.maketrans("+/", "-_")  # base64's other alphabet

_Result = TypeVar("_Result")


class Upstream:
    """A server by its base URL.

    `timeout` (seconds) bounds each call with all its tries, and each pause of a stream. A call may be given less time
    by a deadline (of `time.monotonic`), and fewer tries. `key_setting` is where to set another key.
    """

    def __init__(
        self,
        name: str,
        url: str,
        key: SecretStr | None,
        timeout: float,
        key_setting: str = "its setting",
        reply_bytes: int = REPLY_BYTES,
    ) -> None:
        self.name = name
        self.url = url
        self.key = key
        self.timeout = timeout
        self.key_setting = key_setting
        self.reply_bytes = reply_bytes
        self._session: aiohttp.ClientSession | None = None
        self._openai: OpenAIClient | None = None
        self._opening = threading.Lock()

    @property
    def secret(self) -> str | None:
        return self.key.get_secret_value() if self.key else None

    def root(self, timeout: float) -> Upstream:
        """The same server without the /v1 of OpenAI's wire, for what it has beside that. Close it as well."""
        url = self.url.removesuffix("/v1")
        return Upstream(self.name, url, self.key, timeout, self.key_setting, self.reply_bytes)

    async def get(self, path: str, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """The JSON at a path."""
        return await self.persist(lambda: self._parsed("GET", path, None), deadline, retries)

    async def post(self, path: str, body: Any, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """The JSON that comes back for a JSON body."""
        sent = json.dumps(body).encode()
        return await self.persist(lambda: self._parsed("POST", path, sent), deadline, retries)

    async def forward(
        self, path: str, body: Any, deadline: float | None = None, retries: int = RETRIES
    ) -> bytes:
        """The bytes that come back for a JSON body, unread."""
        sent = json.dumps(body).encode()
        return await self.persist(lambda: self._read("POST", path, sent), deadline, retries)

    async def stream(
        self, path: str, body: Any, deadline: float | None = None, retries: int = RETRIES
    ) -> AsyncGenerator[bytes, None]:
        """Once the first event is there: all of them, in one form (sse.Events), each whole, as they arrive.

        Nothing is tried again after that. Close what this returns, read to the end or not.
        """
        sent = json.dumps(body).encode()
        reply, events, first = await self.persist(lambda: self._begin(path, sent), deadline, retries)
        return self._pieces(reply, events, first)

    async def _begin(self, path: str, body: bytes) -> tuple[aiohttp.ClientResponse, Events, bytes]:
        reply = await self._open("POST", path, body)
        events = Events()
        try:
            first = await self._next(reply, events)
            if not first:
                raise self.no_events()
            if (error := _error_event(first)) is not None:
                raise self.gave_up(error)
        except BaseException:
            reply.close()
            raise
        return reply, events, first

    async def _next(self, reply: aiohttp.ClientResponse, events: Events) -> bytes:
        """The next events; none at the end."""
        while piece := await reply.content.readany():
            if whole := events.feed(piece):
                return whole
            if events.held > EVENT_BYTES:
                raise self.too_large("an event", EVENT_BYTES)
        return events.last()

    async def _pieces(
        self, reply: aiohttp.ClientResponse, events: Events, piece: bytes
    ) -> AsyncGenerator[bytes, None]:
        trace = tracing.current()
        secret = (self.secret or "").encode()
        try:
            with self.translated():
                while piece:
                    # An error in the stream may quote the key.
                    yield piece.replace(secret, b"***") if secret and secret in piece else piece
                    with trace.waiting():
                        piece = await self._next(reply, events)
        finally:
            reply.close()  # and with it the connection, so that the server stops its work

    async def openai(self) -> OpenAIClient:
        """OpenAI's client of this server, for calls within `persist`: it tries nothing again."""
        if self._openai is None:
            return await threads.files(self._open_openai)
        return self._openai

    def _open_openai(self) -> OpenAIClient:
        from .openai_client import OpenAIClient

        with self._opening:
            if self._openai is None:
                self._openai = OpenAIClient(self)
        return self._openai

    async def persist(
        self,
        attempt: Callable[[], Awaitable[_Result]],
        deadline: float | None = None,
        retries: int = RETRIES,
    ) -> _Result:
        """The retry loop: what an attempt returns, or the last error once tries or time have run out."""
        trace = tracing.current()
        began = time.monotonic()
        deadline = min(began + self.timeout, deadline or math.inf)
        patience = Patience(deadline, retries)
        while True:
            try:
                async with asyncio.timeout(deadline - time.monotonic()):
                    with self.translated(), trace.waiting():
                        return await attempt()
            except TimeoutError as error:
                raise self._too_late(max(0.0, deadline - began)) from error
            except LLMBackendError as error:
                pause = (
                    patience.pause(error.details.get("retry_after")) if _worth_another_try(error) else None
                )
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
        if self._openai is not None:
            await self._openai.close()

    async def _parsed(self, method: str, path: str, body: bytes | None) -> Any:
        return json.loads(await self._read(method, path, body))

    async def _read(self, method: str, path: str, body: bytes | None) -> bytes:
        reply = await self._open(method, path, body)
        read = bytearray()
        try:
            if (reply.content_length or 0) > self.reply_bytes:
                raise self.too_large("a reply", self.reply_bytes)
            async for piece in reply.content.iter_any():
                read += piece
                if len(read) > self.reply_bytes:
                    raise self.too_large("a reply", self.reply_bytes)
        except BaseException:
            reply.close()  # there may be no end to what is yet to come
            raise
        reply.release()
        return bytes(read)

    async def _open(self, method: str, path: str, body: bytes | None) -> aiohttp.ClientResponse:
        """The reply, its body yet to be read; raises a refusal."""
        import aiohttp

        if self._session is None:
            # Nothing packed: what is counted is what comes.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self.secret:
                headers["Authorization"] = f"Bearer {self.secret}"
            # Idle connections are dropped before the usual server would (uvicorn: 5 s), not used as it does.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=4)
            self._session = aiohttp.ClientSession(headers=headers, connector=connector)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING, sock_read=self.timeout)
        reply = await self._session.request(
            method, self.url + path, data=body, timeout=timeout, allow_redirects=False
        )
        if reply.status == 200:
            return reply
        try:
            said = bytearray()
            while len(said) < REFUSAL_BYTES and (piece := await reply.content.readany()):
                said += piece
            raise self.refusal(reply.status, bytes(said), reply.headers.get("Retry-After"))
        finally:
            # What is left unread closes the connection.
            reply.release() if reply.content.at_eof() else reply.close()

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Within this block, whatever a client of the server raises becomes an LLMBackendError that names it."""
        import aiohttp

        about = {"backend": self.name}
        try:
            yield
        except aiohttp.SocketTimeoutError as error:
            raise self._too_late() from error
        except aiohttp.ClientError as error:
            raise self._unreachable() from error
        except (LLMBackendError, TimeoutError):
            raise
        except OSError as error:
            raise self._unreachable() from error
        except Exception as error:
            ours = self._of_openai(error)
            if ours is not None and getattr(error, "body", None) is not None:
                raise ours from None  # theirs has in it what the server said, and that may quote our key
            raise ours or BackendError(
                f"{self.name} at {self.url} gave an answer that does not fit ({type(error).__name__}): "
                "is this the right URL?",
                details=about,
            ) from error

    def refusal(self, status: int, body: bytes, retry_after: str | None = None) -> LLMBackendError:
        """The error for a reply with an error status."""
        about: dict[str, Any] = {"backend": self.name, "status": status}
        if passing(status) and (seconds := _seconds(retry_after)) is not None:
            about["retry_after"] = seconds
        said = self._said(_json(body)) or f"HTTP {status}"
        if status == 400 and b"no_db_connection" in body:
            status = 401  # how LiteLLM's proxy refuses a key where it has no database to look it up in
        elif status == 400 and b"Invalid model name" in body:
            status = 404  # how it says that there is no such model
        match status:
            case 400 | 413 | 422:
                return InvalidRequest(f"{self.name} refused the request: {said}", details=about)
            case 401 | 403:
                return BackendError(
                    f"{self.name} at {self.url} refused our API key: check {self.key_setting}",
                    details=about,
                )
            case 404:
                return NotFound(f"{self.name} at {self.url} has no such model or path: {said}", details=about)
            case 408 | 504:
                return BackendTimeout(f"{self.name} at {self.url} did not answer in time", details=about)
            case 429:
                return Overloaded(f"{self.name} is busy: try again later", details=about)
            case _:
                return BackendError(f"{self.name} at {self.url} failed with {status}: {said}", details=about)

    def _of_openai(self, error: Exception) -> LLMBackendError | None:
        """The same for what OpenAI's client raises, where that is at work."""
        if self._openai is None:
            return None
        import openai

        from .openai_client import TIMEOUTS, UNREACHABLE

        if isinstance(error, openai.APIStatusError):
            reply = error.response
            return self.refusal(error.status_code, reply.content, reply.headers.get("Retry-After"))
        if isinstance(error, TIMEOUTS):
            return self._too_late()
        if isinstance(error, UNREACHABLE):
            # OpenAI's client takes whatever is raised while it reads for a broken connection.
            return error.__cause__ if isinstance(error.__cause__, LLMBackendError) else self._unreachable()
        if isinstance(error, openai.APIError):  # an event of a stream
            return self.gave_up(error.body)
        return None

    def too_large(self, what: str, limit: int) -> BackendError:
        """The error for more than `limit` bytes."""
        return BackendError(
            f"{self.name} at {self.url} sent {what} of more than {limit} bytes: is this the right URL? "
            "MAX_REPLY_BYTES is the limit of a reply",
            details={"backend": self.name, "limit": limit},
        )

    def packed(self) -> BackendError:
        return BackendError(
            f"{self.name} at {self.url} packs its replies, though it was asked not to: switch that off",
            details={"backend": self.name},
        )

    def no_events(self) -> BackendError:
        return BackendError(
            f"{self.name} at {self.url} sent no stream of events: is this the right URL?",
            details={"backend": self.name},
        )

    def gave_up(self, error: Any) -> BackendError:
        said = self._said({"error": error}) or "no reason given"
        return BackendError(f"{self.name} at {self.url} gave up: {said}", details={"backend": self.name})

    def _said(self, reply: Any) -> str:
        """The message in an error reply: OpenAI's, LiteLLM's, Starlette's or TEI's shape."""
        said = reply
        if isinstance(reply, dict):
            error = reply.get("error")
            said = error.get("message") if isinstance(error, dict) else error or reply.get("detail")
        if not isinstance(said, str):
            return ""
        if self.secret:
            said = _without(self.secret, said)  # servers have been seen to quote what they were sent
        return said[:500]

    def _unreachable(self) -> BackendError:
        return BackendError(
            f"{self.name} at {self.url} cannot be reached, or broke off: is it running?",
            details={"backend": self.name},
        )

    def _too_late(self, seconds: float | None = None) -> BackendTimeout:
        return BackendTimeout(
            f"{self.name} at {self.url} did not answer in {seconds or self.timeout:.3g} s",
            details={"backend": self.name},
        )


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


def _worth_another_try(error: LLMBackendError) -> bool:
    import aiohttp

    status = error.details.get("status")
    if status is not None:
        return passing(status)
    if isinstance(error, BackendTimeout):
        return False  # the time is used up
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientConnectionError) or type(cause).__name__ == "APIConnectionError"


def _seconds(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _json(body: bytes) -> Any:
    """What a body says, if it is JSON."""
    try:
        return json.loads(body)
    except ValueError:
        return None


def _error_event(piece: bytes) -> Any:
    """The error in a stream's first event, if it is one; raises ValueError or AttributeError for what is no event."""
    data = piece.lstrip().partition(b"\n")[0].removeprefix(b"data:").strip()
    return None if data == b"[DONE]" else json.loads(data).get("error")
