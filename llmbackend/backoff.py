"""When to retry a request to a server behind us: one policy for all servers."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime

FIRST_PAUSE = 0.2  # seconds
LONGEST_PAUSE = 5.0


def passing(status: int) -> bool:
    """Return whether a request that got this HTTP status may succeed later."""
    return status in (408, 429) or status >= 500


def asked_for(retry_after: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks for; it has seconds or a date (RFC 9110, section 10.2.3)."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


class Patience:
    """Decides how long to wait before each retry: twice as long each time, with jitter, or as long as the server asks."""

    def __init__(self, deadline: float, retries: float = math.inf) -> None:
        """`deadline` is by `time.monotonic`."""
        self.deadline = deadline
        self._retries = retries
        self._pause = FIRST_PAUSE

    def pause(self, retry_after: float | None = None, *, count: bool = True) -> float | None:
        """Return the seconds to wait; None if no time is left, or no retries, if this one is to `count`."""
        wait = float(retry_after or self._pause * random.uniform(1, 1.5))
        if (count and not self._retries) or time.monotonic() + wait >= self.deadline:
            return None
        self._retries -= count
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return wait
