"""The jobs service of the core: submit, read, watch, cancel and retry."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

from .. import schemas, sse, threads
from ..access.caller import Caller
from ..access.limits import Most
from ..schemas import JobStatus
from ..storage.database import Database
from ..vitals import Vitals
from . import ledger, reading, results
from .ledger import NewJob
from .watching import Watching
from .webhooks import Deliveries
from .worker import Worker

if TYPE_CHECKING:
    from .wakeups import Wakeups

ANNOUNCE_SECONDS = 0.02
"""Seconds between wake-ups of other processes; each claims as many jobs as it has slots."""


class Jobs:
    """The operations on jobs. Used on the core's event loop.

    `reach` is the project whose jobs a caller may see, or None for all projects.
    """

    def __init__(
        self,
        database: Database,
        queue: Callable[[], Wakeups],
        worker: Worker | None,
        deliveries: Deliveries,
        keep_days: float,
        vitals: Vitals,
        *,
        listens: bool,
    ) -> None:
        """`worker` is this process's own; None if only other processes work.

        `queue` opens the queue through which processes wake each other. Unless this process `listens` from the start,
        it does when it has first woken others.
        """
        self._database = database
        self._open_queue = queue
        self._opening: asyncio.Task[Wakeups] | None = None
        self._listens = listens
        self._worker = worker
        self.deliveries = deliveries
        self._keep_days = keep_days
        self._vitals = vitals
        self._watching = Watching(database, keep_days, vitals)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._newest = ""
        self._announcing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        if self._listens:
            await self._opened()
        if self._worker is not None:
            await self._worker.start()
        self._announcing = asyncio.create_task(self._announce())

    async def close(self) -> None:
        """Hand running jobs back to the ledger, and close the queue."""
        if self._announcing is not None:
            self._announcing.cancel()
            await asyncio.wait([self._announcing])
        await self._watching.close()
        if self._worker is not None:
            await self._worker.close()
        if self._opening is not None:
            await asyncio.wait([self._opening])
            if self._opening.exception() is None:
                await threads.database(self._opening.result().stop)

    async def submit(self, job: NewJob) -> str:
        """Submit a job; return its id once it is stored. Raises what `ledger.add` raises."""
        accepting = self._worker.accept(job) if self._worker is not None else None
        if accepting is not None:
            return (await accepting).added
        adding = self._database.write(ledger.add, job)
        here = self._worker is not None and self._worker.ready
        if here:
            self._tell(job.id)  # now, so that the job is claimed in the transaction that adds it
        job_id, _ = await adding
        if not here:
            self._tell(job_id)
        return job_id

    async def status(self, reach: str | None, job_id: str) -> JobStatus:
        return await self._database.read(reading.status, reach, job_id, self._keep_days)

    async def listed(
        self, reach: str | None, status: str | None, job_type: str | None, limit: int
    ) -> list[JobStatus]:
        return await self._database.read(reading.listed, reach, status, job_type, limit, self._keep_days)

    async def cancel(self, reach: str | None, job_id: str) -> JobStatus:
        """Stop a job at its next await; one that has ended stays as it is. Raises NotFound."""
        await self._database.write(ledger.cancel, reach, job_id)
        job = await self.status(reach, job_id)  # raises NotFound
        attempt = self._worker.attempts.get(job_id) if self._worker is not None else None
        if attempt is not None:  # another process finds out within a second
            attempt.stop()
            await attempt.ended.wait()
            job = await self.status(reach, job_id)
        return job

    async def delete(self, reach: str | None, job_id: str) -> None:
        """Delete a job that has ended. Raises what `results.remove` raises."""
        await self._database.write(results.remove, reach, job_id)

    async def retry(self, caller: Caller, job_id: str, limits: Sequence[Most]) -> JobStatus:
        """Requeue a failed or cancelled job, and return it. Raises what `ledger.retry` raises."""
        await self._database.write(ledger.retry, caller, job_id, limits)
        self._tell(job_id)
        return await self.status(caller.reach, job_id)

    async def answer(
        self, reach: str | None, job_id: str, change: Callable[[dict[str, Any]], None]
    ) -> JobStatus:
        """Let a job that waits for approval continue, and return it. Raises what `ledger.answer` raises."""
        await self._database.write(ledger.answer, reach, job_id, change)
        self._tell(job_id)
        return await self.status(reach, job_id)

    async def rows_from(self, reach: str | None, job_id: str, offset: int) -> list[Any]:
        """A job's rows so far from `offset` on. Raises NotFound."""
        return await self._database.read(reading.rows_from, reach, job_id, offset)

    async def page(
        self, reach: str | None, job_id: str, offset: int, limit: int, *, partial: bool = False
    ) -> tuple[dict[str, Any], int, list[results.Chunk]]:
        """A completed job's result without its rows, the number of rows, and one page of them.

        With `partial`, the job need not be completed. Raises NotFound, Conflict if it is not completed, and
        JobExpired.
        """

        def read(connection: Any) -> tuple[dict[str, Any], int, list[results.Chunk]]:
            row = reading.completed(connection, reach, job_id, self._keep_days, partial=partial)
            chunks = list(results.read(connection, row["number"], offset, limit))
            return json.loads(row["result"] or "{}"), row["row_count"], chunks

        return await self._database.read(read)

    async def result(
        self, reach: str | None, asked: schemas.JobResultRequest
    ) -> schemas.JobResult | schemas.Block:
        """A page of a result; vectors come as a block of bytes if asked for. Raises like `page`."""
        head, total, chunks = await self.page(
            reach, asked.job_id, asked.offset, asked.limit, partial=asked.partial
        )
        if asked.encoding_format == "bytes" and chunks and chunks[0].dimension:
            about = {
                "result": head,
                "offset": asked.offset,
                "total": total,
                "dimension": chunks[0].dimension,
            }
            vectors = b"".join(chunk.data for chunk in chunks)
            return schemas.Block(json.dumps(about).encode() + b"\n" + vectors)
        rows = await threads.processor(results.values, chunks)
        return schemas.JobResult(result=head, offset=asked.offset, total=total, rows=rows)

    async def result_lines(self, reach: str | None, asked: schemas.JobResultRequest) -> AsyncIterator[bytes]:
        """All rows from an offset on, as lines of JSON. Raises like `page`."""
        offset, total = asked.offset, asked.offset + 1
        while offset < total:
            _, total, chunks = await self.page(
                reach, asked.job_id, offset, asked.limit, partial=asked.partial
            )
            yield await threads.processor(results.text, chunks)
            offset += asked.limit

    async def news(self, reach: str | None, asked: schemas.JobEventsRequest) -> schemas.JobEvents:
        """The job, if it has changed since `last_event_id`. Raises NotFound."""
        version, job = await self.look(reach, asked.job_id)
        events = [schemas.JobEvent(id=version, job=job)] if version > asked.last_event_id else []
        return schemas.JobEvents(events=events)

    async def events(self, reach: str | None, asked: schemas.JobEventsRequest) -> AsyncIterator[bytes]:
        """Server-sent events, one for each change of the job. Raises NotFound."""
        await self.look(reach, asked.job_id)
        yield sse.HEARTBEAT  # at once, so that a client that reconnects knows the server is back
        async for version, job in self.watch(reach, asked.job_id, asked.last_event_id):
            yield sse.event({"id": version, "job": job.model_dump()}, version)
        yield sse.DONE

    async def look(self, reach: str | None, job_id: str) -> tuple[int, JobStatus]:
        """The job's version, and the job without its result. Raises NotFound."""
        return await self._database.read(reading.watched, reach, job_id, self._keep_days)

    async def watch(self, reach: str | None, job_id: str, after: int) -> AsyncIterator[tuple[int, JobStatus]]:
        """Yield the job's version, and the job without its result, at each change until it has ended. Raises NotFound."""
        version, job = await self.look(reach, job_id)
        async with aclosing(self._watching.changes(job_id, version)) as changes:
            while True:
                if version > after:
                    after = version
                    yield version, job
                if job.status in ("completed", "failed", "cancelled"):
                    return
                version, job = await anext(changes)

    def end_watches(self) -> None:
        self._watching.end()

    def _tell(self, job_id: str) -> None:
        """Wake this process's worker or, if it is not ready, another process's."""
        if self._worker is not None:
            self._worker.wake()
        if self._worker is None or not self._worker.ready:
            self._newest = job_id
            self._news.set()

    async def _opened(self) -> Wakeups:
        """The queue. Raises BackendError if it cannot be used, and then opens it again when next called."""
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = asyncio.create_task(self._open())
        return await asyncio.shield(self._opening)  # so that `close` finds what is opened

    async def _open(self) -> Wakeups:
        queue = await threads.database(self._open_queue)
        if self._worker is not None:
            await threads.database(queue.listen, self._woken)
        return queue

    async def _announce(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            with self._vitals.step("waking of workers"):  # a lost wake-up only delays: workers poll too
                await threads.database((await self._opened()).wake, self._newest)
            await asyncio.sleep(ANNOUNCE_SECONDS)

    def _woken(self, job_id: str) -> None:
        """Called in the queue's thread. While the worker here is not ready, wake-ups are left to other processes."""
        with suppress(RuntimeError):  # the loop has ended
            asyncio.run_coroutine_threadsafe(self._look_for_work(job_id), self._loop).result()

    async def _look_for_work(self, job_id: str) -> None:
        assert self._worker is not None
        self._worker.wake()
        await asyncio.sleep(ANNOUNCE_SECONDS)
        if not self._worker.ready:
            self._tell(job_id)  # there may be more jobs than slots here
            await self._worker.until_ready()
