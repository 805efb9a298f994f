"""The chat model as a LlamaIndex LLM."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator, Generator, Sequence
from typing import Any

from llama_index.core.base.llms.types import (
    AudioBlock,
    CachePoint,
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    ContentBlock,
    ImageBlock,
    LLMMetadata,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import BaseModel, Field, PrivateAttr
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools.types import BaseTool

from llm_client import LLMBackendClient, Reply, ReplyStream

from ..errors import BackendError, InvalidRequest
from .calling import call, pieces

_ROLES = {"chatbot": "assistant", "model": "assistant", "function": "tool"}
_OPTIONS = ("temperature", "top_p", "max_tokens", "stop", "seed", "tools", "tool_choice", "model")
_NOT_SENT = ("role", "content")
REPLY_TOKENS = 256
"""The tokens that LlamaIndex reserves for a reply if `max_tokens` is not set."""


class BackendLLM(FunctionCallingLLM):
    """A client's `chat`, with streaming, tools, and replies that fit a pydantic class.

    Each call takes further options: `temperature`, `top_p`, `max_tokens`, `stop`, `seed`, `tools`,
    `tool_choice` and `model`.
    """

    model: str | None = Field(None, description="the chat model; by default the one set for the backend")
    temperature: float | None = None
    max_tokens: int | None = None
    context_window: int
    function_calling: bool
    _client: LLMBackendClient = PrivateAttr()

    def __init__(self, client: LLMBackendClient, **fields: Any) -> None:
        super().__init__(**fields)
        self._client = client

    @classmethod
    def class_name(cls) -> str:
        return "BackendLLM"

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.context_window,
            num_output=self.max_tokens or REPLY_TOKENS,
            is_chat_model=True,
            is_function_calling_model=self.function_calling,
            model_name=self.model or "",
        )

    # Chat

    def _reply(self, fields: dict[str, Any]) -> Reply:
        reply: Reply = self._client.chat(**fields)
        return reply

    def _stream(self, fields: dict[str, Any]) -> ReplyStream:
        return self._client.chat(**fields, stream=True)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response(self._reply(self._request(messages, kwargs)))

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return _response(await call(self._reply, self._request(messages, kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        stream = self._stream(self._request(messages, kwargs))

        def responses() -> Generator[ChatResponse, None, None]:
            text = ""
            with stream:
                for piece in stream:
                    text += piece
                    yield _piece(text, piece)
                yield from _end(stream, text)

        return responses()

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        stream = await call(self._stream, self._request(messages, kwargs))

        async def responses() -> AsyncGenerator[ChatResponse, None]:
            text = ""
            async for piece in pieces(stream):
                text += piece
                yield _piece(text, piece)
            for last in _end(stream, text):
                yield last

        return responses()

    # Completion

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(self.chat(_asked(prompt), **kwargs))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return _completion(await self.achat(_asked(prompt), **kwargs))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        return (_completion(one) for one in self.stream_chat(_asked(prompt), **kwargs))

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        stream = await self.astream_chat(_asked(prompt), **kwargs)
        return (_completion(one) async for one in stream)

    # Tools

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            messages += _asked(user_msg) if isinstance(user_msg, str) else [user_msg]
        if not tools:
            return {"messages": messages, **kwargs}
        specified = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        chosen: str | dict[str, Any] | None = tool_choice or ("required" if tool_required else None)
        if isinstance(chosen, str) and chosen not in ("none", "auto", "required"):
            chosen = {"type": "function", "function": {"name": chosen}}
        return {
            "messages": messages,
            "tools": specified,
            **({"tool_choice": chosen} if chosen else {}),
            **kwargs,
        }

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        """Keep only the first call, unless parallel calls are allowed."""
        message = response.message
        calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
        if len(calls) > 1 and not allow_parallel_tool_calls:
            message.blocks = [block for block in message.blocks if block not in calls[1:]]
            message.additional_kwargs["tool_calls"] = message.additional_kwargs["tool_calls"][:1]
        return response

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tools to call. Raises BackendError if the model wrote arguments that are not a JSON object."""
        written = response.message.additional_kwargs.get("tool_calls") or []
        calls = Reply("", message={"role": "assistant", "content": "", "tool_calls": written}).tool_calls
        if error_on_no_tool_call and not calls:
            raise BackendError("the model called no tool, although it must: ask it again")
        return [
            ToolSelection(tool_id=one["id"], tool_name=one["name"], tool_kwargs=dict(one["arguments"]))
            for one in calls
        ]

    # Structured output uses the reply's schema, which is checked, instead of a prompt or tool of
    # LlamaIndex's.

    def structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        return self._reply(self._shaped(output_cls, prompt, llm_kwargs, prompt_args)).parsed

    async def astructured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Any:
        reply = await call(self._reply, self._shaped(output_cls, prompt, llm_kwargs, prompt_args))
        return reply.parsed

    def stream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[Any, None, None]:
        """Yield the whole object at once, because it is checked before it is passed on."""
        yield self.structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)

    async def astream_structured_predict(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[Any, None]:
        async def whole() -> AsyncGenerator[Any, None]:
            yield await self.astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)

        return whole()

    def _shaped(
        self,
        output_cls: type[BaseModel],
        prompt: PromptTemplate,
        llm_kwargs: dict[str, Any] | None,
        prompt_args: dict[str, Any],
    ) -> dict[str, Any]:
        messages = self._extend_messages(prompt.format_messages(**prompt_args))
        return {**self._request(messages, dict(llm_kwargs or {})), "schema": output_cls}

    def _request(self, messages: Sequence[ChatMessage], extra: dict[str, Any]) -> dict[str, Any]:
        """The arguments for a client's `chat`. Raises InvalidRequest for options that it does not take."""
        unknown = sorted(extra.keys() - set(_OPTIONS))
        if unknown:
            raise InvalidRequest(
                f"chat takes no {unknown[0]!r} from LlamaIndex: it takes {', '.join(_OPTIONS)}",
                details={"argument": unknown[0]},
            )
        own = {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}
        return {"messages": [_wire(message) for message in messages], **own, **extra}


