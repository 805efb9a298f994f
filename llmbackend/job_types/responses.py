"""Background responses: the job that makes one, and reading, cancelling and deleting stored ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from itertools import islice
from typing import Any

from pydantic import Field

from ..errors import Conflict, InvalidRequest, LLMBackendError, NotFound
from ..jobs.context import Context
from ..jobs.registry import job_type
from ..jobs.service import Jobs
from ..responses import building, response_object, store
from ..responses.access_needed import access_needed
from ..responses.building import Event
from ..responses.responder import Responder
from ..responses.store import OPEN, Stored
from ..schemas import (
    InputItemList,
    ListInputItemsRequest,
    RespondRequest,
    ResponseDeleted,
    ResponseId,
)
from ..storage.database import Database

LOOK = 0.1  # seconds
BEGINNING = 60.0
"""Seconds after which a response without a job counts as failed: its process was killed before submitting one."""


class RespondParams(RespondRequest):
    response_id: ResponseId | None = Field(
        None, description="id of a stored response to make; without it, the response is not stored"
    )


@job_type("respond", RespondParams, where="collections", access_needed=access_needed)
async def respond(context: Context, params: RespondParams) -> dict[str, Any]:
    """The response, as the operation `respond` returns it."""
    responder, database = context.services.responder, context.services.responder.database
    request = RespondRequest.model_construct(**{**vars(params), "stream": False})
    if params.response_id is None:
        call = await responder.begin(request.model_copy(update={"store": False, "background": False}))
        return await responder.respond(call)
    kept = await database.read(store.find, context.owner, params.response_id)
    if kept.status not in OPEN:
        return kept.response  # cancelled, or finished by an earlier attempt
    response = {**kept.response, "status": "in_progress"}
    await database.write(store.advance, kept._replace(status="in_progress", response=response))
    try:
        call = await responder.begin(request, kept.id)
        call.building.response["created_at"] = kept.response["created_at"]
        response = await responder.respond(call)
    except LLMBackendError as error:
        await database.write(store.advance, _failed(kept, error))
        raise
    await database.write(store.advance, kept._replace(status=response["status"], response=response))
    return response


def _failed(kept: Stored, error: LLMBackendError) -> Stored:
    return kept._replace(status="failed", response={**kept.response, **response_object.failed(error)})


class StoredResponses:
    """Stored responses and those being made in the background.

    `reach` is the project whose responses a caller may see; None means all.
    """

    def __init__(
        self,
        responder: Responder,
        database: Database,
        jobs: Jobs,
        submit: Callable[[str, dict[str, Any]], Awaitable[str]],
    ) -> None:
        """`submit` takes a job type and its params, and returns the job's id."""
        self._responder = responder
        self._database = database
        self._jobs = jobs
        self._submit = submit

    async def begin(self, request: RespondRequest) -> dict[str, Any]:
        """Start a response in the background; return its object. Raises like `Responder.begin` and like
        submitting a job."""
        call = await self._responder.begin(request)
        response = call.building.response
        await self._responder.add(call, None)
        params = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True, exclude={"stream"})
        try:
            job_id = await self._submit("respond", {**params, "response_id": response["id"]})
        except BaseException:
            await self._database.write(store.remove, None, response["id"])
            raise
        await self._database.write(store.made_by, response["id"], job_id)
        return response

    async def get(self, reach: str | None, response_id: str) -> dict[str, Any]:
        """A response as it is now. Raises NotFound."""
        return (await self._look(reach, response_id)).response

    async def _look(self, reach: str | None, response_id: str) -> Stored:
        kept = await self._database.read(store.find, reach, response_id)
        if kept.status not in OPEN:
            return kept
        ended: LLMBackendError | None = None
        if kept.job is None:
            if time.time() - kept.response["created_at"] > BEGINNING:
                ended = Conflict("its process stopped before it could begin: ask again")
        else:
            try:
                job = await self._jobs.status(None, kept.job)
                if job.status in ("failed", "cancelled", "completed"):
                    now = await self._database.read(store.find, reach, response_id)
                    if now.status not in OPEN:
                        return now
                    ended = LLMBackendError.from_dict(job.error or {"message": f"its job was {job.status}"})
            except NotFound:
                ended = Conflict("its job no longer exists: ask again")
        if ended is None:
            return kept
        failed = _failed(kept, ended)
        await self._database.write(store.advance, failed)
        return failed

    async def events(
        self, reach: str | None, response_id: str, after: int | None = None
    ) -> AsyncGenerator[Event, None]:
        """A response's events after that number; if it is still being made, waits for it. Raises NotFound."""
        kept = await self._look(reach, response_id)
        seen = -1 if after is None else after
        if kept.status in OPEN:
            for event in islice(building.replayed(kept.response), 2):  # "created" and "queued"
                if event["sequence_number"] > seen:
                    seen = event["sequence_number"]
                    yield event
        while kept.status in OPEN:
            if kept.job is None:  # the job is being submitted
                await asyncio.sleep(LOOK)
            else:
                async for _ in self._jobs.watch(None, kept.job, 0):
                    pass
            kept = await self._look(reach, response_id)
        for event in building.replayed(kept.response):
            if event["sequence_number"] > seen:
                yield event

    async def cancel(self, reach: str | None, response_id: str) -> dict[str, Any]:
        """Stop a response that is being made; one that has ended stays as it is. Raises NotFound, InvalidRequest."""
        kept = await self._look(reach, response_id)
        if not kept.response["background"]:
            raise InvalidRequest(
                f"{response_id} was not made in the background: only background responses can be cancelled"
            )
        if kept.status in OPEN:
            cancelled = kept._replace(status="cancelled", response={**kept.response, "status": "cancelled"})
            await self._database.write(store.advance, cancelled)
            if kept.job is not None:
                await self._jobs.cancel(None, kept.job)
        return (await self._look(reach, response_id)).response

    async def delete(self, reach: str | None, response_id: str) -> ResponseDeleted:
        """Delete a response, stopping it if it is being made. Raises NotFound."""
        kept = await self._database.write(store.remove, reach, response_id)
        if kept.status in OPEN and kept.job is not None:
            await self._jobs.cancel(None, kept.job)
        return ResponseDeleted(id=response_id)

    async def input_items(self, reach: str | None, request: ListInputItemsRequest) -> InputItemList:
        """A page of a response's input items. Raises NotFound, InvalidRequest."""
        kept = await self._database.read(store.find, reach, request.response_id)
        items = kept.input if request.order == "asc" else kept.input[::-1]
        if request.after is not None:
            ids = [item["id"] for item in items]
            if request.after not in ids:
                raise InvalidRequest(f"after: {request.response_id} has no item {request.after!r}")
            items = items[ids.index(request.after) + 1 :]
        page = items[: request.limit]
        return InputItemList(
            data=page,
            first_id=page[0]["id"] if page else None,
            last_id=page[-1]["id"] if page else None,
            has_more=len(items) > len(page),
        )
