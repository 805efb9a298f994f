"""Calls that a run waits for: approval of tools that write, and outputs of functions that the caller runs.

The run waits as a job, and continues once there is a decision on each call: True, or the reason against it, which the model
is told; for a function, its output as `{"output": …}`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .. import tracing
from ..errors import Conflict, InvalidRequest
from ..jobs.service import Jobs
from ..schemas import JobStatus, PendingCall
from .limits import Halt
from .run_state import Running

Decisions = Callable[[Sequence[Any]], Sequence[Any]]
"""Returns the decision on each of the calls that wait."""


async def decision(
    running: Running, key: str, tool: str, arguments: Mapping[str, Any], *, function: bool = False
) -> Any:
    """The decision on a call; if there is none yet, the run halts to wait for it, and this does not return."""
    if key in running.decisions:
        return running.decisions[key]
    running.pending.append(PendingCall(id=key, tool=tool, arguments=dict(arguments), function=function))
    running.shared.active -= 1  # a call that waits is not active
    await running.halt(Halt(True, ""))


async def decide(jobs: Jobs, run_id: str, decisions: Decisions) -> JobStatus:
    """Let a waiting run continue with these decisions. Raises NotFound, Conflict."""

    def change(state: dict[str, Any]) -> None:
        pending = state.get("pending") or ()
        told = {one["id"]: word for one, word in zip(pending, decisions(pending), strict=True)}
        state["decisions"] = {**(state.get("decisions") or {}), **told}
        state["pending"] = []

    return await jobs.answer(tracing.current().caller.reach, run_id, change)


def for_all(run_id: str, decided: Any) -> Decisions:
    """The same decision on every call; raises Conflict if one is a function, which cannot just be approved."""

    def decisions(pending: Sequence[Any]) -> list[Any]:
        if decided is True and any(one.get("function") for one in pending):
            raise Conflict(
                f"the run {run_id} waits for the output of a function that its caller runs: send it to "
                "/v1/responses, or reject the call"
            )
        return [decided] * len(pending)

    return decisions


def by_number(run_id: str, decided: Mapping[int, Any]) -> Decisions:
    """Decisions by the calls' numbers; raises InvalidRequest unless each call has one of its kind."""

    def decisions(pending: Sequence[Any]) -> list[Any]:
        wanted = {number: bool(one.get("function")) for number, one in enumerate(pending)}
        if {number: isinstance(one, dict) for number, one in decided.items()} != wanted:
            functions = sum(wanted.values())
            raise InvalidRequest(
                f"input: the run {run_id} waits for {functions} outputs of functions and {len(pending) - functions} "
                "approvals: send a function_call_output or an mcp_approval_response for each of them"
            )
        return [decided[number] for number in range(len(pending))]

    return decisions
