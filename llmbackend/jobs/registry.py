"""Job types: built in, a project's own by `@job_type`, or an installed package's by an entry point."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from .. import json_reading, threads
from ..access.caller import Right
from ..access.decision import AccessNeeded, Asks, collections_in
from ..alike import alike, did_you_mean
from ..errors import InvalidRequest, invalid, names_in
from ..plugins import Registry, target
from ..schemas import Request
from .context import BlockingContext, Context, JobServices

Where = Literal["anywhere", "collections", "here"]
"""Where a job may run: in any process, in one with the collections (any, if on a Qdrant server), or only here."""

Result = dict[str, Any] | None
Run = Callable[[Context, Any], Awaitable[Result]] | Callable[[BlockingContext, Any], Result]
Unfinished = Callable[[Sequence[str]], Awaitable[set[str]]]
"""Returns those of the given job ids whose jobs are queued or running."""
Tidy = Callable[[JobServices, Unfinished], Awaitable[None]]
_Run = TypeVar("_Run", bound=Run)


@dataclass(frozen=True)
class JobType:
    name: str
    params: type[BaseModel]
    run: Run
    rows: str | None = None
    """The name under which a result has the rows appended to `context.results`."""
    where: Where = "anywhere"
    check: Callable[[JobServices, Any], None] = lambda services, params: None
    """Raises what is wrong with params that fit the schema, as far as can be known when submitting."""
    rights: Sequence[Right] = ()
    """Rights that its key needs, besides "jobs", on the collections named in its params."""
    asks: Asks | None = None
    """The kind of model that it asks: the one named in its params, or the default one."""
    access_needed: Callable[[Mapping[str, Any]], AccessNeeded] | None = None
    """The access needed by given params, if `rights` and `asks` do not cover it."""
    tidy: Tidy | None = None
    """Called after each attempt, and from time to time, to remove leftovers of jobs that will not continue."""

    @property
    def by(self) -> str | None:
        """Where a project's own function is defined; None if it is one of ours."""
        return None if self.run.__module__.startswith("llmbackend.") else target(self.run)

    async def work(self, context: Context, params: Any) -> Any:
        """Return what the function returns. One that is not `async` runs in a thread, where it may block."""
        run: Any = self.run
        if inspect.iscoroutinefunction(run):
            return await run(context, params)
        blocking = BlockingContext(context, asyncio.get_running_loop())
        try:
            return await threads.jobs(run, blocking, params)
        finally:
            blocking.close()


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
    """Register a function of a context and params as a job type; the dict that it returns is the job's result.

    An `async def` runs on the event loop of the server, and must not block it. A plain `def` runs in a thread: write it
    for work that blocks. Its context is a BlockingContext, whose methods wait.

    It may run more than once, because its process may be killed: `context.resume` is then what `context.checkpoint`
    saved. See Context for progress, checkpoints and results of any size. If its params have a `collection`, the key
    needs the right to write to it, unless other `rights` are given. Raises ValueError if the name is taken.
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
    """The access that a job with these params needs."""
    if kind.access_needed is not None:
        return kind.access_needed(params)
    model = params.get("model")
    named = model if isinstance(model, str) else None
    models = ((kind.asks, named),) if kind.asks else ()
    return AccessNeeded(kind.rights, collections_in(params.get("collection")), models)


def checked(name: str, params: dict[str, Any], services: JobServices) -> tuple[JobType, str]:
    """The job type and its validated params as JSON.

    Raises InvalidRequest for an unknown type or params that do not fit, NotFound for an unknown model.
    """
    kind = TYPES.get(name)
    if kind is None:
        near = alike(name, TYPES)
        meant = did_you_mean(near) if near else f"there are {', '.join(TYPES)}"
        raise InvalidRequest(f"no job type {name!r}: {meant}", details={"job_type": name})
    try:
        valid = kind.params.model_validate(params)
    except ValidationError as error:
        raise invalid(error, f"params of the job type {name}", names_in(kind.params)) from error
    kind.check(services, valid)
    if isinstance(valid, Request):
        return kind, valid.as_json()
    return kind, valid.model_dump_json(by_alias=True)  # a project's own may have its own way of writing


LARGE = 2**17
"""Params of more than this many characters are parsed in pieces."""


def parsed(kind: JobType, given: str) -> BaseModel:
    """The params that `checked` wrote. It blocks, so large ones are parsed in a thread."""
    if len(given) > LARGE and issubclass(kind.params, Request):
        return kind.params.model_validate(json_reading.own(given))
    return kind.params.model_validate_json(given)  # a project's own may read only what it has written
