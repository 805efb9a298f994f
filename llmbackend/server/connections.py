"""Limits on the server's connections, in number and time, most of which uvicorn lacks.

Connecting takes no key, so a client that opens many connections or sends a request's head for ever must not keep
others out: idle connections are closed for new ones, oldest first, from the address that has the most.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from .. import precedence
from ..errors import InvalidRequest, LLMBackendError, Overloaded, TooLarge
from .bodies import SLICE
from .replies import error_response

log = logging.getLogger(__name__)

RESERVE = 32
"""Extra connections beyond the limit, on which only health checks are answered."""

HEAD_BYTES = 2**16  # of a request's line and headers
HEADERS = 100
HEAD_SECONDS = 20.0  # until a request's head must be complete
LINGERING = 10.0  # seconds for the rest of an unread body, once the reply is sent
IDLE = 75.0  # seconds between requests: longer than clients keep connections, so that the client closes first
PIPELINED = 16  # requests sent ahead of the replies to those before them
STALLED = 30.0  # seconds in which a client must read at least STALLED_BYTES of a waiting reply
STALLED_BYTES = 2**15
REPORT = 60.0  # seconds between log lines


class Connections:
    """All connections of a server."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._all: dict[Connection, None] = {}
        self._addresses: Counter[str] = Counter()
        self._waiting: dict[str, dict[Connection, None]] = {}  # idle ones by address, oldest first
        self._spare: dict[Connection, None] = {}  # those in the reserve
        self._closed: Counter[str] = Counter()  # reasons since the last report

    def add(self, connection: Connection) -> None:
        self._all[connection] = None
        self._addresses[connection.address] += 1
        self.waits(connection)
        if len(self._all) <= self._limit + len(self._spare):
            return
        if (oldest := self._oldest(connection)) is not None:
            oldest.drop("made room for new ones")
            return
        self._spare[connection] = None
        connection.spare = True
        if len(self._spare) > RESERVE:
            next(iter(self._spare)).drop("were too many")

    def _oldest(self, new: Connection) -> Connection | None:
        """The longest idle connection, of the address with the most connections that has an idle one."""
        for address in sorted(self._waiting, key=self._addresses.__getitem__, reverse=True):
            for connection in self._waiting[address]:
                if connection is not new and not connection.spare:
                    return connection
        return None

    def waits(self, connection: Connection) -> None:
        self._waiting.setdefault(connection.address, {})[connection] = None

    def works(self, connection: Connection) -> None:
        waiting = self._waiting.get(connection.address, {})
        waiting.pop(connection, None)
        if not waiting:
            self._waiting.pop(connection.address, None)

    def remove(self, connection: Connection) -> None:
        if connection in self._all:
            del self._all[connection]
            self._spare.pop(connection, None)
            self.works(connection)
            self._addresses[connection.address] -= 1
            if not self._addresses[connection.address]:
                del self._addresses[connection.address]

    def count(self, why: str) -> None:
        self._closed[why] += 1

    async def watch(self, tick: Callable[[], None]) -> None:
        """Close slow connections once a second, log how many every minute, and call `tick` each time."""
        reported = time.monotonic()
        while True:
            await asyncio.sleep(1)
            now = time.monotonic()
            for connection in list(self._all):
                connection.check(now)
            if self._closed and now >= reported + REPORT:
                reasons = ", ".join(f"{count} {why}" for why, count in self._closed.most_common())
                log.warning("connections closed in the last minute: %s; %d are open", reasons, len(self._all))
                self._closed.clear()
            if now >= reported + REPORT:
                reported = now
            tick()


