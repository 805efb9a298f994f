"""Agent runs as jobs: they survive a restart, can wait for approval, and can be scheduled."""

from __future__ import annotations

from typing import Any

from pydantic import Field, create_model

from ..jobs import Context, job_type
from ..jobs.registry import TYPES
from ..plugins import AGENTS, AgentPart
from ..schemas import AgentRun, AgentTask, RunAgentRequest
from .execution import check, execute, input_class
from .journal import JobJournal
from .run_state import Running

TYPE = "run_agent"


class RunAgentParams(AgentTask):
    """The params of a run as a job."""


async def work(context: Context, params: RunAgentRequest) -> dict[str, Any]:
    """`{answer, sources, trace, …, steps}`: the run, with the steps' results as rows, for a later attempt to reuse."""
    state: dict[str, Any] = context.resume if isinstance(context.resume, dict) else {}
    rows = await context.saved_rows()
    decisions = state.get("decisions") or {}
    journal = JobJournal(context, rows, {"decisions": decisions})
    running = Running(
        context.services.agents, params, journal, lambda event: None, decisions, run_id=context.job_id
    )
    await context.services.agents.before(params)
    run: AgentRun = await execute(running)
    if run.status == "needs_approval":
        pending = [one.model_dump() for one in run.pending]
        context.wait({"decisions": decisions, "pending": pending, "steps": len(journal.rows)})
    return run.model_dump(mode="json")


def _check(services: Any, params: RunAgentRequest) -> None:
    check(params)


job_type(
    TYPE, RunAgentParams, rows="steps", where="collections", check=_check, rights=("chat",), asks="chat"
)(work)


def _as_job_type(name: str, part: AgentPart) -> None:
    """Register the job type `agent/<name>`, with the agent's own input type."""
    given = input_class(part)
    fields: dict[str, Any] = {"agent": (str, Field(name, pattern=f"^{name}$"))}
    if given is not None:
        fields["input"] = (given, ...)
    params: Any = create_model(f"{name.replace('-', '_')}_run", __base__=RunAgentRequest, **fields)
    _ = params

    async def run(context: Context, params: Any) -> dict[str, Any]:
        plain = params.model_dump(mode="json", exclude_unset=True)
        return await work(context, RunAgentRequest.model_validate({**plain, "agent": name}))

    def checks(services: Any, params: Any) -> None:
        check(
            RunAgentRequest.model_validate(
                {**params.model_dump(mode="json", exclude_unset=True), "agent": name}
            )
        )

    run.__module__, run.__qualname__ = part.made.__module__, f"{part.made.__qualname__} as a job"
    job_type(
        f"agent/{name}",
        params,
        rows="steps",
        where="collections",
        check=checks,
        rights=("chat",),
        asks="chat",
    )(run)


AGENTS.each(_as_job_type)
_ = TYPES
