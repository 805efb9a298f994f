"""The audit log: who did what."""

from typing import Annotated

from pydantic import Field

from .base import LARGEST, Request, Response
from .usage import Day, first_day


class AuditRequest(Request):
    since: Day = Field(
        "30d", description="the first day, in UTC: a date, or a number of days up to today, such as 7d"
    )
    action: Annotated[str, Field(max_length=64)] | None = Field(
        None, description="only this operation, such as revoke_key, or refused"
    )
    before: Annotated[int, Field(ge=1, le=LARGEST)] | None = Field(
        None, description="the number of the last entry on the previous page"
    )
    limit: int = Field(100, ge=1, le=1000)

    @property
    def first(self) -> str:
        return first_day(self.since)


class AuditEntry(Response):
    number: int
    at: str
    project: str
    caller: str = Field(
        description="the public id of the key; the project, if a key of the environment was used"
    )
    client: str = Field(description="the client's address; - in process")
    request_id: str
    action: str = Field(description="the operation; refused: the request was turned away")
    target: str = Field(
        description="the key, collection or schedule; of a refused request, its method and path"
    )
    outcome: str = Field(
        description="ok, an error's code, left (the caller hung up), or the status of a refusal"
    )


class AuditLog(Response):
    entries: list[AuditEntry] = Field(description="newest first")
