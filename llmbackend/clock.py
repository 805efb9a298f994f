"""The system clock: moments as numbers and as text, and whether it was set."""

from __future__ import annotations

import time
from datetime import UTC, datetime

CLOCK_SECONDS = 5.0
"""Differences between clocks, and changes of a clock, up to this many seconds are ignored."""


def now() -> float:
    return time.time()


class ClockWatch:
    """Notices when the system clock is set."""

    def __init__(self) -> None:
        self._ahead = time.time() - time.monotonic()

    def moved(self) -> float:
        """The seconds by which the clock was set since the last call; negative if it went back."""
        before, self._ahead = self._ahead, time.time() - time.monotonic()
        return self._ahead - before


def stamp(seconds: float | None = None) -> str:
    """A moment, by default now, in ISO 8601 UTC, which sorts as text."""
    moment = datetime.now(UTC) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds")
