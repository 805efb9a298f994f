"""The context of a job's function: the services it may use, progress, checkpoints and results."""

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
from ..answers.links import Links
from ..inference.cached_embedder import CachedEmbedder
from ..inference.chat import ChatModel
from ..inference.judge import Judge
from ..knowledge.collections.collections import Collections
from .ledger import Claim
from .results import Chunk, Results

if TYPE_CHECKING:
    from ..backup.making import Backups
    from ..prompts import Prompts
    from ..responses.responder import Responder

PROGRESS_SECONDS = 0.2
"""Seconds between writes of a job's progress."""
NEWS_SECONDS = 0.05
"""Seconds until a new stage or the first progress is written, so that a shorter job is written only at its end."""

Save = Callable[[dict[str, Any], list[Chunk]], Coroutine[Any, Any, None]]
"""Writes values of the job's row and chunks of its result in one transaction."""


Read = Callable[[], Coroutine[Any, Any, list[Any]]]
"""Reads the rows that earlier attempts have stored."""


class Waits(Exception):
    """Raised by a job's function to wait for approval; `state` is its checkpoint."""

    def __init__(self, state: Any) -> None:
        super().__init__("the job waits for approval")
        self.state = state


@dataclass(frozen=True)
class JobServices:
    """The services that a job may use."""

    chat: ChatModel
    embedder: CachedEmbedder
    judge: Judge
    collections: Collections
    answer_links: Links
    backups: Backups
    responder: Responder
    prompts: Prompts
    chats_at_once: int
    """Chats or analyses that one job runs at once (CHATS_AT_ONCE)."""
    agents: Any = None
    """AgentServices, typed Any because agents/ is above jobs/."""


class Context:
    """What the function of a running job is given. Cancelling the job cancels the function at its next await.

    async def run(context, params):
        for number, text in enumerate(params.texts):
            context.results.append([work(text)])
            context.progress(number + 1, len(params.texts))
            await context.checkpoint({"done": number + 1})
        return {"count": context.results.count}
    """

    def __init__(
        self, job: Claim, services: JobServices, resume: Any, results: Results, save: Save, read: Read
    ) -> None:
        self.job_id = job.id
        self.owner = job.owner
        self.attempt = job.attempts
        """1 for the first."""
        self.services = services
        self.resume = resume
        """The state that an earlier attempt saved by `checkpoint`; None if there is none."""
        self.results = results
        """The result's rows, any number of them: `results.append([…])` or `results.append_vectors(matrix)`."""
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
        """The qualified name of a collection named in the params, for `services.collections`. Raises Forbidden."""
        return tracing.current().collection(name)

    def progress(self, done: int, total: int, stage: str = "") -> None:
        """Report progress. It is written in the background from time to time, so calling this is cheap."""
        if self._first is None:
            self._first = done
        took = time.monotonic() - self._began
        rate = (done - self._first) / took if took > 0 and done > self._first else None
        news = stage != self._state.get("stage")
        if done > self._reached:  # further than any earlier attempt, so the count of tries starts again
            news = news or not self._headway
            self._reached = done
            self._headway = {"reached": done, "tries": 0}
        self._state = {"done": done, "total": total, "stage": stage[:64], "rate": rate, **self._headway}
        loop = asyncio.get_running_loop()
        self._write_at(loop.time() + NEWS_SECONDS if news else self._written + PROGRESS_SECONDS)

    def _write_at(self, moment: float) -> None:
        """Schedule a write for a moment of the loop's clock, unless one is due sooner."""
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
        """Store the rows appended so far, and `state` (small JSON), which a later attempt gets as `resume`."""
        await self.settle()
        saved = json.dumps(state)
        if saved != self._checkpoint:
            self._headway = {"tries": 0, **self._headway}
        self._checkpoint = saved
        values = {**self._state, **self._headway, "checkpoint": saved, **self.counts()}
        await self._save(values, self.results.take())

    async def saved_rows(self) -> list[Any]:
        """The result's rows stored so far by earlier attempts."""
        return await self._read()

    def wait(self, state: Any) -> NoReturn:
        """End this attempt to wait for approval; afterwards the job continues with `state` as `resume`."""
        raise Waits(state)

    @property
    def came_further(self) -> bool:
        """Whether this attempt has got further than any before it."""
        return bool(self._headway)

    def counts(self) -> dict[str, Any]:
        return {"row_count": self.results.count, "row_bytes": self.results.size}

    @property
    def whole_progress(self) -> dict[str, Any]:
        """The last progress, as of a job that has completed: everything is done."""
        return {**self._state, "done": self._state["total"]} if self._state else {}

    async def settle(self) -> None:
        """Wait for a write of progress in flight, and drop a scheduled one: the caller writes the final state next.

        Errors are ignored, because the caller's own write would meet them again.
        """
        self._forget_to_write()
        while (writing := self._writing) is not None and not writing.done():
            await asyncio.wait([writing])  # a concurrent part of the job may have started another meanwhile
            self._forget_to_write()
        if writing is not None and not writing.cancelled():
            writing.exception()


class BlockingContext:
    """What a plain function (`def`) of a running job is given: a Context whose methods wait instead of being awaited.

    Cancelling the job ends the function at its next call of one of these. Models and collections (`services`) need an
    `async def`.
    """

    def __init__(self, context: Context, loop: asyncio.AbstractEventLoop) -> None:
        self.job_id, self.owner, self.attempt = context.job_id, context.owner, context.attempt
        self.resume = context.resume
        self.results = context.results
        self.collection = context.collection
        self._context = context
        self._loop = loop
        self._ended = False

    def close(self) -> None:
        """End the function at its next call, if it still runs: its attempt has ended."""
        self._ended = True

    def progress(self, done: int, total: int, stage: str = "") -> None:
        """Report progress, as `Context.progress` does."""
        self._go_on()
        self._loop.call_soon_threadsafe(self._context.progress, done, total, stage)

    def checkpoint(self, state: Any) -> None:
        """Store the rows appended so far, and `state`, as `Context.checkpoint` does."""
        self._done(self._context.checkpoint(state))

    def saved_rows(self) -> list[Any]:
        """The result's rows stored so far by earlier attempts."""
        rows: list[Any] = self._done(self._context.saved_rows())
        return rows

    def _done(self, work: Coroutine[Any, Any, Any]) -> Any:
        try:
            self._go_on()
        except BaseException:
            work.close()
            raise
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _go_on(self) -> None:
        if self._ended:
            raise asyncio.CancelledError  # no Exception, so that `except Exception` does not hold it up
