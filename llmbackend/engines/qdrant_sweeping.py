"""What a Qdrant server's collection still has to be rid of: points that were superseded, which are removed when no reader
needs them any more, and what the server did not answer when it was asked.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Sequence
from typing import Protocol

from ..errors import LLMBackendError

log = logging.getLogger(__name__)

GRACE = 15.0
"""Seconds that superseded points are kept. A server first finds points and then reads them, without those that were
deleted in between, so a search could find neither the old nor the new version of a document."""


class Swept(Protocol):
    """An index on a Qdrant server. Its methods raise LLMBackendError. A version is a document's id and its content's hash."""

    name: str

    def remove_superseded(self, seconds: float, *, again: bool = True) -> None:
        """Remove points that were superseded at least so many seconds ago."""

    def has_superseded(self) -> bool: ...

    def remove(self, versions: Sequence[tuple[str, str]], *, again: bool = True) -> None:
        """Remove these versions. Without `again`, ask the server once."""

    def settle(self, versions: Sequence[tuple[str, str]]) -> None:
        """Supersede all versions of these documents but the one written last."""


class Sweeping:
    """Sweeps an index a while after it was told to, and again as long as something is left. Thread-safe."""

    def __init__(self, index: Swept) -> None:
        self._index = index
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None
        self._closed = False
        self._undone: set[tuple[str, str]] = set()
        """Versions still to be discarded, because the server did not answer."""
        self._unsettled: set[tuple[str, str]] = set()
        """Versions whose older ones are still to be superseded, because the server did not answer."""

    @property
    def is_due(self) -> bool:
        """Whether there may be superseded points."""
        return self._timer is not None

    def later(self) -> None:
        """Sweep when nobody reads any more what is superseded now."""
        with self._lock:
            if self._timer is None and not self._closed:
                self._timer = threading.Timer(2 * GRACE, self._sweep)
                self._timer.daemon = True
                self._timer.start()

    def discard_later(self, versions: Iterable[tuple[str, str]]) -> None:
        with self._lock:
            self._undone.update(versions)
        self.later()

    def settle_later(self, versions: Iterable[tuple[str, str]]) -> None:
        with self._lock:
            self._unsettled.update(versions)
        self.later()

    def written(self, versions: Iterable[tuple[str, str]]) -> None:
        """Note that these versions are about to be written: they are not to be discarded any more."""
        with self._lock:
            self._undone.difference_update(versions)

    def _sweep(self) -> None:
        with self._lock:
            self._timer = None
        index = self._index
        try:
            index.remove_superseded(GRACE)
            with self._lock:
                index.remove(list(self._undone))
                self._undone.clear()
            unsettled = list(self._unsettled)
            index.settle(unsettled)
            self._unsettled.difference_update(unsettled)
            again = index.has_superseded()
        except LLMBackendError as error:
            self._log(error)
            again = not error.details.get("gone")
        if again:
            self.later()

    def close(self) -> bool:
        """Remove what is superseded, and sweep no more. Returns whether nothing is left for the next opening."""
        with self._lock:
            timer, self._closed = self._timer, True
        if timer is not None:
            timer.cancel()
            try:
                self._index.remove_superseded(0, again=False)
            except LLMBackendError as error:
                self._log(error)
                return False
        return not (self._undone or self._unsettled)

    def _log(self, error: LLMBackendError) -> None:
        log.warning("superseded chunks of %s could not be removed yet: %s", self._index.name, error)
