"""Chat (OpenAI's wire: https://platform.openai.com/docs/api-reference/chat).

Only the fields listed here, down to the parts of a message, reach a model's server. Such servers accept more and act on
it: LiteLLM, for one, calls addresses that it finds in fields of its own, in `metadata`, and in tools.

What servers put into their own messages is sent back to them (`AsItCame`), because some need it: Gemini the signatures
of its thoughts, Anthropic the thoughts. Fields in there that name a server or a key are refused.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from .. import json_writing, slices
from .base import MEDIA_URL, Json, NullIs, Request, Response
from .json_schema import JsonSchemaObject

MESSAGES = 10_000
"""The most messages of a conversation; more than any model's context holds."""

TOOLS = 1000

LeftOut = Annotated[Json, Field(exclude=True)]
"""Accepted for clients that send it, and not passed on."""

CAME_CHARACTERS = 2**20
"""The most characters of such a field; reasoning and its signatures are long."""
CAME_LEVELS = 16
_LEADING_ELSEWHERE = frozenset(
    {
        "api_base",
        "base_url",
        "api_key",
        "api_version",
        "headers",
        "extra_headers",
        "extra_body",
        "extra_query",
    }
    | {"custom_llm_provider", "litellm_params", "litellm_metadata", "metadata", "mcp_servers", "server_url"}
    | {"fallbacks", "mock_response", "user_config", "model_list", "proxy", "authorization"}
)


def _as_it_came(value: Any) -> Any:
    size = 0
    left: list[tuple[Any, int]] = [(value, 1)]
    while left:
        slices.give_way()
        node, level = left.pop()
        if level > CAME_LEVELS:
            raise ValueError(f"is nested more than {CAME_LEVELS} deep: leave it out")
        if isinstance(node, dict):
            for name in node:
                if name.lower().replace("-", "_") in _LEADING_ELSEWHERE:
                    raise ValueError(f"{name!r} is not for callers to say")
                size += len(name) + 4
            left += [(one, level + 1) for one in node.values()]
        elif isinstance(node, list):
            left += [(one, level + 1) for one in node]
        size += len(node) + 4 if isinstance(node, str) else 4
        if size > CAME_CHARACTERS:
            raise ValueError(f"has more than {CAME_CHARACTERS} characters: leave it out")
    return None if value in ({}, [], "") else value


AsItCame = Annotated[Json, AfterValidator(_as_it_came)]
"""What a server put into its own message."""

_NONE_FOR_EMPTY = BeforeValidator(lambda value: None if value == [] else value)
_AS_TEXT = BeforeValidator(
    lambda value: json_writing.text(value) if isinstance(value, dict) else value,
    json_schema_input_type=str | dict[str, Json],
)


def _refused(why: str) -> BeforeValidator:
    def refuse(value: Any) -> None:
        if value is not None:
            raise ValueError(why)

    return BeforeValidator(refuse)


class StreamOptions(Request):
    include_usage: Annotated[bool, NullIs(False)] = False
    include_obfuscation: bool | None = None


class ImageUrl(Request):
    # Not a file on the model's server.
    url: str = Field(pattern=MEDIA_URL, description="the image: a data: URL, or a URL")
    detail: Literal["auto", "low", "high", "original"] | None = None


class VideoUrl(Request):
    url: str = Field(pattern=MEDIA_URL)


class InputAudio(Request):
    data: str = Field(description="base64")
    format: str


class InputFile(Request):
    file_data: str | None = Field(None, description="base64")
    file_id: str | None = None
    filename: str | None = None


class Part(Request):
    """A part of a message; its content is in the field that its type names."""

    type: Literal["text", "image_url", "video_url", "input_audio", "file", "refusal", "thinking", "reference"]
    text: str | None = None
    image_url: ImageUrl | None = None
    video_url: VideoUrl | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    refusal: str | None = None
    # In Mistral's replies.
    thinking: AsItCame = None
    signature: str | None = None
    closed: bool | None = None
    reference_ids: AsItCame = None
    cache_control: LeftOut = None
    prompt_cache_breakpoint: LeftOut = None


Parts = Annotated[list[Part], Field(max_length=1000)]


class CalledFunction(Request):
    name: str
    arguments: Annotated[str, _AS_TEXT, NullIs("{}")] = Field(description="JSON")
    provider_specific_fields: AsItCame = None
    parsed_arguments: LeftOut = None


class CalledCustomTool(Request):
    name: str
    input: str


class ToolCall(Request):
    id: str
    type: Annotated[Literal["function", "custom"], NullIs("function")] = "function"
    function: CalledFunction | None = None
    custom: CalledCustomTool | None = None
    extra_content: AsItCame = None
    provider_specific_fields: AsItCame = None
    index: LeftOut = None


