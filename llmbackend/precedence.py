"""Lets small requests go first in a shared interpreter: large work gives way to them between its slices.

A request is small while it has a small body, writes nothing, has been at work for less than SMALL seconds (waiting for
models not counted), and has used the processor in threads for less than LIGHT seconds. While one is at work, large work
(bodies, documents, jobs) waits wherever it gives way (`slices.give_way`, `pause`), and all of it together gets one part in
1 + WAIT_PER_WORK of the time. If no small request is at work, nothing waits.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

SMALL = 0.5  # seconds

LIGHT = 0.05
"""Seconds: ten times what a question takes, and a small part of what the largest possible search takes."""

SLICE = 0.002
"""Seconds that large work gets at a time while small requests are at work."""

WAIT_PER_WORK = 4.0

_lock = threading.Lock()
_small: dict[object, float] = {}  # when small requests began, oldest first
_waiting: dict[object, Callable[[], None]] = {}  # how to wake waiting large work, first come, first served
_next = 0.0
"""When the next waiter may continue even if small requests are at work."""


def begin(request: object) -> None:
    """Note that a small request begins."""
    _small.pop(request, None)
    _small[request] = time.monotonic()


def end(request: object) -> None:
    _small.pop(request, None)
    if _waiting:  # work that begins to wait at this very moment continues by itself, a slice later
        with _lock:
            _wake()


def wanted() -> bool:
    """Return whether a small request may be at work."""
    return bool(_small)


def wait(worked: float) -> bool:
    """Wait, in a thread, until large work may continue after `worked` seconds of work.

    Returns whether it got a slice although small requests are at work.
    """
    woken = threading.Lock()
    woken.acquire()
    if not (patience := _queue(woken, woken.release, worked)):
        return False
    try:
        return not woken.acquire(timeout=patience)
    finally:
        _leave(woken)


async def pause() -> None:
    """Wait, on the event loop, until large work may continue."""
    if not _small:
        return
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()
    if patience := _queue(woken, partial(_wake_on, loop, woken), 0.0):
        try:
            await asyncio.wait([woken], timeout=patience)
        finally:
            _leave(woken)


def _queue(waiter: object, wake: Callable[[], None], worked: float) -> float:
    """Queue a waiter; return the most seconds that it has to wait, 0 if no small request is at work."""
    global _next
    with _lock:
        if not _busy():
            return 0.0
        now = time.monotonic()
        _next = max(now, _next) + WAIT_PER_WORK * max(worked, SLICE)
        _waiting[waiter] = wake
        return _next - now


def _leave(waiter: object) -> None:
    with _lock:
        _waiting.pop(waiter, None)
        _wake()  # each wakes the next: all at once, they would delay new requests


def _wake() -> None:
    global _next
    if _waiting and not _busy():
        _next = 0.0
        _waiting.pop(next(iter(_waiting)))()


def _busy() -> bool:
    """Return whether a small request is at work; one that takes longer than SMALL seconds no longer counts."""
    while _small:
        with suppress(StopIteration, RuntimeError, KeyError):  # another thread has just begun or ended one
            request, since = next(iter(_small.items()))
            if time.monotonic() < since + SMALL:
                return True
            del _small[request]
    return False


def _wake_on(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None]) -> None:
    with suppress(RuntimeError):  # the loop has ended
        loop.call_soon_threadsafe(_set, woken)


def _set(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)
