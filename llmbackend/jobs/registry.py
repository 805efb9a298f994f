"""The kinds of job: built in, a project's own by `@job_type`, or an installed package's by an entry point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from ..access.caller import Right
from ..access.decision import AccessNeeded, Asks, collections_in
from ..errors import InvalidRequest, invalid
from ..plugins import Registry
from .context import Context, JobServices

Where = Literal["anywhere", "collections", "here"]
"""In any process; in any that has the collections (all, where they are on a Qdrant server); in that which accepts it."""

Run = Callable[[Context, Any], Awaitable[dict[str, Any] | None]]
Unfinished = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Tells which of some jobs' ids are those of jobs that wait or run."""
Tidy = Callable[[JobServices, Unfinished], Awaitable[None]]
_Run = TypeVar("_Run", bound=Run)


@dataclass(frozen=True)
class JobType:
    name: str
    params: type[BaseModel]
    run: Run
    rows: str | None = None
    """Under which name a result has the rows that were appended to `context.results`."""
    where: Where = "anywhere"
    check: Callable[[JobServices, Any], None] = lambda services, params: None
    """Raises what can be known at once to be wrong with valid params."""
    rights: Sequence[Right] = ()
    """What its key has to have, besides that to use jobs, on the collections that its params name."""
    asks: Asks | None = None
    """The kind of model that it asks: the one that its params name, or the one that is set."""
    access_needed: Callable[[Mapping[str, Any]], AccessNeeded] | None = None
    """What it is about, by its params, where that is more than the above tell."""
    tidy: Tidy | None = None
    """Removes what jobs left that have ended and will not go on; called after each attempt, and now and then."""


TYPES: Registry[JobType] = Registry("job type")


def job_type(
    name: str,
    params: type[BaseModel],
    *,
    rows: str | None = None,
    where: Where = "anywhere",
    check: Callable[[JobServices, Any], None] = lambda services, params: None,
    rights: Sequence[Right] | None = None,
    asks: Asks | None = None,
    access_needed: Callable[[Mapping[str, Any]], AccessNeeded] | None = None,
    tidy: Tidy | None = None,
) -> Callable[[_Run], _Run]:
    """Register an `async def run(context, params)` as a kind of job; what it returns, a dict, is the job's result.

    It may be run more than once: the process that is at it may be killed, and `context.resume` then tells what
    `context.checkpoint` saved. See Context for progress, checkpoints and results of any size. If its params have a
    `collection`, its key needs the right to write to that, unless other `rights` are told. Raises ValueError if there is
    another kind of that name.
    """

    def register(run: _Run) -> _Run:
        written: Sequence[Right] = ("write",) if "collection" in params.model_fields else ()
        needed = written if rights is None else rights
        TYPES.add(
            name, JobType(name, params, run, rows, where, check, needed, asks, access_needed, tidy), run
        )
        return run

    return register


def access_needed(kind: JobType, params: Mapping[str, Any]) -> AccessNeeded:
    """What a job of these params is about."""
    if kind.access_needed is not None:
        return kind.access_needed(params)
    model = params.get("model")
    named = model if isinstance(model, str) else None
    models = ((kind.asks, named),) if kind.asks else ()
    return AccessNeeded(kind.rights, collections_in(params.get("collection")), models)


def checked(name: str, params: dict[str, Any], services: JobServices) -> tuple[JobType, str]:
    """The kind of a job and its params as JSON, validated.

    Raises InvalidRequest that names the type or the params that do not fit, NotFound for a model there is not.
    """
    kind = TYPES.get(name)
    if kind is None:
        raise InvalidRequest(
            f"no job type {name!r}: there are {', '.join(TYPES)}", details={"job_type": name}
        )
    try:
        valid = kind.params.model_validate(params)
    except ValidationError as error:
        raise invalid(error, f"params of a {name} job") from error
    kind.check(services, valid)
    return kind, valid.model_dump_json(by_alias=True)
