"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as OpenAI's streams use them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

from . import json_writing, threads

DONE = b"data: [DONE]\n\n"

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which readers ignore: a heartbeat for them and for proxies."""

_DONE = re.compile(rb"data: ?\[DONE\]\s*$")
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"[^"]')
_TAIL = 2000  # bytes enough for a stream's last events: the finish_reason, the usage, and [DONE]
_BOM = b"\xef\xbb\xbf"


def event(data: dict[str, Any], number: int | None = None) -> bytes:
    """Return one event, ready to send. A reader that reconnects sends its `number` as Last-Event-ID."""
    begin = b"" if number is None else b"id: %d\n" % number
    # As ASCII, because lone surrogates, which models sometimes send, have no UTF-8.
    return begin + b"data: " + json_writing.text(data, (",", ":")).encode() + b"\n\n"


def named_event(data: dict[str, Any]) -> bytes:
    """Return an event with its `type` as the event's name, as in OpenAI's responses."""
    return f"event: {data['type']}\n".encode() + event(data)


async def events(
    items: AsyncIterator[dict[str, Any]], written: Callable[[dict[str, Any]], bytes] = event
) -> AsyncGenerator[bytes]:
    """Yield an event for each item, and the final one."""
    async with aclosing(items):  # type: ignore[type-var]
        async for item in items:
            # An event of a response repeats the request, which may be large.
            large = json_writing.is_large(item)
            yield await threads.processor(written, item) if large else written(item)
    yield DONE


class Events:
    """Normalizes a stream's events, whichever form of the standard the server uses.

    Events come complete, as `data: …` and an empty line, without comments, ids and names, which have no meaning in
    OpenAI's streams.
    """

    def __init__(self) -> None:
        self._held = b""
        self._begun = self._after_return = False

    @property
    def held(self) -> int:
        """The bytes of an unfinished event."""
        return len(self._held)

    def feed(self, piece: bytes) -> bytes:
        """Take a piece of the stream, and return the events that are complete."""
        if self._begun and not self._held and not self._after_return and _is_plain(piece):
            return piece  # as nearly all are
        if not self._begun:
            self._held, piece = b"", self._held + piece
            if len(piece) < len(_BOM) and _BOM.startswith(piece):
                self._held = piece
                return b""
            self._begun, piece = True, piece.removeprefix(_BOM)
        if b"\r" in piece or self._after_return:
            ends = piece.endswith(b"\r")
            if self._after_return:
                piece = piece.removeprefix(b"\n")
            self._after_return = ends
            piece = piece.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        known = max(0, len(self._held) - 1)
        held = self._held + piece
        end = held.rfind(b"\n\n", known)
        if end < 0:
            self._held = held
            return b""
        self._held = held[end + 2 :]
        return b"".join(map(_plain, held[:end].split(b"\n\n")))

    def last(self) -> bytes:
        """Return, at the end of a stream, a last event that lacks its empty line, if it is complete."""
        held, self._held = self._held, b""
        event = _plain(held)
        if not event or event == DONE:
            return event
        try:
            json.loads(event.removeprefix(b"data: "))
        except ValueError:
            return b""  # the stream broke off within the event
        return event


def _is_plain(piece: bytes) -> bool:
    """Return whether these are complete events in our form. Counting is faster than a pattern."""
    return (
        piece.startswith(b"data: ")
        and piece.endswith(b"\n\n")
        and b"\r" not in piece
        and piece.count(b"\n") == 2 + 2 * piece.count(b"\n\ndata: ")
        and b"data: \n" not in piece
        and b"data:  " not in piece
    )


def _plain(event: bytes) -> bytes:
    lines = [line[5:].strip() for line in event.split(b"\n") if line.startswith(b"data:")]
    data = b" ".join(lines).strip()  # in JSON, a line's end means the same as a space
    return b"data: " + data + b"\n\n" if data else b""


class Tail:
    """The last bytes of a stream, which show whether it is complete: to clients, a lost connection looks like its end."""

    def __init__(self) -> None:
        self.bytes = b""

    def add(self, piece: bytes) -> None:
        self.bytes = (self.bytes + piece)[-_TAIL:]

    @property
    def done(self) -> bool:
        """Whether the last event was [DONE]."""
        return _DONE.search(self.bytes) is not None

    @property
    def finished(self) -> bool:
        """Whether the reply is complete; some servers send no [DONE]."""
        return self.done or _FINISHED.search(self.bytes) is not None


async def send(
    events: AsyncIterator[bytes], put: Callable[[bytes], Awaitable[None]], heartbeat: float | None
) -> None:
    """Call `put` with each event, and with a heartbeat after so many seconds without one, if set."""
    if heartbeat is None:
        async for event in events:
            await put(event)
        return
    clock = asyncio.get_running_loop().time
    last, end, busy = clock(), b"\n\n", False

    async def beat(heartbeat: float) -> None:
        nonlocal last
        while True:
            await asyncio.sleep(max(0.0, last + heartbeat - clock()))
            # Never inside an event that is partly sent, nor while something is being sent.
            if clock() - last >= heartbeat:
                last = clock()
                if not busy and end.endswith((b"\n\n", b"\r\n\r\n")):
                    await put(HEARTBEAT)

    beating = asyncio.create_task(beat(heartbeat))
    try:
        async for event in events:
            busy = True
            await put(event)
            last, end, busy = clock(), (end + event)[-4:] if len(event) < 4 else event[-4:], False
    finally:
        beating.cancel()
