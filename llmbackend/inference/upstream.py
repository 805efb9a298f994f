"""A model server: one HTTP client and one retry loop.

Bytes pass through as they come. Failures that may pass (no connection, 429, 5xx) are retried within the
deadline; pauses double each time (with jitter), or are as long as the server asks with Retry-After. A stream
is retried only until its first bytes have come.
"""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import SecretStr

from .. import json_reading, json_writing, threads, tracing
from ..backoff import Patience, passing
from ..errors import BackendTimeout, LLMBackendError
from ..sse import Events
from . import budget
from .budget import Budget, Turn
from .server_errors import ServerErrors

if TYPE_CHECKING:
    import aiohttp

    from .openai_client import OpenAIClient

RETRIES = 2
CONNECTING = 10.0  # seconds at most
KEPT = 4.0
"""Seconds that idle connections are kept: less than servers usually keep them (uvicorn: 5 s)."""

REPLY_BYTES = 2**25
"""The largest reply in bytes, if MAX_REPLY_BYTES is not set: hundreds of vectors, or several books."""
AT_ONCE = 4
"""Requests under way for one call, if REQUESTS_AT_ONCE is not set. With more, questions would wait behind them."""

EVENT_BYTES = 2**22
"""The longest event of a stream in bytes: a thousand times a usual chunk."""

REFUSAL_BYTES = 2**16  # the most bytes read of a reply with an error status

_Result = TypeVar("_Result")


def _nothing() -> None:
    pass


class TooMany(Exception):
    """A request has more texts than may be under way to a busy server: it has to be sent in parts."""


