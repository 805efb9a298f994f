"""Watches whether background work makes progress, for /health/ready."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

log = logging.getLogger(__name__)

FAILURES = 3
"""Failures in a row that count as a problem."""
STUCK_SECONDS = 60.0
"""Seconds after which a step counts as stuck."""
LOG_SECONDS = 60.0
"""Seconds between two log lines about the same failure."""


@dataclass
class _Part:
    failures: int = 0
    error: str = ""
    logged: float = 0.0
    since: float | None = None  # when the current step began

    def state(self, moment: float) -> str:
        """Return what is wrong, or "ok"."""
        if self.failures >= FAILURES:
            return self.error
        if self.since is not None and moment - self.since > STUCK_SECONDS:
            return f"no end of its last step for {moment - self.since:.0f} s"
        return "ok"


class Vitals:
    """The state of background work. Thread-safe."""

    def __init__(self) -> None:
        self._parts: dict[str, _Part] = {}
        self._changing = threading.Lock()

    @contextmanager
    def step(self, part: str) -> Iterator[None]:
        """Run a step of a part; an error is noted and logged once a minute, not raised."""
        self.begun(part)
        try:
            yield
        except Exception as error:
            self.failed(part, error)
        except BaseException:  # cancelled
            self.well(part)
            raise
        else:
            self.well(part)

    def begun(self, part: str) -> None:
        with self._changing:
            self._parts.setdefault(part, _Part()).since = time.monotonic()

    def failed(self, part: str, error: BaseException) -> None:
        moment = time.monotonic()
        with self._changing:
            one = self._parts.setdefault(part, _Part())
            one.failures += 1
            one.since = None
            said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"[
                :300
            ]
            news = said != one.error or moment - one.logged >= LOG_SECONDS
            one.error = said
            if news:
                one.logged = moment
        if news:
            log.error("%s failed, and is retried", part, exc_info=error)

    def well(self, part: str) -> None:
        with self._changing:
            one = self._parts.setdefault(part, _Part())
            one.failures, one.since = 0, None

    def parts(self) -> dict[str, str]:
        """Return all parts that have run, each "ok" or with what is wrong."""
        moment = time.monotonic()
        with self._changing:
            return {name: one.state(moment) for name, one in self._parts.items()}
