"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as OpenAI's streams use them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

DONE = b"data: [DONE]\n\n"

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which readers leave out: it tells them, and whatever lies between, that the stream is alive."""

_DONE = re.compile(rb"data: ?\[DONE\]\s*$")
_TAIL = 2000  # bytes, which hold a stream's last two events: the usage, and [DONE]


def event(data: dict[str, Any], number: int | None = None) -> bytes:
    """One event, ready to send; its number is what a reader who comes back sends as Last-Event-ID."""
    begin = b"" if number is None else b"id: %d\n" % number
    # As ASCII: half a character, as models send it now and then, has no UTF-8.
    return begin + b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


class Tail:
    """The end of a stream that is being read: clients take a connection's end for the stream's."""

    def __init__(self) -> None:
        self.bytes = b""

    def add(self, piece: bytes) -> None:
        self.bytes = (self.bytes + piece)[-_TAIL:]

    @property
    def done(self) -> bool:
        """Whether the last event was [DONE]."""
        return _DONE.search(self.bytes) is not None


async def send(
    events: AsyncIterator[bytes], put: Callable[[bytes], Awaitable[None]], heartbeat: float | None
) -> None:
    """`put` each event, and a heartbeat, if there are to be any, whenever there has been none for so many seconds."""
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
            # Never within an event of which a part has been sent, nor while something is being sent.
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
