"""Slices: large work in a thread gives way after each, so that small requests go first (precedence.py)."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from . import precedence, tracing


class _Slice(threading.local):
    """What a thread's work has had; nothing on the event loop."""

    began: float | None = None
    granted = False
    charged = 0.0
    releases = False
    """Whether the work releases the interpreter's lock most of the time."""


_slice = _Slice()


class _Line:
    """Lets the threads of large work use the interpreter one after the other, first come, first served.

    The event loop gets the interpreter's lock at random among all threads that wait for it. With a dozen at work, it would
    wait for dozens of their slices, a tenth of a second or longer.
    """

    PATIENCE = 0.05
    """Seconds until the next one goes ahead, because the thread whose turn it is seems to wait for something else."""

    def __init__(self) -> None:
        self._turn: int | None = None
        """The thread whose turn it is."""
        self._waiting: dict[int, threading.Lock] = {}
        self._changing = threading.Lock()

    def enter(self) -> None:
        me, called = threading.get_ident(), threading.Lock()
        with self._changing:
            if self._turn is None:
                self._turn = me
                return
            called.acquire()
            self._waiting[me] = called
        if not called.acquire(timeout=self.PATIENCE):
            with self._changing:
                self._waiting.pop(me, None)
                self._turn = me

    def leave(self) -> None:
        with self._changing:
            if self._turn == threading.get_ident():
                self._turn = next(iter(self._waiting), None)
                if self._turn is not None:
                    self._waiting.pop(self._turn).release()


_line = _Line()


@contextmanager
def in_slices() -> Iterator[None]:
    """In this block, work gives way where it calls `give_way`, and its processor time is charged to the current call."""
    _slice.began, _slice.granted, _slice.charged = time.monotonic(), False, time.thread_time()
    _slice.releases = False
    try:
        yield
    finally:
        _charge()
        _slice.began = None
        _line.leave()


def _charge() -> None:
    before, _slice.charged = _slice.charged, time.thread_time()
    tracing.worked(_slice.charged - before)


def lock_released() -> None:
    """Note that this thread's work releases the interpreter's lock most of the time."""
    _slice.releases = True


def give_way() -> None:
    """Let small requests go first. Long work in a thread calls this between slices; on the event loop it does nothing."""
    if (began := _slice.began) is None:
        return
    worked = time.monotonic() - began
    if worked < precedence.SLICE and (_slice.granted or not precedence.wanted()):
        return
    _charge()
    if not tracing.goes_first():
        _line.leave()
        _slice.granted = precedence.wait(worked)
        if not _slice.releases:
            _line.enter()
        _slice.began = time.monotonic()
