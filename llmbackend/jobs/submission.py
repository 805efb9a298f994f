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
from ..errors import Overloaded
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
        """Raises InvalidRequest, Overloaded if the project has as many jobs as it may, and as `new` and `Jobs.submit`."""
        if asked.webhook is not None:
            webhooks.check(asked.webhook, self._jobs.deliveries.secret, self._private)
        await self._require_within(caller)
        job = replace(
            await self.new(caller, asked.job_type, asked.params, asked.priority),
            run_at=asked.moment,
            depends_on=asked.depends_on or (),
            idempotency_key=asked.idempotency_key,
            webhook=asked.webhook,
        )
        return schemas.JobId(id=await self._jobs.submit(job))

    async def begin_response(self, params: dict[str, Any]) -> str:
        """Submit the job that makes a response in the background; its id. Raises as `submit`."""
        request = schemas.SubmitJobRequest(job_type="respond", params=params)
        return (await self.submit(tracing.current().caller, request)).id

    async def within_limit(self, job_type: str, params: dict[str, Any]) -> NewJob:
        """A job of the caller's; raises as `submit`."""
        caller = tracing.current().caller
        await self._require_within(caller)
        return await self.new(caller, job_type, params, 0)

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

    async def _require_within(self, caller: Caller) -> None:
        if (most := self._limiter.jobs_of(caller.project)) is None:
            return
        if await self._jobs.open_jobs(caller.project) >= most:
            error = Overloaded(
                f"this project's limit of {most} jobs that wait or are at work is reached: try again later",
                details={"limit": str(most), "what": "jobs", "retry_after": 5},
            )
            self._limiter.reached(error, caller)
            raise error
