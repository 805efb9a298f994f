"""The worker loop: claims jobs and recovers lost ones. runner.py runs them."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy import Connection

from .. import threads
from ..clock import CLOCK_SECONDS, ClockWatch, now
from ..disk import Disk
from ..storage.database import Database
from ..vitals import Vitals
from . import leases, ledger, reading, results, schedules, webhooks
from .attempt import Attempt
from .leases import Claimed, WorkerCapacity
from .ledger import LostAttempt, NewJob
from .registry import TYPES
from .runner import Runner
from .tables import reckon_anew
from .webhooks import Deliveries

log = logging.getLogger(__name__)

TICK = 0.5
"""Seconds between polls of the ledger, for lost wake-ups, jobs that are due, and cancelled or lost attempts."""
EXPIRE_SECONDS = 600
"""Seconds between two removals of expired results and old jobs."""


class State(Enum):
    """Whether a worker takes jobs, and if not, why."""

    READY = "a slot is free"
    FULL = "every slot has a job"
    TRIAL = "a job that may have killed its last process runs alone"
    NO_ROOM = "the ledger's disk is full"
    CLOSING = "it is handing its jobs back"


class Worker:
    """Claims jobs as long as slots are free, and polls the ledger. Used and closed on the core's event loop."""

    def __init__(
        self,
        database: Database,
        runner: Runner,
        capacity: WorkerCapacity,
        slots: int,
        deliveries: Deliveries,
        limits: schedules.Limits,
        keep_days: float,
        remember_days: float,
        disk: Disk | None,
        vitals: Vitals,
    ) -> None:
        """`limits` returns the limits for jobs of schedules. Results are kept for `keep_days`, ended jobs for
        `remember_days`.

        `disk` is the ledger's, if it is a file on this machine: while it is full, no job is started.
        """
        self._database = database
        self._runner = runner
        self._disk = disk
        self._no_room: str | None = None
        self._vitals = vitals
        self._limits = limits
        self._context = contextvars.copy_context()
        self._capacity = capacity
        self._slots = slots
        self._deliveries = deliveries
        self._keep_days = keep_days
        self._remember_days = remember_days
        self._delivering: asyncio.Task[None] | None = None
        self.attempts: dict[str, Attempt] = {}
        """The attempts running here, by their jobs' ids."""
        self._at_work: set[asyncio.Task[None]] = set()
        self._loops: list[asyncio.Task[None]] = []
        self._last_turn: dict[str, float] = {}
        self._closing = False
        self._reserved = 0  # slots for which the ledger is being asked for jobs
        self._jobs_wait = asyncio.Event()  # set if there may be jobs to claim
        self._ready = asyncio.Event()  # set if the state was READY when last noted
        self._beat = time.monotonic()
        self._expired = -math.inf
        self._clock = ClockWatch()
        self._reckoned = False  # whether all stored times agree with the present clock

    async def start(self) -> None:
        """Recover the jobs of a dead process on the same data directory, then begin to claim jobs."""
        self._look_for_room()
        await self._database.write(leases.recover, self._capacity.worker)
        self._note_state()
        self.wake()
        self._loops = [asyncio.create_task(self._take_up()), asyncio.create_task(self._look_around())]

    @property
    def state(self) -> State:
        if self._closing:
            return State.CLOSING
        if self._no_room is not None:
            return State.NO_ROOM
        if any(attempt.on_trial for attempt in self.attempts.values()):
            return State.TRIAL
        return State.READY if self._free_slots > 0 else State.FULL

    @property
    def ready(self) -> bool:
        """Whether it would claim a job now."""
        return self.state is State.READY

    @property
    def _free_slots(self) -> int:
        return self._slots - self._reserved - sum(attempt.takes_slot for attempt in self.attempts.values())

    def wake(self) -> None:
        """Look for jobs as soon as the worker is ready."""
        self._jobs_wait.set()

    def accept(self, job: NewJob) -> asyncio.Future[Claimed] | None:
        """Add and claim a job in one commit, and start it; return None if it must wait for its turn."""
        waits = (
            self._jobs_wait.is_set()
            or self._capacity.per_owner is not None
            or job.depends_on
            or job.run_at > now()
        )
        return None if waits or not self.ready else self._begin(1, leases.accept, job, self._capacity)

    async def until_ready(self) -> None:
        """Wait until jobs can be claimed, or the worker closes."""
        await self._ready.wait()

    async def close(self) -> None:
        """Hand running jobs back, to continue elsewhere or later from their last checkpoint."""
        self._closing = True
        self._ready.set()
        self.wake()
        for attempt in self.attempts.values():
            attempt.scope.cancel()
        if self._loops:
            self._loops[1].cancel()
            await asyncio.wait(self._loops)  # no more jobs begin after this
        if self._delivering is not None:
            self._delivering.cancel()  # deliveries become due again soon
            await asyncio.wait([self._delivering])
        await self._deliveries.close()
        while self._at_work:
            await asyncio.wait(self._at_work)

    async def _take_up(self) -> None:
        while True:
            await self._jobs_wait.wait()
            await self._ready.wait()
            if self._closing:
                return
            if not self.ready:  # a job was accepted for the slot meanwhile
                continue
            self._jobs_wait.clear()  # before asking the ledger, so that a later submission sets it again
            with self._vitals.step("claiming of jobs"):  # if it fails, the next poll tries again
                capacity = self._capacity_now()
                # Not durable: after a power cut a job runs again anyway, claimed or not.
                claimed = await self._begin(
                    capacity.free, leases.claim, capacity, self._last_turn, durable=False
                )
                if len(claimed.claims) == capacity.free:
                    self.wake()  # there may be more

    def _capacity_now(self) -> WorkerCapacity:
        alone = not self.attempts and not self._reserved
        return replace(self._capacity, free=self._free_slots, alone=alone)

    def _begin(
        self, slots: int, ask: Callable[..., Claimed], *args: Any, durable: bool = True
    ) -> asyncio.Future[Claimed]:
        """Reserve slots, ask the ledger for jobs and start those that it gives: the only way for a job to start.

        Returns what it gives. They start even if whoever awaits that is cancelled.
        """
        self._reserved += slots  # before awaiting, so that nobody else gets them
        self._note_state()
        asked = self._database.write(ask, *args, durable=durable)
        self._start(self._begun(slots, asked))
        return asyncio.shield(asked)

    async def _begun(self, slots: int, asked: asyncio.Future[Claimed]) -> None:
        attempts = []
        with suppress(Exception):  # whoever asked is told
            attempts = [Attempt(job) for job in (await asked).claims]
        for attempt in attempts:
            self.attempts[attempt.job.id] = attempt
            self._last_turn[attempt.job.owner] = time.monotonic()
            if self._closing:
                attempt.scope.cancel()
        self._reserved -= slots
        self._note_state()
        for attempt in attempts[1:]:
            self._start(self._attempt(attempt))
        if attempts:  # most often there is one, which needs no task of its own
            await self._attempt(attempts[0])

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # In the worker's context, because a job is not part of the call that submitted it.
        task = asyncio.create_task(work, context=self._context.copy())
        self._at_work.add(task)
        task.add_done_callback(self._at_work.discard)

    def _note_state(self) -> None:
        """Called when the state may have changed; the end of a trial is noticed by the next poll."""
        if self.ready or self._closing:
            self._ready.set()
        else:
            self._ready.clear()

    async def _attempt(self, attempt: Attempt) -> None:
        try:
            end = await self._runner.run(attempt)
            if end is None and self._closing:
                end = ledger.hand_back, attempt.job
            # The next job can be claimed in the same transaction.
            noting = self._database.write(*end, patient=True) if end is not None else None
            self._free_slot(attempt)
            if noting is not None:  # else it was cancelled or lost, which the ledger knows
                await noting
        except LostAttempt:
            log.info("job %s no longer belongs to this attempt", attempt.job.id)
        except Exception:  # the ledger could not be written: when the lease expires, the job runs again
            log.exception("the end of job %s could not be recorded", attempt.job.id)
        finally:
            await self._runner.tidy(TYPES[attempt.job.type])
            if self.attempts.get(attempt.job.id) is attempt:
                del self.attempts[attempt.job.id]
            attempt.ended.set()

    def _free_slot(self, attempt: Attempt) -> None:
        attempt.takes_slot = False
        if self._capacity.per_owner is not None:
            self.wake()  # its owner may have been at the limit
        self._note_state()

    def _look_for_room(self) -> None:
        problem = self._disk.problem if self._disk is not None else None
        if (problem is None) != (self._no_room is None):
            log.warning("jobs %s", "go on: there is room again" if problem is None else f"wait: {problem}")
        self._no_room = problem
        self._note_state()

    async def _look_around(self) -> None:
        while not self._closing:
            await asyncio.sleep(TICK)
            with self._vitals.step("look at jobs"):
                await self._look()

    async def _look(self) -> None:
        """Poll the ledger. Steps are independent, so that one that fails does not hold up the others."""
        self._look_for_room()
        write, step = self._database.write, self._vitals.step
        tokens = {attempt.job.token: attempt for attempt in self.attempts.values()}
        moved = self._clock.moved()
        if tokens and (
            abs(moved) > CLOCK_SECONDS or time.monotonic() - self._beat >= self._capacity.lease / 3
        ):
            with step("heartbeats of jobs"):
                await write(leases.extend, list(tokens), self._capacity.lease, durable=False)
                self._beat = time.monotonic()
        self._reckoned = self._reckoned and moved > -CLOCK_SECONDS
        if not self._reckoned:  # otherwise due times would come as much late as the clock went back
            with step("times after a clock that went back"):
                await write(reckon_anew)
                self._reckoned = True
        sight = await self._database.read(_seen, list(tokens), self._capacity_now(), waits=threads.heartbeats)
        for token in tokens.keys() - sight.alive:
            tokens[token].stop()
        with step("keys of jobs"):
            await self._runner.stop_refused(self.attempts.values())
        if sight.expired:
            with step("lost jobs"):
                await write(leases.reap)
        if sight.scheduled:
            with step("schedules"):
                ends = time.monotonic() + TICK
                while await write(schedules.submit_due, self._limits) and time.monotonic() < ends:
                    pass
        if sight.deliverable and (self._delivering is None or self._delivering.done()):
            self._delivering = asyncio.create_task(self._deliver())
        if time.monotonic() - self._expired >= EXPIRE_SECONDS:
            self._expired = time.monotonic()
            with step("removal of old results"):
                for remove, days in (
                    (results.expire, self._keep_days),
                    (results.forget, self._remember_days),
                ):
                    while await write(remove, reading.oldest(days), durable=False):
                        pass
            for kind in TYPES.values():
                await self._runner.tidy(kind)
        if sight.runnable or sight.scheduled:
            self.wake()
        if sight.runnable and self.state is State.FULL:
            with step("jobs of those who have none at work"):
                await self._serve_idle_owners()
        self._note_state()

    async def _serve_idle_owners(self) -> None:
        """With all slots taken, perhaps for hours, start a job for each owner without a running one, up to twice the slots."""
        if (room := self._slots + self._free_slots) > 0:
            capacity = replace(self._capacity_now(), free=room, idle_owners=True)
            await self._begin(room, leases.claim, capacity, self._last_turn, durable=False)

    async def _deliver(self) -> None:
        try:
            await self._deliveries.deliver_due()
            self._vitals.well("webhooks")
        except Exception as error:
            self._vitals.failed("webhooks", error)


class LedgerStatus(NamedTuple):
    """What a poll of the ledger found to do."""

    alive: set[str]
    expired: bool
    runnable: bool
    scheduled: bool
    deliverable: bool


def _seen(connection: Connection, tokens: list[str], capacity: WorkerCapacity) -> LedgerStatus:
    return LedgerStatus(
        alive=leases.alive(connection, tokens) if tokens else set(),
        expired=leases.expired(connection),
        runnable=leases.runnable(connection, capacity),
        scheduled=schedules.any_due(connection),
        deliverable=webhooks.any_due(connection),
    )
