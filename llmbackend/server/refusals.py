"""Logs refused requests: who asked for what, from where. If many are alike, some lines and a count are logged."""

from __future__ import annotations

import logging
import time
from collections import Counter
from functools import lru_cache
from urllib.parse import quote

from starlette.types import Scope

from ..access.caller import without_secrets
from ..audit import Audit

log = logging.getLogger("llmbackend.requests")

LINES = 20  # per client and status in a window
WINDOW = 60.0  # seconds
CLIENTS = 1000  # counted separately in a window; the rest are "others"


class Refusals:
    """Counts and logs refusals."""

    def __init__(self, audited: Audit | None = None) -> None:
        """With `audited`, refusals for lack of a key or right are entered in the audit log too."""
        self._audited = audited
        self._seen: Counter[tuple[str, int]] = Counter()
        self._until = 0.0

    def note(self, scope: Scope, status: int) -> None:
        self.summarise()
        address = client(scope)
        key = (address if (address, status) in self._seen or len(self._seen) < CLIENTS else "others", status)
        self._seen[key] += 1
        if self._seen[key] <= LINES:
            log.warning(
                "refused %d caller=%s %s id=%s", status, scope["caller"], origin(scope), scope["request_id"]
            )
            noted = (trace := scope.get("trace")) is not None and trace.target is not None
            if self._audited is not None and status in (401, 403) and not noted:
                caller = scope["caller"]
                self._audited.note(
                    project=caller.project,
                    caller=str(caller),
                    client=address,
                    request_id=scope["request_id"],
                    action="refused",
                    target=f"{scope['method'][:16]} {quote(scope['path'][:200], safe='/:@')}",
                    outcome=str(status),
                )

    def summarise(self) -> None:
        """At a window's end, log how many lines were left out."""
        if (now := time.monotonic()) < self._until:
            return
        for (address, status), count in self._seen.items():
            if count > LINES:
                log.warning(
                    "refused %d client=%s %d times more within a minute", status, address, count - LINES
                )
        self._seen.clear()
        self._until = now + WINDOW


def client(scope: Scope) -> str:
    """The address a request came from, by a trusted proxy's header if there is one."""
    return _quoted((scope.get("client") or ("-",))[0][:64])


@lru_cache(maxsize=CLIENTS)
def _quoted(address: str) -> str:
    return quote(address, safe=":.%")


def origin(scope: Scope) -> str:
    """Where a request came from and what it asks for, URL-quoted so that a caller cannot break the log line."""
    path = without_secrets(scope["path"])
    return f"client={client(scope)} {quote(scope['method'][:16])} {quote(path[:200], safe='/:@')}"
