"""Chat (OpenAI's wire: https://platform.openai.com/docs/api-reference/chat).

What is listed here, down to the parts of a message, is all that reaches a model's server: such servers take more, and
act on it. LiteLLM, for one, goes to the addresses that it finds in fields of its own, in `metadata`, and in tools.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)

from .base import Request, Response
from .json_schema import JsonSchemaObject

MESSAGES = 10_000
"""Turns of a conversation: more than any model's context holds."""

TOOLS = 1000

LeftOut = Annotated[JsonValue, Field(exclude=True)]
"""Taken, so that clients which send it need not be changed, and not passed on."""


def _refused(why: str) -> BeforeValidator:
    def refuse(value: Any) -> None:
        if value is not None:
            raise ValueError(why)

    return BeforeValidator(refuse)


class StreamOptions(Request):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class ImageUrl(Request):
    # Not a file of the server's own.
    url: str = Field(pattern=r"^(https?://|data:)", description="the image as a data: URL, or where it is")
    detail: Literal["auto", "low", "high", "original"] | None = None


class VideoUrl(Request):
    url: str = Field(pattern=r"^(https?://|data:)")


class InputAudio(Request):
    data: str = Field(description="base64")
    format: str


class InputFile(Request):
    file_data: str | None = Field(None, description="base64")
    file_id: str | None = None
    filename: str | None = None


class Part(Request):
    """A part of a message, in the field that its type names."""

    type: Literal["text", "image_url", "video_url", "input_audio", "file", "refusal"]
    text: str | None = None
    image_url: ImageUrl | None = None
    video_url: VideoUrl | None = None
    input_audio: InputAudio | None = None
    file: InputFile | None = None
    refusal: str | None = None
    cache_control: LeftOut = None
    prompt_cache_breakpoint: LeftOut = None


Parts = Annotated[list[Part], Field(max_length=1000)]


class CalledFunction(Request):
    name: str
    arguments: str = Field(description="JSON")


class CalledCustomTool(Request):
    name: str
    input: str


class ToolCall(Request):
    id: str
    type: Literal["function", "custom"] = "function"
    function: CalledFunction | None = None
    custom: CalledCustomTool | None = None
    index: LeftOut = None


class Message(Request):
    """A turn of a conversation. What a model replied may be sent back as it came."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Parts | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = Field(None, max_length=TOOLS)
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    # Of replies: nothing that a model reads.
    annotations: LeftOut = None
    audio: LeftOut = None
    function_call: LeftOut = None
    images: LeftOut = None
    provider_specific_fields: LeftOut = None
    thinking_blocks: LeftOut = None


class Function(Request):
    name: str
    description: str | None = None
    parameters: JsonSchemaObject | None = Field(None, description="a JSON schema")
    strict: bool | None = None


class CustomTool(Request):
    name: str
    description: str | None = None
    format: JsonSchemaObject | None = None


class Tool(Request):
    """A tool that the caller runs; those that a server would run are refused."""

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
    """Of chat_template_kwargs, the switches; a template of the caller's own is refused."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class StructuredOutputs(Request):
    """What a JSON schema cannot say (vLLM's)."""

    choice: list[Annotated[str, Field(max_length=4096)]] | None = Field(None, min_length=1, max_length=10_000)
    regex: str | None = Field(None, max_length=2**14)
    grammar: str | None = Field(None, max_length=2**18)


Stop = Annotated[str, Field(max_length=1000)]

HISTORY = 100
"""Turns of a conversation that a question may come with."""


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
        description="JSON Schema that the reply's content has to fit; it is checked, and asked for once more",
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

    # About OpenAI's own service: what it keeps, and what it is paid.
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

    @model_validator(mode="after")
    def _a_shape_is_for_one_whole_reply(self) -> ChatRequest:
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
    type: Literal["chat", "embedding", "rag"]
    owned_by: str = "llmbackend"
    created: int = 0


class ModelList(Response):
    object: Literal["list"] = "list"
    data: list[Model]


class ModelRequest(Request):
    model: str = Field(min_length=1)
