"""Submitting jobs: checks params, limits and disk space, and decides where a job may run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .. import json_writing, schemas, threads, tracing
from ..access.caller import Caller
from ..access.limits import Limiter
from ..access.room import Rooms
from ..disk import SMALL, Disk
from . import registry, webhooks
from .context import JobServices
from .ledger import NewJob, fingerprint
from .registry import Where
from .service import Jobs


@dataclass(frozen=True, slots=True)
class Places:
    """Where jobs can run; those that need files of a data directory run in the process that holds it."""

    data_dir: str
    shared_collections: bool
    """Whether collections are on a Qdrant server, which other processes reach too."""

    def of(self, where: Where) -> str:
        """The place that a job is bound to; empty if it may run anywhere."""
        if where == "anywhere":
            return ""
        return "qdrant" if where == "collections" and self.shared_collections else self.data_dir

    @property
    def here(self) -> tuple[str, ...]:
        """The places whose jobs this process can run."""
        return ("", self.data_dir, self.of("collections"))


class Submission:
    """Checks and submits jobs for callers."""

    def __init__(
        self,
        jobs: Jobs,
        services: JobServices,
        places: Places,
        limiter: Limiter,
        rooms: Rooms,
        disk: Disk | None,
        *,
        private: bool,
    ) -> None:
        """`disk` is the ledger's, if it is a file on this machine; `private` allows webhooks to non-public
        addresses."""
        self._jobs = jobs
        self._services = services
        self._places = places
        self._limiter = limiter
        self._rooms = rooms
        self._disk = disk
        self._private = private

    async def submit(self, caller: Caller, asked: schemas.SubmitJobRequest) -> schemas.JobId:
        """Submit a job. Raises InvalidRequest, Overloaded at a limit of jobs or bytes, and like `new` and
        `Jobs.submit`."""
        if asked.webhook is not None:
            webhooks.check(asked.webhook, self._jobs.deliveries.secret, self._private)
        job = await self.new(
            caller,
            asked.job_type,
            asked.params,
            asked.priority,
            run_at=asked.moment,
            depends_on=asked.depends_on or (),
            idempotency_key=asked.idempotency_key,
            webhook=asked.webhook,
            most=self._limiter.of_jobs(caller),
            room=await self._rooms.of(caller),
        )
        if job.idempotency_key is not None:
            told = await threads.by_length(len(job.params), fingerprint, job)
            job = replace(job, fingerprint=told)
        with self._limiter.noting(caller):
            return schemas.JobId(id=await self._jobs.submit(job))

    async def begin(self, job_type: str, params: dict[str, Any]) -> str:
        """Submit a job on behalf of another operation of the same caller; return its id. Raises like `submit`."""
        request = schemas.SubmitJobRequest(job_type=job_type, params=params)
        return (await self.submit(tracing.current().caller, request)).id

    async def retry(self, caller: Caller, job_id: str) -> schemas.JobStatus:
        """Retry a job. Raises Overloaded at the limit of jobs, and like `Jobs.retry`."""
        with self._limiter.noting(caller):
            return await self._jobs.retry(caller, job_id, self._limiter.of_jobs(caller))

    async def new(
        self, caller: Caller, job_type: str, params: dict[str, Any], priority: int, **more: Any
    ) -> NewJob:
        """Make a valid job, with `more` fields, without submitting it. Raises InvalidRequest, and InsufficientStorage if
        its params do not fit."""
        check = partial(registry.checked, job_type, params, self._services)
        large = json_writing.is_large(params)  # checking it would block the event loop
        kind, valid = await threads.processor(check) if large else check()
        if self._disk is not None:
            self._disk.require(SMALL + 2 * len(valid))
        return NewJob(
            type=kind.name,
            params=valid,
            owner=caller.project,
            key=caller.key,
            place=self._places.of(kind.where),
            priority=priority,
            **more,
        )