class Message(Request):
    """A message of a conversation. A model's reply may be sent back unchanged."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall] | None, _NONE_FOR_EMPTY] = Field(None, max_length=TOOLS)
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    annotations: AsItCame = None
    citations: AsItCame = None
    extra_content: AsItCame = None
    provider_specific_fields: AsItCame = None
    reasoning_details: AsItCame = None
    search_results: AsItCame = None
    thinking_blocks: AsItCame = None
    # Also in replies, but no model reads them; LiteLLM would fetch images.
    audio: LeftOut = None
    function_call: LeftOut = None
    images: LeftOut = None
    parsed: LeftOut = None

    @model_validator(mode="after")
    def _only_replies_come(self) -> Self:
        if self.role != "assistant":
            said = vars(self)
            for field in OF_REPLIES:
                if said[field] is not None:
                    raise ValueError(
                        f"{field} belongs to a reply, not to a message of the {self.role}: leave it out"
                    )
        return self


OF_REPLIES = (
    *("annotations", "citations", "extra_content", "provider_specific_fields", "reasoning_details"),
    *("search_results", "thinking_blocks"),
)
"""What servers put into a message besides text, thoughts and tool calls."""


class Function(Request):
    name: str
    description: str | None = None
    parameters: JsonSchemaObject | None = Field(None, description="a JSON Schema")
    strict: bool | None = None


class CustomTool(Request):
    name: str
    description: str | None = None
    format: JsonSchemaObject | None = None


class Tool(Request):
    """A tool that the caller runs; tools that a server would run are refused."""

    type: Literal["function", "custom"]
    function: Function | None = None
    custom: CustomTool | None = None


class ToolName(Request):
    name: str


class ToolReference(Request):
    type: Literal["function", "custom"]
    function: ToolName | None = None
    custom: ToolName | None = None


class AllowedTools(Request):
    mode: Literal["auto", "required"]
    tools: list[ToolReference] = Field(max_length=TOOLS)


class ToolChoice(Request):
    type: Literal["function", "custom", "allowed_tools"]
    function: ToolName | None = None
    custom: ToolName | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Request):
    name: str
    description: str | None = None
    schema_: JsonSchemaObject | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Request):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Prediction(Request):
    type: Literal["content"]
    content: str | Parts


class TemplateOptions(Request):
    """The switches in chat_template_kwargs; a caller's own template is refused."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class StructuredOutputs(Request):
    """What a JSON schema cannot say (vLLM's)."""

    choice: list[Annotated[str, Field(max_length=4096)]] | None = Field(None, min_length=1, max_length=10_000)
    regex: str | None = Field(None, max_length=2**14)
    grammar: str | None = Field(None, max_length=2**18)


Stop = Annotated[str, Field(min_length=1, max_length=1000)]

PART = 32
"""Writing out a part of a message takes as long as writing this many characters."""


def parts(turns: Iterable[Any]) -> int:
    """The number of a conversation's turns and of the parts in them."""
    return sum(1 + (len(one.content) if isinstance(one.content, list) else 0) for one in turns)


HISTORY = 100
"""The most earlier messages that may come with a question."""


class ChatRequest(Request):
    messages: list[Message] = Field(min_length=1, max_length=MESSAGES)
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=16)
    stop: Stop | Annotated[list[Stop], Field(max_length=16)] | None = None
    seed: int | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = Field(None, max_length=10_000)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = Field(None, max_length=TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    json_schema: JsonSchemaObject | None = Field(
        None,
        alias="schema",
        exclude=True,
        description="a JSON Schema that the reply has to fit; a reply that does not is asked for once more",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: Prediction | None = None
    modalities: list[Literal["text"]] | None = Field(None, max_length=1)
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = Field(False, exclude=True)
    stream_options: StreamOptions | None = None

    # Beyond OpenAI, by its clients' extra_body.
    top_k: int | None = Field(None, ge=-1)
    min_p: float | None = Field(None, ge=0, le=1)
    repetition_penalty: float | None = Field(None, gt=0, le=2)
    chat_template_kwargs: TemplateOptions | None = None
    structured_outputs: StructuredOutputs | None = None

    # Only for OpenAI's own service: storage and pricing.
    metadata: LeftOut = None
    store: LeftOut = None
    service_tier: LeftOut = None
    prompt_cache_options: LeftOut = None
    prompt_cache_retention: LeftOut = None

    functions: Annotated[None, _refused("OpenAI has deprecated it: send tools")] = None
    function_call: Annotated[None, _refused("OpenAI has deprecated it: send tool_choice")] = None
    audio: Annotated[None, _refused("replies are text here, not speech")] = None
    web_search_options: Annotated[None, _refused("models do not search the web here: pass a tool")] = None
    moderation: Annotated[None, _refused("there is no moderation model here")] = None

    @property
    def length(self) -> int:
        """The number of characters that take as long to write out as the messages, their parts, tools and
        tool calls."""
        calls = sum(len(one.tool_calls) for one in self.messages if one.tool_calls)
        return PART * (parts(self.messages) + calls + len(self.tools or ()))

    @model_validator(mode="after")
    def _a_shape_is_for_one_whole_reply(self) -> Self:
        if self.json_schema is not None:
            for field in ("stream", "response_format"):
                if getattr(self, field):
                    raise ValueError(f"schema and {field} exclude each other: leave one of them out")
            if (self.n or 1) > 1:
                raise ValueError("schema is for one reply: leave out n")
        return self


class ChatCompletion(Response):
    """A completion exactly as the model's server gave it."""

    model_config = ConfigDict(extra="allow")

    model: str
    choices: list[dict[str, Any]]
    usage: dict[str, Any] | None = None


class Model(Response):
    id: str
    object: Literal["model"] = "model"
    type: Literal["chat", "embedding", "agent", "rag"] = Field(
        description="agent: of /v1/responses and /v1/agents/run"
    )
    owned_by: str = "llmbackend"
    created: int = 0
    context_window: int | None = Field(
        None, description="tokens of prompt and reply together; only for the default chat model"
    )
    tools: bool | None = Field(None, description="whether the chat model is expected to call tools")


class ModelList(Response):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelRequest(Request):
    model: str = Field(min_length=1)
