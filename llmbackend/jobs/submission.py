"""Turns a request into a job that can be accepted: checks its params, limits and disk space, and gives it a place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from .. import schemas, threads, tracing
from ..access.caller import Caller
from ..access.limits import Limiter
from ..disk import SMALL, Disk
from . import registry, webhooks
from .context import JobServices
from .ledger import NewJob
from .registry import Where
from .service import Jobs


@dataclass(frozen=True, slots=True)
class Places:
    """Where jobs can run: those that need files of a data directory run in the process that holds it."""

    data_dir: str
    shared_collections: bool
    """Whether collections are on a server, which other processes reach too."""

    def of(self, where: Where) -> str:
        """The place that a kind of job is bound to; empty for any."""
        if where == "anywhere":
            return ""
        return "qdrant" if where == "collections" and self.shared_collections else self.data_dir

    @property
    def here(self) -> Sequence[str]:
        """Those whose jobs this process can do."""
        return ("", self.data_dir, self.of("collections"))


class Submission:
    def __init__(
        self,
        jobs: Jobs,
        services: JobServices,
        places: Places,
        limiter: Limiter,
        disk: Disk | None,
        *,
        private: bool,
    ) -> None:
        """`disk` is what the ledger is on, if it is here; `private` allows webhooks to addresses that are not public."""
        self._jobs = jobs
        self._services = services
        self._places = places
        self._limiter = limiter
        self._disk = disk
        self._private = private

    async def submit(self, caller: Caller, asked: schemas.SubmitJobRequest) -> schemas.JobId:
        """Raises InvalidRequest, Overloaded if its key or project has as many jobs as it may, and as `new` and `Jobs.submit`."""
        if asked.webhook is not None:
            webhooks.check(asked.webhook, self._jobs.deliveries.secret, self._private)
        job = replace(
            await self.new(caller, asked.job_type, asked.params, asked.priority),
            run_at=asked.moment,
            depends_on=asked.depends_on or (),
            idempotency_key=asked.idempotency_key,
            webhook=asked.webhook,
            most=self._limiter.of_jobs(caller),
        )
        with self._limiter.noting(caller):
            return schemas.JobId(id=await self._jobs.submit(job))

    async def begin(self, job_type: str, params: dict[str, Any]) -> str:
        """Submit a job of the caller's that another operation goes on with; its id. Raises as `submit`."""
        request = schemas.SubmitJobRequest(job_type=job_type, params=params)
        return (await self.submit(tracing.current().caller, request)).id

    async def retry(self, caller: Caller, job_id: str) -> schemas.JobStatus:
        """As `Jobs.retry`; raises Overloaded, as `submit`."""
        with self._limiter.noting(caller):
            return await self._jobs.retry(caller, job_id, self._limiter.of_jobs(caller))

    async def new(self, caller: Caller, job_type: str, params: dict[str, Any], priority: int) -> NewJob:
        """Raises InvalidRequest for params that do not fit, InsufficientStorage if there is no room to keep them."""
        check = partial(registry.checked, job_type, params, self._services)
        large = any(isinstance(value, list) and len(value) > 1000 for value in params.values())
        kind, valid = await threads.processor(check) if large else check()  # would hold up the loop
        if self._disk is not None:
            self._disk.require(SMALL + 2 * len(valid))
        return NewJob(
            type=kind.name,
            params=valid,
            owner=caller.project,
            key=caller.key,
            place=self._places.of(kind.where),
            priority=priority,
        )
