"""The agents' service to the core: list agents, run them, stream their events, decide what they wait for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import Any, cast

from .. import progress, tracing
from ..answers.links import Links, inert
from ..errors import Conflict, LLMBackendError
from ..jobs.ledger import WAITS
from ..jobs.service import Jobs
from ..plugins import AGENTS, TOOLS
from ..schemas import (
    AgentList,
    AgentRun,
    AgentTask,
    JobStatus,
    PendingCall,
    RunAgentRequest,
    Source,
    Step,
    ToolInfo,
)
from . import approval, builtin, job, tools  # noqa: F401  # importing registers the built-in agents and tools
from .execution import check, described, execute, is_own
from .journal import Journal
from .mcp import BETWEEN, McpServers
from .run_state import Running
from .services import AgentServices
from .steps import shown
from .tooling import description, parameters

_Begin = Callable[[str, dict[str, Any]], Awaitable[str]]


class AgentRuns:
    """The operations on agents. Used on the core's loop."""

    def __init__(self, services: AgentServices, jobs: Jobs, begin_job: _Begin) -> None:
        self._services = services
        self._jobs = jobs
        self._begin_job = begin_job
        settings = services.settings
        servers = {name: where.get_secret_value() for name, where in settings.agent_mcp.items()}
        self._mcp = McpServers(servers, settings.agent_tool_seconds)
        services.before = self._prepare

    async def _prepare(self, request: RunAgentRequest) -> None:
        """Load the MCP tools that a run may call: those it names, or all for a project's own agent, which may call any."""
        if is_own(request.agent):
            await self._mcp.load()
        else:
            await self._mcp.load({name.partition(BETWEEN)[0] for name in request.tools or ()})

    async def lacking(self, seconds: float) -> list[str]:
        """Messages about the MCP servers that do not list their tools within so many seconds."""
        return await self._mcp.lacking(seconds)

    async def listed(self) -> AgentList:
        await self._mcp.load()
        return AgentList(
            agents=[described(AGENTS[name]) for name in sorted(AGENTS)],
            tools=[
                ToolInfo(
                    name=name,
                    description=description(part),
                    writes=part.writes,
                    parameters=parameters(part),
                )
                for name, part in sorted(TOOLS.items())
            ],
        )

    async def run(self, request: RunAgentRequest) -> AgentRun:
        """Run an agent until it ends or waits for approval."""
        await self._prepare(request)
        check(request)
        if _waits(request):
            async with aclosing(self._followed(await self._submitted(request), request)) as events:
                async for event in events:
                    if event["type"] == "done":
                        return AgentRun.model_validate(event["run"])
            raise AssertionError("a run ends with done, or an error")
        return await self._begun(request, lambda event: None)

    async def events(self, request: RunAgentRequest) -> AsyncGenerator[dict[str, Any], None]:
        """Yield a run's events; the last is `done`, with the run. Closing this ends the run, unless it is a job."""
        await self._prepare(request)
        check(request)
        if _waits(request):
            events = self._followed(await self._submitted(request), request)
        else:
            events = self._direct(request)
        async with aclosing(events):
            async for event in events:
                yield event

    def _begun(self, request: RunAgentRequest, tell: progress.Tell) -> Awaitable[AgentRun]:
        """A run within this call, which yields to smaller requests."""
        tracing.current().stand_back()
        return execute(Running(self._services, request, Journal(), tell))

    def _direct(self, request: RunAgentRequest) -> AsyncGenerator[dict[str, Any], None]:
        async def work(tell: progress.Tell) -> dict[str, Any]:
            run = await self._begun(request, tell)
            return {"type": "done", "run": run.model_dump(mode="json")}

        return progress.told(work)

    # Runs that are jobs

    async def _submitted(self, request: RunAgentRequest) -> str:
        given = request.model_dump(mode="json", exclude_unset=True, exclude={"stream"})
        return await self._begin_job(job.TYPE, given)

    async def _followed(
        self, run_id: str, request: RunAgentRequest, past: Sequence[dict[str, Any]] = ()
    ) -> AsyncGenerator[dict[str, Any], None]:
        """The events of a run that is a job: each step as it ends, after those in `past`."""
        reach, links = tracing.current().caller.reach, self._services.settings.answer_links
        rows = list(past)
        yield {
            "type": "step",
            "id": 1,
            "parent": None,
            "name": request.agent,
            "kind": "agent",
            "status": "began",
            "run_id": run_id,
        }
        async with aclosing(cast(Any, self._jobs.watch(reach, run_id, 0))) as changes:
            async for _, seen in changes:
                new = await self._jobs.rows_from(reach, run_id, len(rows))
                for row in new:
                    rows.append(row)
                    for event in _events_of(row, len(rows) + 1, links):
                        yield event
                if seen.status == "queued" and seen.progress.stage == WAITS:
                    break
        status = await self._jobs.status(reach, run_id)
        if status.pending:
            pending = [one.model_dump() for one in status.pending]
            yield {"type": "needs_approval", "run_id": run_id, "pending": pending}
        yield {"type": "done", "run": _run_of(status, request, rows, links).model_dump(mode="json")}

    async def decide(self, run_id: str, decided: Any) -> JobStatus:
        """Approve (True) or reject (a reason) all calls that a run waits for; it continues. Raises NotFound, Conflict."""
        return await approval.decide(self._jobs, run_id, approval.for_all(run_id, decided))

    async def resumed(
        self, agent: str, run_id: str, decisions: dict[int, Any]
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Continue a waiting run with a decision on each call (for a function, its output), and yield its
        events.

        Raises NotFound, Conflict, and InvalidRequest if a call is left out.
        """
        past = await self._jobs.rows_from(tracing.current().caller.reach, run_id, 0)
        await approval.decide(self._jobs, run_id, approval.by_number(run_id, decisions))
        async with aclosing(self._followed(run_id, RunAgentRequest(agent=agent), past)) as events:
            async for event in events:
                yield event


def _waits(request: RunAgentRequest) -> bool:
    """Whether a run may have to wait for its caller; then it is a job."""
    return request.approve is not None or (isinstance(request, AgentTask) and bool(request.functions))


def _prompts(row: dict[str, Any]) -> str | None:
    return ", ".join(row.get("prompts") or ()) or None


def _events_of(row: dict[str, Any], number: int, links: Links) -> list[dict[str, Any]]:
    """The events of a finished step of a run that is a job."""
    result = row["result"]
    ended = {
        "type": "step",
        "id": number,
        "parent": 1,
        "name": row["name"],
        "kind": row["kind"],
        "status": "ended",
        "seconds": row["seconds"],
        "tokens": row["tokens"],
        "failed": result.get("error"),
    }
    if (prompts := _prompts(row)) is not None:
        ended["prompt"] = prompts
    if row["kind"] == "tool":
        call_id, arguments = row["key"], row.get("given")
        return [
            {"type": "tool_call", "id": call_id, "tool": row["name"], "arguments": arguments},
            {
                "type": "tool_result",
                "id": call_id,
                "tool": row["name"],
                "output": shown(result.get("text"), links),
                "failed": result.get("error"),
                "seconds": row["seconds"],
            },
            ended,
        ]
    text = (result.get("message") or {}).get("content")
    says = row["kind"] == "model" and result.get("says") and text
    said = [{"type": "text", "delta": inert(str(text), links), "step": number}] if says else []
    return [*said, ended]


def _run_of(
    status: JobStatus, request: RunAgentRequest, rows: list[dict[str, Any]], links: Links
) -> AgentRun:
    """A job's run. Raises the error that it failed with, or Conflict if it was cancelled."""
    if status.status == "completed":
        return AgentRun.model_validate({name: status.result[name] for name in AgentRun.model_fields})
    if status.error is not None:
        raise LLMBackendError.from_dict(status.error)
    if status.status == "cancelled":
        raise Conflict(f"run {status.id} was cancelled", details={"job_id": status.id})
    steps = [
        Step(
            name=row["name"],
            kind=row["kind"],
            seconds=row["seconds"],
            tokens=row["tokens"],
            model=row.get("model"),
            prompt=_prompts(row),
            output=shown(row["result"].get("text"), links),
            error=row["result"].get("error"),
        )
        for row in rows
    ]
    tokens = sum(step.tokens for step in steps)
    pending: list[PendingCall] = status.pending or []
    return AgentRun(
        agent=request.agent,
        run_id=status.id,
        status="needs_approval",
        pending=pending,
        sources=[Source.model_validate(one) for row in rows for one in row.get("sources") or ()],
        trace=Step(
            name=request.agent,
            kind="agent",
            seconds=round(sum(step.seconds for step in steps), 4),
            tokens=tokens,
            steps=steps,
        ),
        usage={"total_tokens": tokens, "steps": len(rows)},
    )
