"""Limits how many indexes are open: closes the least recently used ones, and idle ones."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from typing import Protocol

from anyio import CancelScope

TICK = 1.0
"""Seconds between two looks for idle indexes."""

PAUSE = 0.05
"""Seconds between two looks while too many indexes are open and in use."""

WORTH = 100
"""An idle index stays open for at least so many times the seconds that opening it took."""


class Openable(Protocol):
    opening_seconds: float
    """Seconds that opening it took."""

    @property
    def in_use(self) -> bool: ...

    async def release(self) -> None:
        """Close the index, unless it is in use again."""


class OpenIndexes:
    """Closes the least recently used indexes beyond `most`, and those idle for `idle_seconds`.

    Indexes in use stay open, so there may be more than `most` for a while. Must be made on the event loop.
    """

    def __init__(self, most: int, idle_seconds: float) -> None:
        self._most = most
        self._idle_seconds = idle_seconds
        self._used: OrderedDict[Openable, float] = OrderedDict()
        self._crowded = asyncio.Event()
        self._releasing: set[asyncio.Task[None]] = set()
        self._scope = CancelScope()
        self._looking = asyncio.create_task(self._look())

    def used(self, collection: Openable) -> None:
        self._used[collection] = time.monotonic()
        self._used.move_to_end(collection)
        if len(self._used) > self._most:
            self._crowded.set()

    def closed(self, collection: Openable) -> None:
        self._used.pop(collection, None)

    async def close(self) -> None:
        self._scope.cancel()
        await asyncio.wait([self._looking, *self._releasing])

    async def _look(self) -> None:
        with self._scope:
            while True:
                try:
                    async with asyncio.timeout(TICK):
                        await self._crowded.wait()
                except TimeoutError:
                    pass
                self._crowded.clear()
                releasing = [asyncio.create_task(one.release()) for one in self._due()]
                self._releasing.update(releasing)
                for task in releasing:
                    task.add_done_callback(self._releasing.discard)
                await asyncio.sleep(PAUSE)

    def _due(self) -> list[Openable]:
        now, beyond = time.monotonic(), len(self._used) - self._most
        due: list[Openable] = []
        for collection, last in self._used.items():
            idle = now - last > max(self._idle_seconds, WORTH * collection.opening_seconds)
            if (idle or len(due) < beyond) and not collection.in_use:
                due.append(collection)
        return due
