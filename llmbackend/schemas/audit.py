"""Who did what that matters."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import LARGEST, Request, Response
from .usage import Day, first_day


class AuditRequest(Request):
    since: Day = Field("30d", description="the first day, in UTC: a date, or so many days up to today")
    action: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="an operation such as revoke_key, or refused"
    )
    before: Annotated[int, Field(ge=1, le=LARGEST)] | None = Field(
        None, description="the number of the last entry of the page before"
    )
    limit: int = Field(100, ge=1, le=1000)

    @property
    def first(self) -> str:
        return first_day(self.since)


class AuditEntry(Response):
    number: int
    at: str
    project: str
    caller: str = Field(description="the public id of the key, or the project")
    client: str = Field(description="the address that the request came from; - in process")
    request_id: str
    action: str = Field(description="the operation; refused for a request that was turned away")
    target: str = Field(
        description="the key, collection or schedule; the method and path of what was refused"
    )
    outcome: str = Field(
        description="ok, an error's code, left (the caller hung up), or the status of a refusal"
    )


class AuditLog(Response):
    entries: list[AuditEntry] = Field(description="the newest first")
