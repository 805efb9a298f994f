"""LlamaIndex's agents over a run: one for models that call tools, one for those that fill in a schema instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from anyio import CancelScope
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.agent.workflow.workflow_events import AgentOutput, ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool, ToolOutput
from llama_index.core.workflow import Context, step
from pydantic import PrivateAttr

from ..errors import InvalidRequest
from ..llamaindex.llm import _wire
from ..plugins import ToolPart
from .llm import RunLLM, as_llamaindex, given, message
from .prompts import Prompt, prompt
from .running import Running
from .tooling import called, description, parameters, use

ENDLESS = 1_000_000
"""Rounds that LlamaIndex counts: the run's own limits end it before."""


class ToolAgent(FunctionAgent):
    """Its tools are called by the run, which knows those that there are not, too."""

    _running: Running = PrivateAttr()
    _parts: dict[str, ToolPart] = PrivateAttr()

    @step
    async def call_tool(self, ctx: Context, ev: ToolCall) -> ToolCallResult:
        return await _called(self._running, self._parts, ev)


class StructuredAgent(BaseWorkflowAgent):
    """In each turn the model fills in a schema: a tool and its arguments, or the answer."""

    _running: Running = PrivateAttr()
    _parts: dict[str, ToolPart] = PrivateAttr()
    _prompt: Prompt = PrivateAttr()

    @step
    async def call_tool(self, ctx: Context, ev: ToolCall) -> ToolCallResult:
        return await _called(self._running, self._parts, ev)

    async def take_step(
        self, ctx: Any, llm_input: list[ChatMessage], tools: Sequence[AsyncBaseTool], memory: BaseMemory
    ) -> AgentOutput:
        said: list[ChatMessage] = await ctx.store.get("said", default=[])
        listed = "\n".join(
            json.dumps({"tool": name, "about": description(part), "parameters": parameters(part)})
            for name, part in self._parts.items()
        )
        system = prompt("structured").text.replace("{tools}", listed)
        turns = [
            _wire(one)
            for one in [message("system", f"{self.system_prompt}\n\n{system}"), *llm_input[1:], *said]
        ]
        reply = await self._running.chat(
            {"messages": turns}, schema=_turn(list(self._parts)), prompt=self._prompt.label
        )
        turn = json.loads(reply["message"]["content"])
        said.append(message("assistant", json.dumps(turn, ensure_ascii=False)))
        await ctx.store.set("said", said)
        calls = []
        if turn.get("tool"):
            number = len(said)
            calls = [
                ToolSelection(
                    tool_id=f"call_{number}", tool_name=turn["tool"], tool_kwargs=turn.get("arguments") or {}
                )
            ]
        answer = message("assistant", turn.get("answer") or "")
        return AgentOutput(response=answer, tool_calls=calls, current_agent_name=self.name)

    async def handle_tool_call_results(
        self, ctx: Context, results: list[ToolCallResult], memory: BaseMemory
    ) -> None:
        said: list[ChatMessage] = await ctx.store.get("said", default=[])
        said += [message("user", one.tool_output.content) for one in results]
        await ctx.store.set("said", said)

    async def finalize(self, ctx: Context, output: AgentOutput, memory: BaseMemory) -> AgentOutput:
        return output


def _turn(names: list[str]) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "tool": {"enum": [*names, None]},
            "arguments": {"type": ["object", "null"]},
            "answer": {"type": ["string", "null"]},
        },
        "required": ["tool", "arguments", "answer"],
        "additionalProperties": False,
    }


async def _called(running: Running, parts: Mapping[str, ToolPart], event: ToolCall) -> ToolCallResult:
    arguments = given(event.tool_kwargs)
    outcome = await use(running, parts, event.tool_name, arguments, event.tool_id)
    output = ToolOutput(
        content=outcome.text,
        tool_name=event.tool_name,
        raw_input=event.tool_kwargs,
        raw_output=outcome.value,
        is_error=outcome.error is not None,
    )
    return ToolCallResult(
        tool_name=event.tool_name,
        tool_kwargs=event.tool_kwargs,
        tool_id=event.tool_id,
        tool_output=output,
        return_direct=False,
    )


async def by_tools(running: Running, parts: Mapping[str, ToolPart], system: Prompt, task: str) -> str:
    """What the model answers once it has called what tools it wanted.

    A server that takes no tools is asked by a schema instead.
    """
    offered = {called(name): part for name, part in parts.items()}
    tools: list[Any] = [as_llamaindex(running, name, part) for name, part in offered.items()]
    llm = RunLLM.of(running, prompt=system.label)
    agent = ToolAgent(
        name=system.name, tools=tools, llm=llm, system_prompt=system.text, streaming=False, timeout=None
    )
    agent._running, agent._parts = running, offered
    try:
        said = await finished(agent.run(user_msg=task, max_iterations=ENDLESS))
    except InvalidRequest as error:
        if not _takes_no_tools(error):
            raise
        running.notes.append(f"the model's server takes no tools ({error.message}): it was asked by a schema")
        other = StructuredAgent(
            name=system.name, tools=tools, llm=llm, system_prompt=system.text, streaming=False, timeout=None
        )
        other._running, other._parts, other._prompt = running, offered, system
        said = await finished(other.run(user_msg=task, max_iterations=ENDLESS))
    return str(said.response.content or "")


def _takes_no_tools(error: InvalidRequest) -> bool:
    return "context" not in error.details and "tool" in error.message.lower()


async def finished(handler: Any) -> Any:
    """What a workflow gives. A bare await would hand a cancellation on to it, which then forgets steps that it has begun."""
    result: asyncio.Future[Any] = asyncio.ensure_future(handler)
    try:
        await asyncio.wait([result])
    except asyncio.CancelledError:
        with CancelScope(shield=True):
            await handler.cancel_run()
            await asyncio.gather(result, return_exceptions=True)
        raise
    return result.result()
