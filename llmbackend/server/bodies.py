"""The bodies of requests, as they come: of limited size and duration, and of limited size in all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from starlette.requests import Request

from .. import precedence
from ..errors import RequestTimeout, TooLarge
from .shares import Reservation

FREE = 2**16
"""Bytes of a body that count against no budget: a small request gets in while large ones wait."""

SLICE = 2**18
"""Bytes after which a body gives way."""

STEP = 2**20  # bytes reserved at a time, of a body that does not tell its size

GRACE = 10.0  # seconds until a body must have begun to come
PACE = 2**14  # bytes a second that it must then come at, on average: less than any usable line carries


async def read(request: Request, limit: int, reserved: Reservation) -> AsyncGenerator[bytes, None]:
    """The body piece by piece. `limit` is in bytes.

    Raises TooLarge, Overloaded when the bodies of all requests are too large together, or RequestTimeout.
    """
    told = request.headers.get("content-length", "")
    expected = int(told) if told.isdecimal() else 0
    _check(expected, limit)
    if expected > FREE:
        reserved.grow(expected)
    size, slices = 0, 1
    now = asyncio.get_running_loop().time
    began = now()
    parts = request.stream()
    while True:
        try:
            async with asyncio.timeout_at(began + GRACE + size / PACE):
                part = await anext(parts, None)
        except TimeoutError:
            raise RequestTimeout(
                f"of the request, {size} bytes came in {now() - began:.0f} s: send at least {PACE} a second",
                details={"bytes_a_second": PACE},
            ) from None
        if part is None:
            return
        size += len(part)
        _check(size, limit)  # Content-Length may be missing
        if size > max(FREE, expected):
            reserved.grow(-(-size // STEP) * STEP)
        if size > slices * SLICE:
            slices = size // SLICE + 1
            paused = now()
            await precedence.pause()
            began += now() - paused  # which is not the caller's time
        yield part
        if size == expected:
            return  # what would come is that it has ended


def _check(size: int, limit: int) -> None:
    if size > limit:
        raise TooLarge(
            f"the request has more than {limit} bytes: send less at a time, or raise MAX_BODY_BYTES",
            details={"limit": limit},
        )
