"""The writing side of a cache: one thread behind a bounded queue."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Generic, TypeVar

from .. import slices

log = logging.getLogger(__name__)

QUEUED = 64 * 2**20
"""The most bytes that are queued or being written."""

CLOSING = 10.0
"""Seconds that closing waits for the queue."""

LOG_SECONDS = 60.0
"""Seconds between two log lines about dropped entries."""

_Entry = TypeVar("_Entry")


class CacheWriter(Generic[_Entry]):
    """Writes entries in a thread that nobody waits for. If the disk is too slow, entries are dropped, and the
    log says how many."""

    def __init__(
        self, name: str, write: Callable[[dict[bytes, _Entry]], None], size: Callable[[_Entry], int]
    ):
        self._name, self._write, self._size = name, write, size
        self._changed = threading.Condition()
        self._queue: dict[bytes, _Entry] = {}
        self._bytes = 0
        self._at_work = 0
        self._thread: threading.Thread | None = None
        self._closing = False
        self._dropped = 0
        self._told = float("-inf")

    def put(self, entries: Mapping[bytes, _Entry]) -> None:
        """Queue the entries, as many as there is room for."""
        sizes = list(accumulate(map(self._size, entries.values())))
        with self._changed:
            room = QUEUED - self._bytes
            fit = sum(size <= room for size in sizes)
            self._queue.update(list(entries.items())[:fit])
            self._bytes += sizes[fit - 1] if fit else 0
            self._dropped += len(entries) - fit
            if self._thread is None:
                self._closing = False
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
            self._changed.notify_all()
            self._tell()

    def close(self) -> bool:
        """Stop the writer; return whether everything was written."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            done = self._changed.wait_for(lambda: self._thread is None, CLOSING)
            self._dropped += self._at_work + len(self._queue)
            self._queue.clear()
            self._told = float("-inf")
            self._tell()
        return done

    def _tell(self) -> None:
        now = time.monotonic()
        if self._dropped and now - self._told >= LOG_SECONDS:
            log.warning("%s: the disk is slow, %d entries are not kept", self._name, self._dropped)
            self._dropped, self._told = 0, now

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closing)
                entries, self._queue = self._queue, {}
                size, self._at_work = self._bytes, len(entries)
                if not entries:
                    self._thread = None
                    self._changed.notify_all()
                    return
            try:
                with slices.in_slices():
                    self._write(entries)
            except Exception:
                log.exception("%s: %d entries are not kept", self._name, len(entries))
            del entries
            with self._changed:
                self._bytes -= size
                self._at_work = 0
