"""A model server behind us: one HTTP client and one retry loop.

Bytes pass through as they come. What is worth trying again (no connection, 429, 5xx) is tried again within the
deadline, waiting twice as long each time (with jitter), or as long as the server asks by Retry-After. A stream may
be tried again until its first bytes are there.
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
"""Seconds for which idle connections are kept: fewer than the usual server keeps them (uvicorn: 5 s)."""

REPLY_BYTES = 2**25
"""The largest reply, unless MAX_REPLY_BYTES says otherwise: hundreds of vectors, or several books."""
AT_ONCE = 4
"""Requests of one call, unless REQUESTS_AT_ONCE says otherwise: with more, a question waits behind them."""

EVENT_BYTES = 2**22
"""The longest event of a stream: a chunk of a reply has a thousandth of that."""

REFUSAL_BYTES = 2**16  # read of a reply with an error status

_Result = TypeVar("_Result")


def _nothing() -> None:
    pass


class TooMany(Exception):
    """A request has more texts than a busy server may be given at a time: it has to be sent in parts."""


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
        concurrency: float = math.inf,
        at_once: int = AT_ONCE,
    ) -> None:
        """`concurrency` is how many chats it is given at once; others wait here for their project's turn."""
        self.name = name
        self.url = url
        self.key = key
        self.timeout = timeout
        self.key_setting = key_setting
        self.errors = ServerErrors(name, url, self.secret, key_setting, timeout)
        self.reply_bytes = reply_bytes
        self.at_once = at_once
        """Requests under way for one call that embeds or reranks many texts."""
        self._session: aiohttp.ClientSession | None = None
        self._pausing: aiohttp.ClientTimeout
        """Of a stream: what is not one has a deadline, and needs no timer for each of its pieces."""
        self.budget = budget.of_server(url, "chat", concurrency)
        self._openai: OpenAIClient | None = None
        self._opening = threading.Lock()
        self.watched = False
        """Whether to count in `reconnected`, which takes a few microseconds a call."""
        self.reconnected = 0
        """How often a connection was made in place of one that was lost: behind it may be another server by now."""
        self._connections = 0  # that were made, and are not known to be lost
        self._under_way = 0
        self._last_used = -math.inf

    @property
    def idle(self) -> bool:
        """Whether it was left alone for so long that the next call needs a new connection."""
        return not self._under_way and time.monotonic() - self._last_used >= KEPT

    @property
    def secret(self) -> str | None:
        return self.key.get_secret_value() if self.key else None

    def root(self, timeout: float) -> Upstream:
        """The same server without the /v1 of OpenAI's wire, for what it has beside that. Close it as well."""
        url = self.url.removesuffix("/v1")
        return Upstream(
            self.name, url, self.key, timeout, self.key_setting, self.reply_bytes, at_once=self.at_once
        )

    async def get(self, path: str, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """The JSON at a path."""
        said, _ = await self.persist(lambda: self._parsed("GET", path, None), deadline, retries)
        return said

    async def post(self, path: str, body: Any, deadline: float | None = None, retries: int = RETRIES) -> Any:
        """The JSON that comes back for a JSON body."""
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
        """The same for a body with so many texts for a model, and the headers of the reply."""
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
        """The bytes that come back for a JSON body, unread."""
        sent = await json_writing.dumps(body)
        said, _ = await self.persist(lambda: self._read("POST", path, sent), deadline, retries, 1, unanswered)
        return said

    async def stream(
        self,
        path: str,
        body: Any,
        deadline: float | None = None,
        retries: int = RETRIES,
        unanswered: Callable[[], object] = _nothing,
    ) -> AsyncGenerator[bytes, None]:
        """Once the first event is there: all of them, in one form (sse.Events), each whole, as they arrive.

        Nothing is tried again after that. Close what this returns, read to the end or not.
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
        """The next events; none at the end."""
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
                    # An error in the stream may quote the key.
                    yield piece.replace(secret, b"***") if secret and secret in piece else piece
                    with waiting:
                        piece = await self._next(reply, events)
                    await tracing.turn()
        finally:
            reply.close()  # and with it the connection, so that the server stops its work
            if turn is not None:
                turn.end()

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
        attempt: Callable[[], Coroutine[Any, Any, _Result]],
        deadline: float | None = None,
        retries: int = RETRIES,
        texts: int = 0,
        unanswered: Callable[[], object] = _nothing,
    ) -> _Result:
        """The retry loop: what an attempt returns, or the last error once tries or time have run out.

        An attempt with `texts` waits for its turn (budget.py), and is made again while the server is busy (429), unless
        that does nothing for anybody in all the time that there is; raises TooMany for more texts than may be at a time.
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
        """The same for an attempt that is given its turn, and for a reply that goes on: the turn is to be ended with that.

        `unanswered` is called where an attempt is given up while the server is at work for it.
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
                        if first or busy:  # the time that it takes begins with its turn
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
                    extend(
                        self.budget.progressed
                    )  # as long as it gets on with anything, it will come to this
                pause = patience.pause(error.details.get("retry_after"), count=not (busy and retries))
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def close(self) -> None:
        # What was learned of the server ends with its last user, not when the garbage collector comes by.
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
                reply.release() if reply.content.at_eof() else reply.close()  # there may be no end to what is to come
            self._under_way -= 1
            self._last_used = time.monotonic()

    async def _open(
        self, method: str, path: str, body: bytes | None, *, streams: bool = False
    ) -> aiohttp.ClientResponse:
        """The reply, its body yet to be read; raises a refusal."""
        import aiohttp

        if self._session is None:
            # Nothing packed: what is counted is what comes.
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self.secret:
                headers["Authorization"] = f"Bearer {self.secret}"
            # Idle connections are dropped before the server would, not used as it does.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEPT)
            watching = aiohttp.TraceConfig()
            watching.on_connection_create_end.append(self._note_connection)
            whole = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING)
            self._pausing = aiohttp.ClientTimeout(total=None, sock_connect=CONNECTING, sock_read=self.timeout)
            self._session = aiohttp.ClientSession(
                headers=headers,
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),  # one caller's would go along with another's calls
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
            # What is left unread closes the connection.
            reply.release() if reply.content.at_eof() else reply.close()

    def _note_work(self, turn: Turn, headers: Mapping[str, str]) -> None:
        """Where a server tells how long it took, the work is done: it has room again before its reply is read."""
        waited, took = headers.get("x-queue-time", ""), headers.get("x-total-time", "")
        if waited.isdecimal() and took.isdecimal():  # TEI's, in milliseconds
            self.budget.answered(turn, int(waited) / 1000, int(took) / 1000)
            turn.leave()

    async def _note_connection(self, *_: Any) -> None:
        # While there are as many connections as calls, none is made unless one was lost.
        if 0 < self._under_way <= self._connections:
            self.reconnected += 1
            self._connections = self._under_way
        else:
            self._connections += 1


def is_busy(error: LLMBackendError) -> bool:
    """Whether a server refused a call for what it has to do already."""
    return error.details.get("status") == 429


def _worth_another_try(error: LLMBackendError) -> bool:
    import aiohttp

    status = error.details.get("status")
    if status is not None:
        return passing(status)
    if isinstance(error, BackendTimeout):
        return False  # the time is used up
    cause = error.__cause__
    return isinstance(cause, aiohttp.ClientConnectionError) or type(cause).__name__ == "APIConnectionError"


def _error_event(piece: bytes) -> Any:
    """The error in a stream's first event, if it is one; raises ValueError or AttributeError for what is no event."""
    data = piece.lstrip().partition(b"\n")[0].removeprefix(b"data:").strip()
    return None if data == b"[DONE]" else json.loads(data).get("error")
