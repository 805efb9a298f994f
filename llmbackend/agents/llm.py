"""A run's model and tools as LlamaIndex's classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    MessageRole,
)
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.tools import FunctionTool, ToolMetadata

from llm_client import Reply

from ..errors import BackendError
from ..llamaindex.llm import BackendLLM, _response
from ..plugins import ToolPart
from .handle import on_core, on_core_blocking, reply_of
from .run_state import Running
from .tooling import description, parameters, use

ROOM = 2**31
"""The context window that LlamaIndex is told; larger than any model's, so that the server decides what is too
long."""

BROKEN = "_not_json"
"""Name of a single argument that holds the text of arguments which are not a JSON object."""


class RunLLM(BackendLLM):
    """The chat model within a run; each request is a step of the run."""

    _running: Running = PrivateAttr()
    _prompt: str | None = PrivateAttr(default=None)
    _says: bool = PrivateAttr(default=True)

    @classmethod
    def of(cls, running: Running, *, prompt: str | None = None, says: bool = True) -> RunLLM:
        kind: Any = cls
        made: RunLLM = kind(
            cast(Any, None),  # the run replaces the client
            model=running.request.model,
            context_window=ROOM,
            function_calling=running.services.chat.abstracts,
        )
        made._running, made._prompt, made._says = running, prompt, says
        return made

    async def _ask(self, fields: dict[str, Any]) -> Reply:
        schema = fields.pop("schema", None)
        shape = schema.model_json_schema() if hasattr(schema, "model_json_schema") else schema
        said = await self._running.chat(fields, schema=shape, prompt=self._prompt, says=self._says)
        reply = reply_of(said)
        if schema is not None:
            text = str(reply)
            reply.parsed = (
                schema.model_validate_json(text)
                if hasattr(schema, "model_validate_json")
                else json.loads(text)
            )
        return reply

    def _reply(self, fields: dict[str, Any]) -> Reply:
        return on_core_blocking(self._running, self._ask(fields))

    async def _areply(self, fields: dict[str, Any]) -> Reply:
        return await on_core(self._running, self._ask(fields))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response(await self._areply(self._request(messages, kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        response = self.chat(messages, **kwargs)

        def responses() -> ChatResponseGen:
            response.delta = response.message.content or ""
            yield response

        return responses()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """Return the whole reply at once; its pieces were sent as events of the run."""
        response = await self.achat(messages, **kwargs)

        async def responses() -> ChatResponseAsyncGen:
            response.delta = response.message.content or ""
            yield response

        return responses()

    async def astructured_predict(
        self, output_cls: Any, prompt: Any, llm_kwargs: dict[str, Any] | None = None, **prompt_args: Any
    ) -> Any:
        return (await self._areply(self._shaped(output_cls, prompt, llm_kwargs, prompt_args))).parsed

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls; arguments that are not a JSON object are passed on under BROKEN, for the tool to refuse."""
        written = response.message.additional_kwargs.get("tool_calls") or []
        if error_on_no_tool_call and not written:
            raise BackendError("the model called no tool, although it must: ask it again")
        return [
            ToolSelection(
                tool_id=one.get("id") or f"call_{number}",
                tool_name=one["function"].get("name") or "",
                tool_kwargs=_arguments(one["function"].get("arguments")),
            )
            for number, one in enumerate(written)
        ]


def _arguments(written: Any) -> dict[str, Any]:
    try:
        found = json.loads(written or "{}") if isinstance(written, str) or written is None else written
        if isinstance(found, str):  # some servers write them as JSON twice
            found = json.loads(found)
    except (ValueError, RecursionError):
        found = None
    return dict(found) if isinstance(found, dict) else {BROKEN: written}


def given(arguments: dict[str, Any]) -> Any:
    """The arguments, or their text if they were not a JSON object."""
    return arguments.get(BROKEN, arguments)


def as_llamaindex(running: Running, name: str, part: ToolPart) -> FunctionTool:
    """A tool of the run as a LlamaIndex tool."""

    async def call(**arguments: Any) -> str:
        outcome = await on_core(running, use(running, {name: part}, name, given(arguments)))
        return outcome.text

    def call_blocking(**arguments: Any) -> str:
        return on_core_blocking(running, use(running, {name: part}, name, given(arguments))).text

    return FunctionTool(fn=call_blocking, metadata=Metadata.of(name, part), async_fn=call)


class Metadata(ToolMetadata):
    """Metadata with the tool's own JSON Schema."""

    schema: dict[str, Any]
    part: ToolPart

    @classmethod
    def of(cls, name: str, part: ToolPart) -> Metadata:
        made = cls(description=description(part), name=name, fn_schema=None)
        made.schema, made.part = parameters(part), part
        return made

    def get_parameters_dict(self) -> dict[str, Any]:
        return self.schema

    @property
    def fn_schema_str(self) -> str:
        return json.dumps(self.schema)


def message(role: str, text: str) -> ChatMessage:
    return ChatMessage(role=MessageRole(role), content=text)
