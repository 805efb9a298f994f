"""Reading request bodies, with limits on size, duration and the total size of all bodies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Self

from starlette.requests import ClientDisconnect, Request

from .. import precedence
from ..errors import RequestTimeout, TooLarge
from .reservations import Reservation

FREE = 2**16
"""Bytes of each body that are not counted, so that small requests get in while large ones fill the budget."""

SLICE = 2**18
"""Bytes after which reading a body yields to other work."""

STEP = 2**20  # bytes reserved at a time for a body without Content-Length

GRACE = 10.0  # seconds until a body must have begun to arrive
PACE = 2**14  # bytes a second that it must average from then on: less than any usable connection carries


class Body:
    """Iterates over the pieces of a request's body, at most `limit` bytes.

    Raises TooLarge, Overloaded (all bodies together are too large), RequestTimeout.
    """

    # Not a generator, because the event loop tracks those in a list.
    def __init__(self, request: Request, limit: int, reserved: Reservation) -> None:
        self._receive = request.receive
        self._limit = limit
        self._reserved = reserved
        told = next((value for name, value in request.scope["headers"] if name == b"content-length"), b"")
        self._expected = int(told) if told.isdigit() else 0
        _check(self._expected, limit)
        if self._expected > FREE:
            reserved.grow(self._expected)
        self._state: Mapping[str, Any] = request.scope.get("state", {})
        """The connection's state; it has "complete" once the whole body has arrived."""
        self._now = asyncio.get_running_loop().time
        self._began = self._now()
        self._size, self._slices = 0, 1
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        if self._ended:
            raise StopAsyncIteration
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        part: bytes = message.get("body", b"")
        self._size += len(part)
        _check(self._size, self._limit)  # Content-Length may be missing
        if not self._state.get("complete"):
            self._check_pace()
        if self._size > max(FREE, self._expected):
            self._reserved.grow(-(-self._size // STEP) * STEP)
        if self._size > self._slices * SLICE:
            self._slices = self._size // SLICE + 1
            paused = self._now()
            await precedence.pause()
            self._began += self._now() - paused  # do not count our pause against the caller
        # When all announced bytes have arrived, only the end can follow.
        self._ended = not message.get("more_body", False) or self._size == self._expected > 0
        return part

    def _check_pace(self) -> None:
        """Checked with each piece. The connection gives an empty one each second, so that no body needs a timer."""
        took = self._now() - self._began
        if took > GRACE + self._size / PACE:
            raise RequestTimeout(
                f"only {self._size} bytes of the request arrived in {took:.0f} s: "
                f"send at least {PACE} bytes a second",
                details={"bytes_a_second": PACE},
            )


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(
            f"the request has more than {limit} bytes: send less at a time, or raise MAX_BODY_BYTES",
            details={"limit": limit},
        )
