"""When to retry a request to a server behind us: one policy for all servers."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime

FIRST_PAUSE = 0.2  # seconds
LONGEST_PAUSE = 5.0


def passing(status: int) -> bool:
    """Whether a request refused with this HTTP status may be accepted later."""
    return status in (408, 429) or status >= 500


def asked_for(retry_after: str | None) -> float | None:
    """What a Retry-After header asks for, in seconds or as a date (RFC 9110, section 10.2.3)."""
    try:
        seconds = float(retry_after or "")
    except ValueError:
        try:
            seconds = parsedate_to_datetime(retry_after or "").timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


class Patience:
    """How long to wait before the next try: twice as long each time, with jitter, or what the server asks for."""

    def __init__(self, deadline: float, retries: float = math.inf) -> None:
        """`deadline` is one of `time.monotonic`."""
        self.deadline = deadline
        self._retries = retries
        self._pause = FIRST_PAUSE

    def pause(self, retry_after: float | None = None, *, count: bool = True) -> float | None:
        """Seconds to wait; None if there is no time left, or, where tries `count`, none of them."""
        wait = float(retry_after or self._pause * random.uniform(1, 1.5))
        if (count and not self._retries) or time.monotonic() + wait >= self.deadline:
            return None
        self._retries -= count
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        return wait