def _asked(prompt: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=prompt)]


# What comes


def _message(reply: Reply) -> ChatMessage:
    blocks: list[ContentBlock] = []
    if reply.reasoning:
        blocks.append(ThinkingBlock(content=reply.reasoning))
    calls = reply.message.get("tool_calls") or []
    if reply or not calls:
        blocks.append(TextBlock(text=str(reply)))
    for one in calls:
        function = one["function"]
        blocks.append(
            ToolCallBlock(
                tool_call_id=one["id"], tool_name=function["name"], tool_kwargs=function["arguments"]
            )
        )
    beside = {name: value for name, value in reply.message.items() if name not in _NOT_SENT}
    return ChatMessage(role=MessageRole.ASSISTANT, blocks=blocks, additional_kwargs=beside)


def _response(reply: Reply) -> ChatResponse:
    raw = {"model": reply.model, "usage": dict(reply.usage), "finish_reason": reply.finish_reason}
    tokens = {name: count for name, count in reply.usage.items() if isinstance(count, int)}
    return ChatResponse(message=_message(reply), raw=raw, additional_kwargs=tokens)


def _piece(text: str, piece: str) -> ChatResponse:
    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
    return ChatResponse(message=message, delta=piece)


def _end(stream: ReplyStream, text: str) -> Generator[ChatResponse, None, None]:
    """The whole reply, with tool calls and usage, which are only known at the end."""
    response = _response(stream.reply)
    response.delta = ""
    yield response


def _completion(response: ChatResponse) -> CompletionResponse:
    return CompletionResponse(
        text=response.message.content or "",
        delta=response.delta,
        raw=response.raw,
        additional_kwargs=response.additional_kwargs,
    )


# What goes


def _wire(message: ChatMessage) -> dict[str, Any]:
    """A message as OpenAI's API takes it. Raises InvalidRequest for blocks that it does not have."""
    role = _ROLES.get(message.role.value, message.role.value)
    beside = message.additional_kwargs
    wire: dict[str, Any] = {"role": role, "content": _content(message)}
    if role == "tool":
        return {**wire, "tool_call_id": beside.get("tool_call_id")}
    if role != "assistant":
        return {**wire, "name": beside["name"]} if beside.get("name") else wire
    calls = [_call(block) for block in message.blocks if isinstance(block, ToolCallBlock)]
    kept = {name: value for name, value in beside.items() if name not in (*_NOT_SENT, "tool_call_id")}
    if calls and not kept.get("tool_calls"):
        kept["tool_calls"] = calls
    if kept.get("tool_calls") and not wire["content"]:
        wire["content"] = None
    return {**wire, **kept}


def _content(message: ChatMessage) -> str | list[dict[str, Any]]:
    parts = [part for block in message.blocks if (part := _part(block)) is not None]
    if all(part["type"] == "text" for part in parts):
        return "\n".join(part["text"] for part in parts)
    return parts


def _part(block: ContentBlock) -> dict[str, Any] | None:
    """A block as a content part; None for blocks that are sent elsewhere or not at all."""
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            return {"type": "image_url", "image_url": {"url": _image(block), "detail": block.detail}}
        case AudioBlock():
            data = base64.b64encode(block.resolve_audio().read()).decode()
            return {"type": "input_audio", "input_audio": {"data": data, "format": block.format or "wav"}}
        case ToolCallBlock() | ThinkingBlock() | CachePoint():
            return None
    raise InvalidRequest(
        f"a message's block of type {block.block_type!r} cannot be sent to a chat model: give it as text",
        details={"block": block.block_type},
    )


def _image(block: ImageBlock) -> str:
    if block.url is not None:
        return str(block.url)
    data = base64.b64encode(block.resolve_image().read()).decode()
    return f"data:{block.image_mimetype or 'image/png'};base64,{data}"


def _call(block: ToolCallBlock) -> dict[str, Any]:
    return {
        "id": block.tool_call_id or "",
        "type": "function",
        "function": {"name": block.tool_name, "arguments": block.tool_kwargs},
    }
