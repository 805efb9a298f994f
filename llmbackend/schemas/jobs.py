"""Jobs and schedules."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
)

from .base import LARGEST, PRINTABLE, Json, Request, Response, form

# Jobs


JobState = Literal["queued", "running", "completed", "failed", "cancelled"]
JobIdentifier = Annotated[
    str, Field(pattern=form(r"^[A-Za-z0-9-]{1,64}$", "a job's id, as submit_job returned it"))
]
_LATEST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)


def _moment(value: str) -> str:
    try:
        moment = datetime.fromisoformat(value)
    except ValueError as error:
        raise ValueError("a time is like 2030-01-31T09:00:00+01:00") from error
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset from UTC, as in 2030-01-31T09:00:00+01:00")
    with suppress(OverflowError):  # out of the range of years in UTC
        if moment.astimezone(UTC) <= _LATEST:
            return value
    raise ValueError("a time must be within the years 1 to 9999 in UTC")


class SubmitJobRequest(Request):
    job_type: str = Field(max_length=64, pattern=PRINTABLE)
    params: dict[str, Json]
    priority: int = Field(0, ge=-100, le=100, description="among the owner's jobs; higher ones run sooner")
    run_at: Annotated[str, Field(max_length=64, pattern=PRINTABLE), AfterValidator(_moment)] | None = Field(
        None,
        description="earliest start; ISO 8601 with an offset from UTC, within the years 1 to 9999 in UTC",
    )
    depends_on: list[JobIdentifier] | None = Field(
        None, max_length=1000, description="ids of jobs that must be completed before it starts"
    )
    idempotency_key: str | None = Field(
        None,
        min_length=1,
        max_length=255,
        pattern=PRINTABLE,
        description="submitting again with the same key returns the same job",
    )
    webhook: str | None = Field(
        None,
        max_length=2000,
        pattern=PRINTABLE,
        description="a URL that gets a signed POST when the job ends",
    )

    @property
    def moment(self) -> float:
        """`run_at` in seconds since 1970; 0 for none."""
        return datetime.fromisoformat(self.run_at).timestamp() if self.run_at else 0.0


class JobId(Response):
    id: str


class JobRequest(Request):
    job_id: JobIdentifier


class JobDeleted(Response):
    deleted: str


class JobEventsRequest(JobRequest):
    last_event_id: int = Field(
        0, ge=0, le=LARGEST, description="the last event seen: only later changes are sent"
    )
    stream: bool = Field(True, description="false: return at once, with at most one event")


class JobResultRequest(JobRequest):
    offset: int = Field(0, ge=0, le=LARGEST, description="rows to skip")
    limit: int = Field(1000, ge=1, le=10_000, description="the most rows to return")
    encoding_format: Literal["json", "bytes"] = Field(
        "json",
        description="bytes, if rows are vectors: a line of JSON (without `rows`, with `count` and `dimension`), then the "
        "vectors as little-endian float32, one after the other",
    )
    partial: bool = Field(False, description="also return the rows that an unfinished job has so far")
    stream: bool = Field(
        False, description="answer with JSON lines, one for each row, from offset to the last"
    )


class ListJobsRequest(Request):
    status: JobState | None = None
    job_type: str | None = Field(None, max_length=64, pattern=PRINTABLE)
    limit: int = Field(50, ge=1, le=1000)


class JobProgress(Response):
    done: int = 0
    total: int = 0
    stage: str = ""
    rate: float | None = Field(None, description="per second")
    eta: float | None = Field(None, description="estimated seconds left")


class JobRows(Response):
    """The part of a result that consists of rows, from none to millions."""

    name: str
    count: int
    inline: bool = Field(
        False, description="whether the rows are included here; else read them by get_job_result"
    )
    dimension: int | None = Field(
        None, description="only if the rows are vectors and included here: all as one base64 text of float32"
    )


class JobWebhook(Response):
    url: str
    tries: int
    delivered_at: str | None
    error: str | None


class PendingCall(Response):
    """A call that a run waits for: a tool that writes, or a function that the caller runs."""

    id: str
    tool: str
    arguments: dict[str, Any]
    function: bool = Field(False, description="whether the caller runs it: its output is waited for")


class JobStatus(Response):
    id: str
    type: str
    status: JobState
    owner: str
    progress: JobProgress
    attempts: int
    result: Any = None
    rows: JobRows | None = None
    expired: bool = Field(False, description="the result is no longer kept")
    error: dict[str, Any] | None = None
    pending: list[PendingCall] | None = Field(
        None, description="calls of an agent's run that wait for `approve` or `reject`"
    )
    priority: int
    run_at: str | None = None
    depends_on: list[str] | None = None
    webhook: JobWebhook | None = None
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None


class JobList(Response):
    jobs: list[JobStatus]


class JobEvent(Response):
    id: int
    job: JobStatus


class JobEvents(Response):
    events: list[JobEvent]


class JobResult(Response):
    result: dict[str, Any] = Field(description="the result without its rows")
    offset: int
    total: int
    rows: list[Any]


# Schedules


_SCHEDULE = "[A-Za-z0-9][A-Za-z0-9_.-]{0,99}"
_A_NAME = "1 to 100 letters, digits, '_', '-' and '.', and begin with a letter or digit"


class SetScheduleRequest(Request):
    name: str = Field(pattern=form(f"^{_SCHEDULE}$", _A_NAME))
    cron: str = Field(
        max_length=100,
        pattern=PRINTABLE,
        description="minute, hour, day, month, weekday; with six fields, the first is seconds; or @daily and its like",
        examples=["30 2 * * MON-FRI"],
    )
    job_type: str = Field(max_length=64, pattern=PRINTABLE)
    params: dict[str, Json]
    timezone: str = Field("UTC", max_length=64, pattern=PRINTABLE)
    priority: int = Field(0, ge=-100, le=100)


class ScheduleRequest(Request):
    name: str = Field(
        pattern=form(
            f"^([A-Za-z0-9_.-]{{1,64}}/)?{_SCHEDULE}$", f"{_A_NAME}; another project's is project/name"
        ),
        description="a name; the administrator names other projects' as `project/name`",
    )


class Schedule(Response):
    name: str = Field(description="a name; other projects' are `project/name` to the administrator")
    cron: str
    timezone: str
    job_type: str
    priority: int
    next_at: str
    error: str | None = Field(
        None, description="why no job was submitted the last time, such as that the one before has not ended"
    )


class ScheduleList(Response):
    schedules: list[Schedule]


class ScheduleDeleted(Response):
    deleted: str