class Connection(HttpToolsProtocol):
    """One client's connection."""

    def __init__(self, connections: Connections, **given: Any) -> None:
        super().__init__(**given)
        self._connections = connections
        self.address = "-"
        self.spare = False
        self._since = time.monotonic()  # when its current state began
        self._head = True  # whether a request's head is awaited or arriving
        self._head_bytes = 0
        self._refused = False
        self._unread = 0
        self._resuming: asyncio.Task[None] | None = None  # a reference, so that it is not garbage-collected
        self._stalled: tuple[float, int] | None = None  # since when, and the bytes waiting then

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.address = self.client[0] if self.client else "-"
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.remove(self)
        super().connection_lost(exc)
        if self.cycle is not None and (gone := self.cycle.scope["state"].get("gone")) is not None:
            gone()

    def drop(self, why: str) -> None:
        self._connections.count(why)
        self._connections.remove(self)
        self.transport.abort()

    def check(self, now: float) -> None:
        """Close the connection if it takes too long."""
        if self._stalled is not None and now > self._stalled[0] + STALLED:
            waits = self.transport.get_write_buffer_size()
            if self._stalled[1] - waits < STALLED_BYTES:
                self.drop("did not read their replies")
                return
            self._stalled = (now, waits)
        if self._at_work:
            if not self._head:  # whoever reads the body checks its pace
                self.cycle.message_event.set()
            return
        if self._head:
            if now > self._since + (HEAD_SECONDS if self._asks else IDLE):
                self.drop("sent no whole request in time" if self._asks else "were idle")
        elif now > self._since + LINGERING:
            self.drop("did not end their requests")

    @property
    def _at_work(self) -> bool:
        return bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)

    @property
    def _asks(self) -> bool:
        """Whether a request has begun, or the first one is awaited."""
        return self.cycle is None or self._head_bytes > 0

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        try:
            for start in range(0, len(data), HEAD_BYTES):
                if self._refused:
                    return
                piece = data[start : start + HEAD_BYTES]
                if self._head:
                    self._head_bytes += len(piece)
                self.parser.feed_data(piece)
                if self._head and self._head_bytes > HEAD_BYTES:
                    self._refuse(431, _too_large())
                    return
        except httptools.HttpParserUpgrade:
            pass  # there are no WebSockets: answer it as any other request
        except httptools.HttpParserError:
            self._refuse(400, InvalidRequest("this is not an HTTP request"))

    def _refuse(self, status: int, error: LLMBackendError) -> None:
        """Send an error without a parsed request, and close."""
        self._refused = True
        self._connections.count("sent no HTTP request" if status == 400 else "sent too large a head")
        if not self._at_work:  # else this would land in the middle of another reply
            reply = error_response(error)
            head = [(b"connection", b"close"), *reply.raw_headers]
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in head)
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + reply.body)
        self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head = True
        if self.cycle is not None:  # the first request's time runs from the connection's beginning
            self._since = time.monotonic()
            self._head_bytes = 1  # earlier bytes in this piece belong to the previous request

    def on_headers_complete(self) -> None:
        self._head = False
        self._head_bytes = 0
        if len(self.pipeline) >= PIPELINED:
            self._refused = True
            self.drop("sent too many requests ahead")
        if self._refused:
            return
        if len(self.headers) > HEADERS:
            self.scope["state"]["refusal"] = (431, _too_large())
        elif self.spare and not self.url.startswith(b"/health/"):
            busy = Overloaded(
                "there are too many connections: close some, or raise MAX_CONNECTIONS",
                details={"retry_after": 1},
            )
            self.scope["state"]["refusal"] = (429, busy)
        self._connections.works(self)
        super().on_headers_complete()
        if self.spare:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        if self._refused:
            return
        super().on_body(body)
        if self.cycle.response_complete:  # nobody reads it
            self._unread += len(body)
            if self._unread > SLICE:
                self._unread = 0
                self.flow.pause_reading()
                self._resuming = asyncio.create_task(self._resume())

    async def _resume(self) -> None:
        await precedence.pause()
        if not self.transport.is_closing():
            self.flow.resume_reading()

    def on_message_complete(self) -> None:
        if self._refused:
            return
        self.cycle.scope["state"]["complete"] = True
        super().on_message_complete()
        self._head = True
        if self.cycle.response_complete:
            self._since = time.monotonic()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._since = time.monotonic()
        if not self._at_work and not self.transport.is_closing():
            self._connections.waits(self)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = (time.monotonic(), self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stalled = None


def _too_large() -> TooLarge:
    return TooLarge(
        f"a request may have at most {HEAD_BYTES} bytes of request line and headers, and {HEADERS} headers",
        details={"limit": HEAD_BYTES, "headers": HEADERS},
    )
