"""LlamaIndex agents within a run: one for models that call tools, one for those that fill in a schema instead."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from anyio import CancelScope
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.agent.workflow.base_agent import BaseWorkflowAgent
from llama_index.core.agent.workflow.workflow_events import AgentOutput, ToolCall, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.memory import BaseMemory
from llama_index.core.tools import AsyncBaseTool, ToolOutput, adapt_to_async_tool
from llama_index.core.workflow import Context, step
from pydantic import PrivateAttr

from .. import threads
from ..errors import BackendError, InvalidRequest
from ..inference.wire import takes_no_tools
from ..llamaindex.llm import _wire
from ..plugins import ToolPart
from ..prompts import Prompt
from .handle import on_core
from .llm import Metadata, RunLLM, as_llamaindex, given, message
from .run_state import Running
from .tooling import called, description, parameters, use, with_functions

ENDLESS = 1_000_000
"""LlamaIndex's limit on rounds; the run's own limits end it earlier."""


class ToolAgent(FunctionAgent):
    """A FunctionAgent whose tools are called through the run, unknown ones too."""

    _running: Running = PrivateAttr()
    _parts: dict[str, ToolPart] = PrivateAttr()

    @step
    async def call_tool(self, ctx: Context, ev: ToolCall) -> ToolCallResult:
        return await _called(self._running, self._parts, ev)

    async def handle_tool_call_results(
        self, ctx: Context, results: list[ToolCallResult], memory: BaseMemory
    ) -> None:
        """Add results in the order of their calls, so that a resumed run asks the model exactly the same again."""
        said: list[ChatMessage] = await ctx.store.get(self.scratchpad_key, default=[])
        asked = said[-1].additional_kwargs.get("tool_calls") or [] if said else []
        order = {one.get("id"): number for number, one in enumerate(asked)}
        results = sorted(results, key=lambda one: order.get(one.tool_id, len(order)))
        await super().handle_tool_call_results(ctx, results, memory)


class StructuredAgent(BaseWorkflowAgent):
    """An agent whose model fills in a schema each turn: a tool and its arguments, or the answer."""

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
        turn_by_turn = await on_core(self._running, self._running.prompt("structured"))
        system = turn_by_turn.filled(tools=listed)
        turns = [
            _wire(one)
            for one in [message("system", f"{self.system_prompt}\n\n{system}"), *llm_input[1:], *said]
        ]
        asked = self._running.chat(
            {"messages": turns},
            schema=_turn(list(self._parts)),
            prompt=f"{self._prompt.label}, {turn_by_turn.label}",
        )
        reply = await on_core(self._running, asked)
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
    outcome = await on_core(running, use(running, parts, event.tool_name, arguments, event.tool_id))
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
    """Let the model call tools until it answers; if its server takes no tools, a schema is used instead."""
    return await threads.orchestration(partial(_by_tools, running, parts, system, task))


async def _by_tools(running: Running, parts: Mapping[str, ToolPart], system: Prompt, task: str) -> str:
    offered = {called(name): part for name, part in parts.items()}
    tools: list[Any] = [as_llamaindex(running, name, part) for name, part in offered.items()]
    llm = RunLLM.of(running, prompt=system.label)
    rules = running.instructed(system.text)
    agent = ToolAgent(
        name=system.name, tools=tools, llm=llm, system_prompt=rules, streaming=False, timeout=None
    )
    agent._running, agent._parts = running, offered
    try:
        said = await finished(agent.run(user_msg=asked(running, task), max_iterations=ENDLESS))
    except InvalidRequest as error:
        if not takes_no_tools(error):
            raise
        running.notes.append(f"the model's server takes no tools ({error.message}): it was asked by a schema")
        other = StructuredAgent(
            name=system.name, tools=tools, llm=llm, system_prompt=rules, streaming=False, timeout=None
        )
        other._running, other._parts, other._prompt = running, offered, system
        said = await finished(other.run(user_msg=asked(running, task), max_iterations=ENDLESS))
    return str(said.response.content or "")


def asked(running: Running, task: str) -> ChatMessage:
    """The task as a message for the model, with its images."""
    images = [ImageBlock(url=url) for url in running.request.images or ()]
    return ChatMessage(role="user", blocks=[TextBlock(text=task), *images])


def watched(running: Running, agent: FunctionAgent) -> ToolAgent:
    """A project's FunctionAgent, with its tools called through the run."""
    own = {tool.metadata.get_name(): part_of(tool) for tool in agent.tools or ()}  # type: ignore[union-attr]
    parts = with_functions(running, own)
    fields = {name: getattr(agent, name) for name in FunctionAgent.model_fields}
    tools = [as_llamaindex(running, name, part) for name, part in parts.items()]
    rules = running.instructed(agent.system_prompt or "").strip() or None
    mine = ToolAgent(
        **{**fields, "tools": tools, "system_prompt": rules, "streaming": False, "timeout": None}
    )
    mine._running, mine._parts = running, parts
    return mine


def part_of(tool: Any) -> ToolPart:
    """Wrap a LlamaIndex tool as one of ours."""
    if isinstance(tool.metadata, Metadata):
        return tool.metadata.part

    async def call(**arguments: Any) -> Any:
        output = await adapt_to_async_tool(tool).acall(**arguments)
        if output.is_error:
            raise BackendError(str(output.content))
        return output.content

    call.__module__, call.__doc__ = type(tool).__module__, tool.metadata.description
    name = tool.metadata.get_name()
    return ToolPart("tool", name, call, parameters=tool.metadata.get_parameters_dict())


async def finished(handler: Any) -> Any:
    """A workflow's result. On cancellation its steps are cancelled too, which a bare await would leave running."""
    result: asyncio.Future[Any] = asyncio.ensure_future(handler)
    try:
        await asyncio.wait([result])
    except asyncio.CancelledError:
        with CancelScope(shield=True):
            await handler.cancel_run()
            await asyncio.gather(result, return_exceptions=True)
        raise
    return result.result()
