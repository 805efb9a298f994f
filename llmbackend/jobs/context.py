"""What a job's function is given: the services it may use, and its side of progress, checkpoints and results."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from .. import tracing
from ..access.names import QualifiedName
from ..inference.cache import CachedEmbedder
from ..inference.chat import ChatModel
from ..inference.judge import Judge
from ..knowledge.answers.links import Links
from ..knowledge.collections.collections import Collections
from .ledger import Claim
from .results import Chunk, Results

if TYPE_CHECKING:
    from ..backup.making import Backups
    from ..prompts import Prompts
    from ..responses.responder import Responder

PROGRESS_SECONDS = 0.2
"""Seconds between two writes of a job's progress."""
NEWS_SECONDS = 0.05
"""Until a new stage, or first headway, is written: a job that ends sooner is written once, at its end."""

Save = Callable[[dict[str, Any], list[Chunk]], Coroutine[Any, Any, None]]
"""Writes values of the job's row together with chunks of its result."""


Read = Callable[[], Coroutine[Any, Any, list[Any]]]
"""Reads the rows that earlier attempts have stored."""


class Waits(Exception):
    """Raised by a job's function where it waits for somebody's word; `state` is its checkpoint."""

    def __init__(self, state: Any) -> None:
        super().__init__("the job waits for somebody's word")
        self.state = state


@dataclass(frozen=True)
class JobServices:
    """What a job may use."""

    chat: ChatModel
    embedder: CachedEmbedder
    judge: Judge
    collections: Collections
    answer_links: Links
    backups: Backups
    responder: Responder
    prompts: Prompts
    chats_at_once: int
    """Chats, or analyses, that one job has under way (CHATS_AT_ONCE)."""
    agents: Any = None
    """What agents use (AgentServices, of a storey above)."""


class Context:
    """A job at work. Cancelling it cancels the function at its next await, as anyio and asyncio do."""

    def __init__(
        self, job: Claim, services: JobServices, resume: Any, results: Results, save: Save, read: Read
    ) -> None:
        self.job_id = job.id
        self.owner = job.owner
        self.attempt = job.attempts
        """1 for the first."""
        self.services = services
        self.resume = resume
        """What the last attempt saved by `checkpoint`; None if it saved nothing, or there was none."""
        self.results = results
        """Rows of the result, any number: `results.append([…])` or `results.append_vectors(matrix)`."""
        self._save = save
        self._read = read
        self._reached = job.reached
        self._checkpoint = job.checkpoint
        self._began = time.monotonic()
        self._first: int | None = None
        self._state: dict[str, Any] = {}
        self._headway: dict[str, Any] = {}
        self._written = 0.0
        self._writing: asyncio.Task[None] | None = None
        self._to_write: asyncio.TimerHandle | None = None
        self._to_write_at = math.inf

    def collection(self, name: str) -> QualifiedName:
        """What `services.collections` takes, for a name that the params have in `collection`; raises Forbidden."""
        return tracing.current().collection(name)

    def progress(self, done: int, total: int, stage: str = "") -> None:
        """Tell how far the work is. Written now and then, in the background: work never waits for it."""
        if self._first is None:
            self._first = done
        took = time.monotonic() - self._began
        rate = (done - self._first) / took if took > 0 and done > self._first else None
        news = stage != self._state.get("stage")
        if done > self._reached:  # further than any attempt before: this one was not in vain
            news = news or not self._headway
            self._reached = done
            self._headway = {"reached": done, "tries": 0}
        self._state = {"done": done, "total": total, "stage": stage[:64], "rate": rate, **self._headway}
        loop = asyncio.get_running_loop()
        self._write_at(loop.time() + NEWS_SECONDS if news else self._written + PROGRESS_SECONDS)

    def _write_at(self, moment: float) -> None:
        """By the loop's clock, unless a write is due sooner."""
        if moment < self._to_write_at:
            self._forget_to_write()
            self._to_write_at = moment
            self._to_write = asyncio.get_running_loop().call_at(moment, self._write)

    def _write(self) -> None:
        self._forget_to_write()
        moment = asyncio.get_running_loop().time()
        if self._writing is not None and not self._writing.done():
            self._write_at(moment + PROGRESS_SECONDS)
        else:
            self._written = moment
            self._writing = asyncio.create_task(self._save(self._state, []))

    def _forget_to_write(self) -> None:
        if self._to_write is not None:
            self._to_write.cancel()
            self._to_write, self._to_write_at = None, math.inf

    async def checkpoint(self, state: Any) -> None:
        """Save what is done: `state` (JSON, small) is `resume` of a later attempt, rows appended so far are stored."""
        await self.settle()
        saved = json.dumps(state)
        if saved != self._checkpoint:
            self._headway = {"tries": 0, **self._headway}
        self._checkpoint = saved
        values = {**self._state, **self._headway, "checkpoint": saved, **self.counts()}
        await self._save(values, self.results.take())

    async def saved_rows(self) -> list[Any]:
        """The rows of the result that earlier attempts have stored."""
        return await self._read()

    def wait(self, state: Any) -> NoReturn:
        """End this attempt; the job goes on, with `state` as `resume`, once somebody has given their word."""
        raise Waits(state)

    @property
    def came_further(self) -> bool:
        """Whether this attempt has done what none before it had."""
        return bool(self._headway)

    def counts(self) -> dict[str, Any]:
        return {"row_count": self.results.count, "row_bytes": self.results.size}

    @property
    def last_progress(self) -> dict[str, Any]:
        return self._state

    async def settle(self) -> None:
        """Wait until no progress is being written; what went wrong with it will go wrong with the next write, too.

        What was not written yet, nor will be: it is for whoever writes next.
        """
        self._forget_to_write()
        while (writing := self._writing) is not None and not writing.done():
            await asyncio.wait(
                [writing]
            )  # meanwhile, what is worked on at the same time may have begun another
            self._forget_to_write()
        if writing is not None and not writing.cancelled():
            writing.exception()
