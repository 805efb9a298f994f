"""Watching jobs: all watchers in a process share one poll of the ledger."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

from ..errors import StreamInterrupted
from ..schemas import JobStatus
from ..storage.database import Database
from ..vitals import Vitals
from . import reading

WATCH_SECONDS = 0.2
"""Seconds between polls."""


class _Watched:
    """A watched job, as of the last poll."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.job: JobStatus | None = None
        self.watchers = 0
        self.changed = asyncio.Event()


class Watching:
    """The jobs that are watched in this process. Used on the core's event loop."""

    def __init__(self, database: Database, keep_days: float, vitals: Vitals) -> None:
        self._database = database
        self._keep_days = keep_days
        self._vitals = vitals
        self._jobs: dict[str, _Watched] = {}
        self._looking: asyncio.Task[None] | None = None
        self._ended = False

    async def changes(self, job_id: str, version: int) -> AsyncGenerator[tuple[int, JobStatus], None]:
        """Yield version and job each time a poll finds a newer version than the last. Raises StreamInterrupted."""
        one = self._jobs.setdefault(job_id, _Watched(version))
        one.watchers += 1
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look())
        try:
            while not self._ended:
                # Watchers may have seen different versions.
                if one.job is not None and one.version > version:
                    version = one.version
                    yield version, one.job
                else:
                    await one.changed.wait()
            raise StreamInterrupted("the server is stopping: watch on when it is back")
        finally:
            one.watchers -= 1
            if not one.watchers:
                del self._jobs[job_id]

    async def _look(self) -> None:
        while self._jobs:
            await asyncio.sleep(WATCH_SECONDS)
            with self._vitals.step("watching of jobs"):
                known = {job_id: one.version for job_id, one in self._jobs.items()}
                for version, job in await self._database.read(reading.changed, known, self._keep_days):
                    if (one := self._jobs.get(job.id)) is not None:
                        one.version, one.job = version, job
                        one.changed.set()
                        one.changed = asyncio.Event()

    def end(self) -> None:
        """End all watches; our client then watches on as soon as another process answers."""
        self._ended = True
        for one in self._jobs.values():
            one.changed.set()

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with suppress(asyncio.CancelledError):
                await self._looking
