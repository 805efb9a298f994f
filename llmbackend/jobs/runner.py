"""Running an attempt at a job: with the rights of its key, within its project's limits, until its end is recorded."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pydantic import BaseModel

from .. import panics, threads
from ..access.decision import ended
from ..access.limits import Limiter
from ..access.register import Register
from ..access.room import Rooms
from ..clock import now
from ..disk import Disk
from ..errors import BackendError, InsufficientStorage, LLMBackendError
from ..inference.budget import in_bulk
from ..storage.database import Database
from ..tracing import Trace, tracing
from ..usage import Meter
from . import ledger, reading, results
from .attempt import Attempt
from .context import Context, JobServices, Waits
from .ledger import LostAttempt
from .registry import TYPES, JobType, access_needed, parsed

log = logging.getLogger(__name__)

ROOM_SECONDS = 5
"""Seconds until a job that waits for disk space or tokens is tried again."""
FREE = 1024
"""Results of up to this many bytes are not limited: they only tell what a job did elsewhere."""


class _NoTokens(Exception):
    """The job's key has used its tokens for now."""


class Runner:
    """Runs attempts. Used on the core's event loop."""

    def __init__(
        self,
        database: Database,
        services: JobServices,
        register: Register,
        disk: Disk | None,
        meter: Meter,
        limiter: Limiter,
        rooms: Rooms,
    ) -> None:
        """`disk` is the ledger's, if that is a file on this machine."""
        self._database = database
        self._services = services
        self._register = register
        self._disk = disk
        self._meter = meter
        self._limiter = limiter
        self._rooms = rooms

    async def run(self, attempt: Attempt) -> tuple[Any, ...] | None:
        """Run the job; return the arguments of the `Database.write` that records its end.

        Returns None if it was cancelled, lost, or is to be handed back.
        """
        job = attempt.job
        rows = results.Results(job.row_count, job.row_bytes)

        async def save(values: dict[str, Any], chunks: list[results.Chunk]) -> None:
            await self._require_room(attempt, chunks)
            try:
                await self._database.write(results.advance, job, values, chunks, durable=False)
            except LostAttempt:
                attempt.stop()

        async def read() -> list[Any]:
            return await self._database.read(results.stored, job.number)

        context = attempt.context = Context(job, self._services, None, rows, save, read)
        end: tuple[Any, ...] | None = None
        try:
            with panics.caught(), attempt.scope:
                context.resume = json.loads(job.checkpoint) if job.checkpoint else None
                kind = TYPES[job.type]
                given = await threads.by_length(len(job.params), parsed, kind, job.params)
                # Its requests to models count for its owner, and yield to interactive ones.
                trace = await self._permitted(attempt, kind, given)
                with self._counted(trace), tracing(trace), in_bulk():
                    result = await _result(kind, context, given)
                await context.settle()
                chunks = rows.take()
                await self._require_room(attempt, chunks, result)
                end = results.complete, job, result, {**context.whole_progress, **context.counts()}, chunks
        except Exception as error:
            if isinstance(error, Waits):
                await context.settle()
                return ledger.put_aside, job, json.dumps(error.state)
            failure = _only(error)
            waits = isinstance(error, _NoTokens)
            if waits or isinstance(failure, InsufficientStorage):
                log.warning("job %s (%s) waits: %s", job.id, job.type, error)
                moment = now()
                waiting = {
                    "stage": "waits for tokens" if waits else "waits for disk space",
                    "run_at": moment + ROOM_SECONDS,
                    "reckoned_at": moment,
                }
                await context.settle()
                return ledger.hand_back, job, waiting
            if failure is None:
                log.exception("job %s (%s) failed unexpectedly", job.id, job.type)
                failure = LLMBackendError(
                    f"the job failed unexpectedly ({type(error).__name__}); the log has the details"
                )
            end = ledger.fail, job, failure
        if end is None and attempt.refused:
            end = ledger.fail, job, ended()
        await context.settle()
        return end

    async def _permitted(self, attempt: Attempt, kind: JobType, params: BaseModel) -> Trace:
        """A trace with the present rights of the job's key. Raises Unauthorized, Forbidden, NotFound."""
        job = attempt.job
        caller = attempt.caller = await self._register.caller_of(job.owner, job.key)
        granted = await self._register.permit(caller, access_needed(kind, vars(params)))
        if (seconds := await self._limiter.wait(caller)) is not None:
            raise _NoTokens(f"its key or project has no tokens left for {seconds:.0f} s")
        trace = attempt.trace = Trace(job.type, caller=caller, granted=granted)
        trace.prompts = self._services.prompts
        return trace

    @contextmanager
    def _counted(self, trace: Trace) -> Iterator[None]:
        """Count the attempt as a request of its owner."""
        trace.meter = self._meter
        trace.begin()
        outcome = "left"  # cancelled, or handed back
        try:
            yield
            outcome = "ok"
        except Waits:
            raise
        except Exception:
            outcome = "failed"
            raise
        finally:
            trace.finish(outcome)

    async def _require_room(self, attempt: Attempt, chunks: list[results.Chunk], result: str = "") -> None:
        """Raise InsufficientStorage if a result's rows do not fit on the disk, Overloaded if the project's
        limit is reached."""
        more = sum(len(chunk.data) for chunk in chunks)
        if chunks and self._disk is not None:
            self._disk.require(2 * more)  # twice, because the database's log has them too
        if attempt.caller is not None and more + len(result) > FREE:
            await self._rooms.require(attempt.caller, more + len(result))

    async def stop_refused(self, attempts: Iterable[Attempt]) -> None:
        """Cancel attempts whose key was revoked or has expired."""
        watched = [it for it in attempts if it.caller is not None and it.caller.standing.watched]
        if watched:
            await self._register.fresh()
        for attempt in watched:
            if attempt.caller is not None and attempt.caller.standing.ended:
                attempt.refused = True
                attempt.stop()

    async def tidy(self, kind: JobType) -> None:
        """Remove leftovers of jobs of this type that will not continue."""
        if kind.tidy is not None:
            try:
                await kind.tidy(self._services, partial(self._database.read, reading.unfinished))
            except Exception:
                log.exception("what %s jobs left could not be removed", kind.name)


async def _result(kind: JobType, context: Context, params: BaseModel) -> str:
    """What the job's function returns, as JSON. Raises BackendError for an exception in a project's own one."""
    try:
        result = await kind.work(context, params)
        if kind.by is not None and not isinstance(result, dict | None):
            raise TypeError(f"it returned {type(result).__name__}, where a dict is wanted")
        return json.dumps(result or {})
    except Exception as error:
        if kind.by is None or isinstance(error, Waits) or _only(error) is not None:
            raise
        log.warning("the job type %r (%s) failed", kind.name, kind.by, exc_info=error)
        raise BackendError(
            f"the job type {kind.name!r} ({kind.by}) failed: {type(error).__name__}: {error}",
            details={"backend": "plugin", "job_type": kind.name},
        ) from error


def _only(error: Exception) -> LLMBackendError | None:
    """The error itself, or the only one in an exception group, if it is one of ours; else None."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, LLMBackendError) else None