class Upstream:
    """A server at a base URL.

    `timeout` (seconds) limits each call with all its tries, and each pause in a stream. A call may be given
    less time by a deadline (`time.monotonic`), and fewer retries. `key_setting` names the setting that has
    the server's key. Whoever made it closes it.
    """

    def __init__(
        self,
        name: str,
        url: str,
        key: SecretStr | None,
        timeout: float,
        key_setting: str = "its setting",
        reply_bytes: int = REPLY_BYTES,
        concurrency: float = math.inf,
        at_once: int = AT_ONCE,
    ) -> None:
        """`concurrency` is the number of chats under way at a time; more wait here for their project's turn."""
        self.name = name
        self.url = url
        self.key = key
        self.timeout = timeout
        self.key_setting = key_setting
        self.errors = ServerErrors(name, url, self.secret, key_setting, timeout)
        self.reply_bytes = reply_bytes
        self.at_once = at_once
        """The most requests under way for one call that embeds or reranks many texts."""
        self._session: aiohttp.ClientSession | None = None
        self._pausing: aiohttp.ClientTimeout
        """The timeout of streams. Other calls have a deadline, and need no timer for each piece that they read."""
        self.budget = budget.of_server(url, "chat", concurrency)
        self._openai: OpenAIClient | None = None
        self._opening = threading.Lock()
        self.watched = False
        """Whether to count `reconnected`, which takes a few microseconds a call."""
        self.reconnected = 0
        """How often a lost connection was replaced: another server may be at the other end now."""
        self._connections = 0  # that were made and are not known to be lost
        self._under_way = 0
        self._last_used = -math.inf

    @property
    def idle(self) -> bool:
        """Whether the server has not been called for so long that the next call needs a new connection."""
        return not self._under_way and time.monotonic() - self._last_used >= KEPT

    @property
    def secret(self) -> str | None:
        return self.key.get_secret_value() if self.key else None

    def root(self, timeout: float) -> Upstream:
        """The same server without OpenAI's /v1, for its other paths. Close it separately."""
        url = self.url.removesuffix("/v1")
        return Upstream(
            self.name, url, self.key, timeout, self.key_setting, self.reply_bytes, at_once=self.at_once
        )

    async def get(self, path: str, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """GET a path; return the JSON. Raises an LLMBackendError."""
        said, _ = await self.persist(lambda: self._parsed("GET", path, None), deadline, retries)
        return said

    async def post(self, path: str, body: Any, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """POST a JSON body; return the JSON that comes back. Raises an LLMBackendError."""
        said, _ = await self.have_read(path, body, 0, deadline, retries)
        return said

    async def have_read(
        self,
        path: str,
        body: Any,
        texts: int,
        deadline: float | None = None,
        retries: int = RETRIES,
        unanswered: Callable[[], object] = _nothing,
    ) -> tuple[Any, Mapping[str, str]]:
        """POST a body that has so many texts for a model; return the JSON and the reply's headers."""
        sent = await json_writing.dumps(body)
        reply, turn = await self.begin(
            lambda turn: self._parsed("POST", path, sent, turn), deadline, retries, texts, unanswered
        )
        if turn is not None:
            turn.end()
        return reply

    async def forward(
        self,
        path: str,
        body: Any,
        deadline: float | None = None,
        retries: int = RETRIES,
        unanswered: Callable[[], object] = _nothing,
    ) -> bytes:
        """POST a JSON body; return the reply's bytes unread."""
        sent = await json_writing.dumps(body)
        (said, _), turn = await self.begin(
            lambda _: self._read("POST", path, sent), deadline, retries, 1, unanswered
        )
        if turn is not None:
            turn.end()
        return said

    async def stream(
        self,
        path: str,
        body: Any,
        deadline: float | None = None,
        retries: int = RETRIES,
        unanswered: Callable[[], object] = _nothing,
    ) -> AsyncGenerator[bytes, None]:
        """POST a JSON body and wait for the first event, then return all events as they arrive, each
        complete, in one form (sse.Events).

        After the first event, nothing is retried. The caller closes the result, whether it was read to the
        end or not.
        """
        sent = await json_writing.dumps(body)
        began, turn = await self.begin(lambda _: self._begin(path, sent), deadline, retries, 1, unanswered)
        return self._pieces(*began, turn)

    async def _begin(self, path: str, body: bytes) -> tuple[aiohttp.ClientResponse, Events, bytes]:
        reply = await self._open("POST", path, body, streams=True)
        events = Events()
        try:
            first = await self._next(reply, events)
            if not first:
                raise self.errors.no_events()
            if (error := _error_event(first)) is not None:
                raise self.errors.gave_up(error)
        except BaseException:
            reply.close()
            raise
        return reply, events, first

    async def _next(self, reply: aiohttp.ClientResponse, events: Events) -> bytes:
        """The next complete events; b"" at the end."""
        while piece := await reply.content.readany():
            if whole := events.feed(piece):
                return whole
            if events.held > EVENT_BYTES:
                raise self.errors.too_large("an event", EVENT_BYTES)
        return events.last()

    async def _pieces(
        self, reply: aiohttp.ClientResponse, events: Events, piece: bytes, turn: Turn | None
    ) -> AsyncGenerator[bytes, None]:
        waiting = tracing.current().waiting()
        secret = (self.secret or "").encode()
        try:
            with self.errors.translated():
                while piece:
                    # An error event may quote the key.
                    yield piece.replace(secret, b"***") if secret and secret in piece else piece
                    with waiting:
                        piece = await self._next(reply, events)
                    await tracing.turn()
        finally:
            reply.close()  # this closes the connection, too, so that the server stops working
            if turn is not None:
                turn.end()

    async def openai(self) -> OpenAIClient:
        """OpenAI's client for this server, for calls within `persist`. It does not retry by itself."""
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
        attempt: Callable[[], Coroutine[Any, Any, _Result]],
        deadline: float | None = None,
        retries: int = RETRIES,
        texts: int = 0,
        unanswered: Callable[[], object] = _nothing,
    ) -> _Result:
        """Call `attempt` with retries; return its result, or raise the last error when retries or time have
        run out.

        An attempt with `texts` waits for its turn (budget.py). While the server is busy (429), it is made
        again and again, unless the server answers no request at all within the timeout. Raises TooMany if it
        has more texts than may then be under way.
        """
        result, turn = await self.begin(lambda _: attempt(), deadline, retries, texts, unanswered)
        if turn is not None:
            turn.end()
        return result

    async def begin(
        self,
        attempt: Callable[[Turn | None], Coroutine[Any, Any, _Result]],
        deadline: float | None = None,
        retries: int = RETRIES,
        texts: int = 1,
        unanswered: Callable[[], object] = _nothing,
    ) -> tuple[_Result, Turn | None]:
        """Like `persist`, for a reply that goes on: returns the turn, too, which the caller ends. The attempt
        is given its turn.

        `unanswered` is called if an attempt is cancelled while the server works on it.
        """
        trace = tracing.current()
        began = time.monotonic()
        last = deadline or math.inf
        patience = Patience(min(began + self.timeout, last), retries)
        turn: Turn | None = None
        first, busy = True, False

        def extend(since: float) -> None:
            patience.deadline = max(patience.deadline, min(since + self.timeout, last))

        while True:
            try:
                with trace.waiting():
                    if texts:
                        turn = await self.budget.take(texts, self.timeout, last)
                        await trace.asks()
                        turn.trace = trace
                        if first or busy:  # waiting for the turn does not count
                            extend(time.monotonic() if first else self.budget.progressed)
                        first = False
                    async with asyncio.timeout(patience.deadline - time.monotonic()):
                        with self.errors.translated():
                            result = await tracing.in_turns(attempt(turn))
                if turn is not None:
                    self.budget.went_well(turn)
                return result, turn
            except BaseException as error:
                busy = turn is not None and isinstance(error, LLMBackendError) and is_busy(error)
                if turn is not None:
                    if isinstance(error, asyncio.CancelledError) and turn.trace is not None:
                        unanswered()
                    if busy:
                        self.budget.was_busy(turn)
                    turn.end()
                if trace.meter is not None and isinstance(error, LLMBackendError | TimeoutError):
                    code = error.code if isinstance(error, LLMBackendError) else BackendTimeout.code
                    trace.meter.failures[self.name, code] += 1
                if isinstance(error, TimeoutError):
                    raise self.errors.too_late(max(0.0, time.monotonic() - began)) from error
                if not isinstance(error, LLMBackendError) or not _worth_another_try(error):
                    raise
                if busy and retries:
                    if 1 < texts > self.budget.limit:
                        raise TooMany from error
                    # As long as the server answers anything, this request's turn will come.
                    extend(self.budget.progressed)
                pause = patience.pause(error.details.get("retry_after"), count=not (busy and retries))
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        # Drop what was learned about the server with its last user, without waiting for the garbage
        # collector.
        self.budget = Budget(math.inf)
        if self._session is not None:
            await self._session.close()
        if self._openai is not None:
            await self._openai.close()

    async def _parsed(
        self, method: str, path: str, body: bytes | None, turn: Turn | None = None
    ) -> tuple[Any, Mapping[str, str]]:
        said, headers = await self._read(method, path, body, turn)
        return await json_reading.reply(said), headers

    async def _read(
        self, method: str, path: str, body: bytes | None, turn: Turn | None = None
    ) -> tuple[bytes, Mapping[str, str]]:
        if self.idle:
            self._connections = 0
        self._under_way += 1
        reply: aiohttp.ClientResponse | None = None
        read = bytearray()
        try:
            reply = await self._open(method, path, body)
            if turn is not None:
                self._note_work(turn, reply.headers)
            if (reply.content_length or 0) > self.reply_bytes:
                raise self.errors.too_large("a reply", self.reply_bytes)
            while piece := await reply.content.readany():
                read += piece
                if len(read) > self.reply_bytes:
                    raise self.errors.too_large("a reply", self.reply_bytes)
            return bytes(read), reply.headers
        finally:
            if reply is not None:
                reply.release() if reply.content.at_eof() else reply.close()  # the rest might never end
            self._under_way -= 1
            self._last_used = time.monotonic()

    async def _open(
        self, method: str, path: str, body: bytes | None, *, streams: bool = False
    ) -> aiohttp.ClientResponse:
        """Send a request; return the reply, its body still unread. Raises the error for a status other than 200."""
        import aiohttp

        if self._session is None:
            # No compression, so that what is counted is what arrives.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self.secret:
                headers["Authorization"] = f"Bearer {self.secret}"
            # Idle connections are dropped before the server drops them, perhaps just as one is used.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT)
            watching = aiohttp.TraceConfig()
            watching.on_connection_create_end.append(self._note_connection)
            whole = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING)
            self._pausing = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING, sock_read=self.timeout)
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # cookies would be shared by callers
                timeout=whole,
                trace_configs=[watching] if self.watched else None,
            )
        timeout = self._pausing if streams else self._session.timeout
        reply = await self._session.request(
            method, self.url + path, data=body, allow_redirects=False, timeout=timeout
        )
        if reply.status == 200:
            return reply
        try:
            said = bytearray()
            while len(said) < REFUSAL_BYTES and (piece := await reply.content.readany()):
                said += piece
            raise self.errors.refusal(reply.status, bytes(said), reply.headers.get("Retry-After"))
        finally:
            # A reply that was not read to its end closes the connection.
            reply.release() if reply.content.at_eof() else reply.close()

    def _note_work(self, turn: Turn, headers: Mapping[str, str]) -> None:
        """If the server tells how long it worked, learn from it, and free its room before the reply is read."""
        waited, took = headers.get("x-queue-time", ""), headers.get("x-total-time", "")
        if waited.isdecimal() and took.isdecimal():  # TEI's, in milliseconds
            self.budget.answered(turn, int(waited) / 1000, int(took) / 1000)
            turn.leave()

    async def _note_connection(self, *_: Any) -> None:
        # With as many connections as calls under way, a new one is made only if another was lost.
        if 0 < self._under_way <= self._connections:
            self.reconnected += 1
            self._connections = self._under_way
        else:
            self._connections += 1


def is_busy(error: LLMBackendError) -> bool:
    """Whether a server refused a call because it is busy."""
    return error.details.get("status") == 429


def _worth_another_try(error: LLMBackendError) -> bool:
    import aiohttp

    status = error.details.get("status")
    if status is not None:
        return passing(status)
    if isinstance(error, BackendTimeout):
        return False  # no time is left
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientConnectionError) or type(cause).__name__ == "APIConnectionError"


def _error_event(piece: bytes) -> Any:
    """The error in a stream's first event, or None; raises ValueError or AttributeError if it is no event of
    a chat."""
    data = piece.lstrip().partition(b"\n")[0].removeprefix(b"data:").strip()
    return None if data == b"[DONE]" else json.loads(data).get("error")
