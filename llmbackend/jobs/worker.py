"""Jobs from acceptance to their end: the ledger records, the queue wakes, the core's loop does the work."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

from anyio import CancelScope, to_thread

from ..errors import LLMBackendError
from ..schemas import JobProgress, JobStatus, Request
from .ledger import Ledger
from .queue import Queue
from .types import TYPES, Rooms

log = logging.getLogger(__name__)

PROGRESS_SECONDS = 0.2  # between two writes of a job's progress


class Jobs:
    """Accepts jobs and runs them in this process. Made and used on the core's event loop."""

    def __init__(self, ledger: Ledger, rooms: Rooms) -> None:
        self._ledger = ledger
        self._rooms = rooms
        self._queue: Queue | None = None
        self._loop = asyncio.get_running_loop()
        self._running: dict[str, _Attempt] = {}
        self._closing = False

    async def start(self, queue_file: Path, workers: int) -> None:
        """Begin working; jobs that a killed process left are taken up first."""
        waiting = await to_thread.run_sync(self._ledger.recover)
        self._queue = queue = await to_thread.run_sync(Queue, queue_file, workers, self._work)
        for job_id in waiting:
            await to_thread.run_sync(queue.wake, job_id)
        queue.start()

    async def submit(self, job_type: str, params: Request) -> str:
        assert self._queue is not None, "jobs are submitted after start()"
        with CancelScope(shield=True):  # a job in the ledger is also in the queue
            job_id = await to_thread.run_sync(self._ledger.add, job_type, params.model_dump_json())
            await to_thread.run_sync(self._queue.wake, job_id)
        return job_id

    async def status(self, job_id: str) -> JobStatus:
        return await to_thread.run_sync(self._ledger.get, job_id)

    async def list(self, status: str | None, job_type: str | None, limit: int) -> list[JobStatus]:
        return await to_thread.run_sync(self._ledger.list, status, job_type, limit)

    async def cancel(self, job_id: str) -> JobStatus:
        """Stop a job at its next await; one that has ended stays as it is. Raises NotFound."""
        await to_thread.run_sync(self._ledger.cancel, job_id, "queued")
        attempt = self._running.get(job_id)
        if attempt is not None:
            attempt.scope.cancel()
            await attempt.ended.wait()
        return await self.status(job_id)

    async def close(self) -> None:
        """Give running jobs back to the ledger and stop the workers."""
        self._closing = True
        for attempt in self._running.values():
            attempt.scope.cancel()
        if self._queue is not None:
            await to_thread.run_sync(self._queue.stop)

    def _work(self, job_id: str) -> None:
        """In a worker thread: the job runs on the core's loop, and the thread waits for it."""
        if not self._closing:
            asyncio.run_coroutine_threadsafe(self._run(job_id), self._loop).result()

    async def _run(self, job_id: str) -> None:
        if self._closing or job_id in self._running:
            return
        # Known here before it is claimed, so that there is no moment in which it could not be cancelled.
        attempt = self._running[job_id] = _Attempt()
        try:
            claimed = await to_thread.run_sync(self._ledger.claim, job_id)
            if claimed is not None:
                await self._attempt(attempt.scope, job_id, *claimed)
        finally:
            del self._running[job_id]
            attempt.ended.set()

    async def _attempt(self, scope: CancelScope, job_id: str, job_type: str, params: str) -> None:
        progress = _Progress(self._ledger, job_id)
        failure: LLMBackendError | None = None
        try:
            with scope:
                kind = TYPES[job_type]
                given = kind.params.model_validate_json(params)
                result = await kind.run(self._rooms, given, progress)
            await progress.stop()
            if not scope.cancelled_caught:
                await to_thread.run_sync(self._ledger.complete, job_id, result, progress.latest)
        except LLMBackendError as error:
            failure = error
        except Exception:
            log.exception("job %s (%s) failed unexpectedly", job_id, job_type)
            failure = LLMBackendError("the job failed unexpectedly; the log has the details")
        await progress.stop()
        if failure is not None:
            await to_thread.run_sync(self._ledger.fail, job_id, failure.to_dict())
        elif scope.cancelled_caught and self._closing:
            await to_thread.run_sync(self._ledger.requeue, job_id)
        elif scope.cancelled_caught:
            await to_thread.run_sync(self._ledger.cancel, job_id, "running")


class _Attempt:
    """A job while it runs here: `scope` cancels it, `ended` tells that its end is in the ledger."""

    def __init__(self) -> None:
        self.scope = CancelScope()
        self.ended = asyncio.Event()


class _Progress:
    """Keeps the latest progress and writes it now and then, in the background: work never waits for it."""

    def __init__(self, ledger: Ledger, job_id: str) -> None:
        self.latest = JobProgress()
        self._ledger = ledger
        self._job_id = job_id
        self._written = 0.0
        self._writing: asyncio.Task[None] | None = None

    def __call__(self, done: int, total: int, stage: str) -> None:
        new_stage = stage != self.latest.stage
        self.latest = JobProgress(done=done, total=total, stage=stage)
        due = new_stage or time.monotonic() - self._written >= PROGRESS_SECONDS
        if due and (self._writing is None or self._writing.done()):
            self._written = time.monotonic()
            self._writing = asyncio.create_task(self._write(self.latest))

    async def _write(self, progress: JobProgress) -> None:
        await to_thread.run_sync(self._ledger.advance, self._job_id, progress)

    async def stop(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])
