"""Usage reports."""

import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, NamedTuple, Self

from pydantic import AfterValidator, Field, model_validator

from .base import Request, Response


class Price(NamedTuple):
    """Price of a million tokens."""

    prompt: float = 0
    completion: float = 0
    embedded: float = 0


BY = ("project", "key", "model", "operation", "day")


def _dimensions(by: str) -> str:
    names = [name.strip() for name in by.split(",")]
    if not set(names) <= set(BY):
        raise ValueError(f"must be some of {', '.join(BY)}, with commas between")
    return ",".join(dict.fromkeys(names))


def _moment(text: str) -> str:
    if not re.fullmatch(r"\d{1,4}d", text):
        try:
            date.fromisoformat(text)
        except ValueError:
            raise ValueError("must be a number of days such as 7d, or a date such as 2026-11-28") from None
    return text


Day = Annotated[str, AfterValidator(_moment)]


class UsageRequest(Request):
    by: Annotated[str, AfterValidator(_dimensions)] = Field(
        "project,model",
        description="what to group by: some of project, key, model, operation, day, with commas between",
    )
    since: Day = Field(
        "30d", description="the first day, in UTC: a date, or a number of days up to today, such as 7d"
    )
    until: Day | None = Field(None, description="the last day; by default today")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        since, until = self.days
        if self.until is not None and since > until:
            raise ValueError(f"since ({since}) is after until ({until})")
        return self

    @property
    def days(self) -> tuple[str, str]:
        return first_day(self.since), first_day(self.until or "1d")


def first_day(text: str) -> str:
    if text.endswith("d"):
        return (datetime.now(UTC).date() - timedelta(max(0, int(text[:-1]) - 1))).isoformat()
    return text


class UsageRow(Response):
    project: str | None = None
    key: str | None = Field(None, description="the public id of a key; env for those of API_KEY and API_KEYS")
    model: str | None = None
    operation: str | None = Field(None, description="the operation; for jobs, their type")
    day: str | None = None
    requests: int = Field(description="calls and attempts of jobs, counted for the model that answered last")
    errors: int = Field(description="requests that failed")
    prompt_tokens: int
    completion_tokens: int
    embedded_tokens: int
    estimated_tokens: int = Field(
        description="how many of these tokens are estimates: the caller hung up, or the server did not tell"
    )
    milliseconds: float
    chunks: int = Field(description="chunks written into collections")
    cost: float | None = Field(None, description="the cost by USAGE_PRICES; null without prices")


class UsageReport(Response):
    since: str
    until: str
    rows: list[UsageRow]
