"""A worker's attempt at a job, while it runs in this process."""

from __future__ import annotations

import asyncio
import time

from anyio import CancelScope

from ..access.caller import Caller
from ..tracing import Trace
from .context import Context
from .ledger import Claim

TRIAL_SECONDS = 10
"""How long a job whose last attempt was lost runs alone, unless it makes progress: it may kill its process again."""


class Attempt:
    """A job running here. `scope` cancels it at once; `ended` is set once its end is in the ledger."""

    def __init__(self, job: Claim) -> None:
        self.job = job
        self.scope = CancelScope()
        self.ended = asyncio.Event()
        self.context: Context | None = None
        self.caller: Caller | None = None
        self.trace: Trace | None = None
        self.refused = False
        """Whether it was stopped because its key is no longer valid."""
        self.takes_slot = True
        """False once its function has ended: recording the end takes no slot."""
        self._began = time.monotonic()

    def stop(self) -> None:
        """Cancel it, once the replies under way are counted, and ask no more models."""
        if self.trace is None:
            self.scope.cancel()
        else:
            self.trace.leave(self.scope.cancel)

    @property
    def on_trial(self) -> bool:
        """Whether it may have killed the process of its last attempt."""
        proven = self.context is not None and self.context.came_further
        return self.job.tries > 1 and not proven and time.monotonic() - self._began < TRIAL_SECONDS
