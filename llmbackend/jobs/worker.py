"""The hands: take up jobs from the ledger, do them on the core's event loop, and look after what others left."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from typing import Any

from anyio import CancelScope
from pydantic import BaseModel
from sqlalchemy import Connection, select

from ..database import Database
from ..errors import LLMBackendError
from . import ledger, results
from .context import Context, Rooms
from .ledger import Claim, Hands, LostAttempt
from .registry import TYPES
from .tables import params as params_table

log = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between two looks at the ledger: for lost wake-ups, jobs whose time has come, cancelled and lost attempts."""


class Attempt:
    """A job at work here: `scope` cancels it, `ended` tells that its end is in the ledger."""

    def __init__(self, job: Claim) -> None:
        self.job = job
        self.scope = CancelScope()
        self.ended = asyncio.Event()


class Worker:
    """Made, used and closed on the core's event loop."""

    def __init__(self, database: Database, rooms: Rooms, hands: Hands, slots: int) -> None:
        self._database = database
        self._rooms = rooms
        self._hands = hands
        self._slots = slots
        self.attempts: dict[str, Attempt] = {}
        """By the job's id."""
        self._at_work: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._last_turn: dict[str, float] = {}
        self._wanted = asyncio.Event()
        self._free = asyncio.Event()
        self._closing = False
        self._beat = time.monotonic()

    async def start(self) -> None:
        """Take up what a dead process of the same name left, then whatever comes."""
        await self._database.write(ledger.recover, self._hands.worker)
        self._free.set()
        self._wanted.set()
        self._loops = [asyncio.create_task(self._take_up()), asyncio.create_task(self._look_around())]

    @property
    def free(self) -> bool:
        """Whether there is a hand free."""
        return len(self.attempts) < self._slots and not self._closing

    def wake(self) -> None:
        """Look for work now."""
        self._wanted.set()

    async def until_free(self) -> None:
        """Wait until work can be taken up, or none will be any more."""
        await self._free.wait()

    async def close(self) -> None:
        """Give back what is at work, to go on from its last checkpoint elsewhere or later."""
        self._closing = True
        self._free.set()
        self._wanted.set()
        for attempt in self.attempts.values():
            attempt.scope.cancel()
        if self._loops:
            self._loops[1].cancel()
            await asyncio.wait(self._loops)  # once no more is begun, ...
        if self._at_work:
            await asyncio.wait(self._at_work)

    async def _take_up(self) -> None:
        while not self._closing:
            await self._wanted.wait()
            self._wanted.clear()
            try:
                while self.free and await self._begin_next():
                    pass
            except Exception:
                log.exception("no job could be taken up")  # the next look around tries again

    async def _begin_next(self) -> bool:
        # Not durable: claimed or not, after a power cut the job is done anew.
        job = await self._database.write(ledger.claim, self._hands, self._last_turn, durable=False)
        if job is None:
            return False
        self._last_turn[job.owner] = time.monotonic()
        attempt = self.attempts[job.id] = Attempt(job)
        if self._closing:
            attempt.scope.cancel()
        task = asyncio.create_task(self._attempt(attempt))
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)
        if not self.free:
            self._free.clear()
        return True

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            await self._do(attempt)
        except LostAttempt:
            log.info("job %s is not this attempt's any more", attempt.job.id)
        except Exception:  # the ledger could not be written: once the lease is over, the job is done anew
            log.exception("the end of job %s was not noted", attempt.job.id)
        finally:
            del self.attempts[attempt.job.id]
            attempt.ended.set()
            self._free.set()
            self._wanted.set()

    async def _do(self, attempt: Attempt) -> None:
        job, write = attempt.job, self._database.write
        ended: Callable[..., None] | None = None
        args: tuple[Any, ...] = ()
        stored = results.Results(job.row_count, job.row_bytes)

        async def save(values: dict[str, Any], chunks: list[results.Chunk]) -> None:
            try:
                await write(_advance, job, values, chunks, durable=False)
            except LostAttempt:
                attempt.scope.cancel()
                raise

        resume = json.loads(job.checkpoint) if job.checkpoint else None
        context = Context(job.id, job.owner, job.attempts, self._rooms, resume, stored, save)
        try:
            with attempt.scope:
                kind = TYPES[job.type]
                given = await self._database.read(_params, job.number, kind.params)
                result = await kind.run(context, given)
                await context.settle()
                json.dumps(result)
                values = {**context.last_progress, **context.counts()}
                ended, args = _complete, (job, result or {}, values, stored.take())
        except LostAttempt:
            raise
        except LLMBackendError as error:
            ended, args = ledger.fail, (job, error)
        except Exception as error:
            told = _only(error)
            if told is None:
                log.exception("job %s (%s) failed unexpectedly", job.id, job.type)
                told = LLMBackendError(
                    f"the job failed unexpectedly ({type(error).__name__}); the log has the details"
                )
            ended, args = ledger.fail, (job, told)
        if ended is None and self._closing:
            ended, args = ledger.hand_back, (job,)
        await context.settle()
        if ended is not None:  # else it was cancelled, or lost: the ledger knows
            await write(ended, *args)

    async def _look_around(self) -> None:
        while not self._closing:
            await asyncio.sleep(TICK)
            try:
                await self._look()
            except Exception:
                log.exception("the ledger could not be read")

    async def _look(self) -> None:
        read, write = self._database.read, self._database.write
        tokens = {attempt.job.token: attempt for attempt in self.attempts.values()}
        if tokens:
            if time.monotonic() - self._beat >= self._hands.lease / 3:
                self._beat = time.monotonic()
                await write(ledger.extend, list(tokens), self._hands.lease, durable=False)
            for token in tokens.keys() - await read(ledger.alive, list(tokens)):
                tokens[token].scope.cancel()
        if await read(ledger.expired):
            await write(ledger.reap)
        if self.free and await read(ledger.runnable, self._hands):
            self._wanted.set()


def _params(connection: Connection, number: int, model: type[BaseModel]) -> BaseModel:
    text = connection.execute(select(params_table.c.params).where(params_table.c.job == number)).scalar_one()
    return model.model_validate_json(text)


def _advance(connection: Connection, job: Claim, values: dict[str, Any], chunks: list[results.Chunk]) -> None:
    ledger.advance(connection, job, values)
    results.store(connection, job.number, chunks)


def _complete(
    connection: Connection, job: Claim, result: Any, values: dict[str, Any], chunks: list[results.Chunk]
) -> None:
    ledger.complete(connection, job, result, values)
    results.store(connection, job.number, chunks)


def _only(error: Exception) -> LLMBackendError | None:
    """Of a task group's errors, the one of ours, if there is no other."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, LLMBackendError) else None
