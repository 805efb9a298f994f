"""The `run` argument of an agent: models, tools, other agents and steps, usable from any event loop or thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, TypeVar

from llm_client import Reply

from ..errors import BackendError
from .run_state import Running

if TYPE_CHECKING:
    from llama_index.core.tools import FunctionTool

    from ..schemas import AgentRun
    from .llm import RunLLM

_Result = TypeVar("_Result")


class Run:
    """What an agent is given as `run`.

    Everything done through it counts against the run's limits, appears in its trace and event stream, and uses the present
    rights of the caller's key. If the run is a job, each call is made once: an agent that is restarted after its process
    was killed gets the earlier answers again.
    """

    def __init__(self, running: Running) -> None:
        self._running = running

    @property
    def task(self) -> str:
        """The task, as the caller wrote it."""
        return self._running.request.task

    @property
    def instructions(self) -> str | None:
        """Instructions of the caller for the model, besides the task."""
        return self._running.request.instructions

    @property
    def images(self) -> list[str]:
        """The images that come with the task, as URLs."""
        return list(self._running.request.images or ())

    @property
    def collections(self) -> list[str] | None:
        """The collections that the caller named; None means all that the key may read."""
        return self._running.request.collections

    async def chat(
        self,
        messages: str | Sequence[Mapping[str, Any]],
        *,
        system: str | None = None,
        schema: Any = None,
        name: str = "model",
        prompt: str | None = None,
        **options: Any,
    ) -> Any:
        """Ask the chat model; return its Reply, or with a `schema` (a pydantic class or JSON Schema) the
        parsed data.

        Raises what `client.chat` raises.
        """
        return await self._on_core(self._chat(messages, system, schema, name, prompt, options))

    async def _chat(
        self,
        messages: Any,
        system: str | None,
        schema: Any,
        name: str,
        prompt: str | None,
        options: dict[str, Any],
    ) -> Any:
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        if system is not None:
            turns = [{"role": "system", "content": system}, *turns]
        shape = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
        said = await self._running.chat(
            {"messages": turns, **options}, schema=shape, name=name, prompt=prompt, says=schema is None
        )
        if shape is None:
            return reply_of(said)
        text = said["message"]["content"]
        if hasattr(schema, "model_validate_json"):
            return schema.model_validate_json(text)
        import json

        return json.loads(text)

    async def tool(self, name: str, **arguments: Any) -> Any:
        """Call a tool; return its value. Raises BackendError if it fails."""
        outcome = await self._on_core(self._use(name, arguments))
        if outcome.error is not None:
            raise BackendError(
                f"the tool {name!r} failed: {outcome.error}", details={"backend": "agent", "tool": name}
            )
        return outcome.value

    async def _use(self, name: str, arguments: Mapping[str, Any]) -> Any:
        from .tooling import find, use

        return await use(self._running, {name: find(name)}, name, arguments)

    async def agent(self, name: str, task: str = "", *, input: Any = None) -> AgentRun:
        """Run another agent as a part of this run; return its AgentRun."""
        return await self._on_core(self._agent(name, task, input))

    async def _agent(self, name: str, task: str, given: Any) -> AgentRun:
        from .execution import part_of

        return await part_of(self._running, name, task, given)

    def step(self, name: str) -> AbstractContextManager[Any]:
        """Open a `with` block whose calls are recorded as parts of a named step."""
        made: AbstractContextManager[Any] = self._running.stepping(name)
        return made

    def note(self, text: str) -> None:
        """Add a note for the caller to the result."""
        self._running.notes.append(text)

    def llm(self) -> RunLLM:
        """The chat model as a LlamaIndex LLM."""
        from .llm import RunLLM

        return RunLLM.of(self._running)

    def tools(self, *names: str) -> list[FunctionTool]:
        """Tools as LlamaIndex tools: those named, or else those the caller asked for, or else all that do not write."""
        from .llm import as_llamaindex
        from .tooling import called, offered

        parts = offered(self._running, names or None)
        return [as_llamaindex(self._running, called(name), part) for name, part in parts.items()]

    async def _on_core(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        return await on_core(self._running, work)


async def on_core(running: Running, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await work on the core's event loop, from any other loop."""
    if asyncio.get_running_loop() is running.loop:
        return await work
    return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, running.loop))


def on_core_blocking(running: Running, work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run work on the core's event loop and block for its result, from another thread."""
    try:
        here: Any = asyncio.get_running_loop()
    except RuntimeError:
        here = None
    if here is running.loop:
        work.close()
        raise BackendError("this blocks the core's loop: await the method that begins with `a` instead")
    return asyncio.run_coroutine_threadsafe(work, running.loop).result()


def reply_of(said: Mapping[str, Any]) -> Reply:
    message = said["message"]
    return Reply(
        message.get("content") or "",
        model=said.get("model") or "",
        usage=said.get("usage"),
        finish_reason=said.get("finish_reason"),
        message=message,
    )
