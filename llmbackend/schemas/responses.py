"""OpenAI's Responses: requests and response objects."""

from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, JsonValue, model_validator

from .base import MEDIA_URL, CollectionName, NullIs, PartName, Request, Response, form
from .chat import MESSAGES, PART, TOOLS, LeftOut, _refused, parts
from .json_schema import JsonSchemaObject
from .metadata import Filters

ResponseId = Annotated[
    str, Field(pattern=form(r"^resp_[A-Za-z0-9_-]{1,128}$", "a response's id, which begins with resp_"))
]

ApprovalId = Annotated[
    str,
    Field(
        pattern=form(
            r"^mcpr_[A-Za-z0-9-]{1,64}_[0-9]{1,4}$", "an approval request's id, which begins with mcpr_"
        )
    ),
]

SERVER_LABEL = "llmbackend"
"""The MCP server's label by which an agent's tools are requested on OpenAI's wire."""

LETTERS = 2**25
"""The most characters of a text; the limit on a request's bytes is reached first."""


class InputPart(Request):
    """A part of an item's content; it is in the field that its type names."""

    type: Literal[
        "input_text",
        "output_text",
        "text",
        "refusal",
        "summary_text",
        "reasoning_text",
        "input_image",
        "input_file",
    ]
    text: Annotated[str, Field(max_length=LETTERS)] | None = None
    refusal: str | None = None
    image_url: str | None = Field(None, pattern=MEDIA_URL, description="the image: a data: URL, or a URL")
    detail: Literal["auto", "low", "high", "original"] | None = None
    filename: str | None = None
    file_data: str | None = Field(None, description="base64, or a data: URL")
    file_id: str | None = None
    file_url: str | None = None
    annotations: LeftOut = None
    logprobs: LeftOut = None
    prompt_cache_breakpoint: LeftOut = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        if self.file_id is not None:
            raise ValueError("file_id: no files are kept here: send the content, or search a collection")
        if self.file_url is not None:
            raise ValueError("file_url: files are not fetched here: send file_data")
        field = {"refusal": "refusal", "input_image": "image_url", "input_file": "file_data"}.get(
            self.type, "text"
        )
        if getattr(self, field) is None:
            raise ValueError(f"{field} is missing: {self.type} needs it")
        return self


InputParts = Annotated[list[InputPart], Field(max_length=1000)]
ItemStatus = Literal["in_progress", "completed", "incomplete", "searching", "failed"]


class InputItem(Request):
    """A message, or a tool's call or result. Items of an output may be sent back unchanged."""

    type: Annotated[
        Literal[
            "message",
            "function_call",
            "function_call_output",
            "reasoning",
            "file_search_call",
            "mcp_approval_request",
            "mcp_approval_response",
            "item_reference",
        ],
        NullIs("message"),
    ] = "message"
    id: str | None = Field(None, max_length=256)
    status: ItemStatus | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: Annotated[str, Field(max_length=LETTERS)] | InputParts | None = None
    phase: Literal["commentary", "final_answer"] | None = None
    call_id: str | None = Field(None, min_length=1, max_length=256)
    name: str | None = Field(None, min_length=1, max_length=256)
    arguments: str | None = Field(None, description="JSON")
    output: Annotated[str, Field(max_length=LETTERS)] | InputParts | None = None
    summary: InputParts | None = None
    encrypted_content: str | None = None
    queries: list[str] | None = Field(None, max_length=1000)
    server_label: str | None = Field(None, max_length=256)
    approval_request_id: ApprovalId | None = None
    approve: bool | None = None
    reason: str | None = Field(None, max_length=10_000, description="the reason, which the agent is told")
    results: LeftOut = None
    namespace: LeftOut = None
    created_by: LeftOut = None
    caller: LeftOut = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        needed = {
            "message": ("role", "content"),
            "function_call": ("call_id", "name", "arguments"),
            "function_call_output": ("call_id", "output"),
            "mcp_approval_response": ("approval_request_id", "approve"),
            "item_reference": ("id",),
        }.get(self.type, ())
        for field in needed:
            if getattr(self, field) is None:
                raise ValueError(f"{field} is missing: a {self.type} needs it")
        return self


class FileSearchRanking(Request):
    ranker: str | None = Field(None, description="accepted for OpenAI's clients; it changes nothing")
    score_threshold: float | None = Field(None, description="leave out passages with a lower score")
    hybrid_search: LeftOut = None


class ToolNames(Request):
    tool_names: list[PartName] = Field(max_length=TOOLS)


class ResponseTool(Request):
    """A function that the caller runs, `file_search` over collections, which is done here, or (`mcp`) an agent's tools."""

    type: Literal["function", "file_search", "mcp"]
    name: str | None = Field(None, min_length=1, max_length=256)
    description: str | None = None
    parameters: JsonSchemaObject | None = Field(None, description="a JSON Schema")
    strict: bool | None = None
    vector_store_ids: list[CollectionName] | None = Field(
        None, min_length=1, max_length=32, description="names of collections"
    )
    max_num_results: int | None = Field(None, ge=1, le=50)
    filters: Filters | None = Field(None, description="filters as for a search, or OpenAI's")
    ranking_options: FileSearchRanking | None = None
    server_label: Literal["llmbackend"] | None = Field(
        None, description="for mcp: stands for the tools that are listed with the agents"
    )
    allowed_tools: Annotated[list[PartName], Field(max_length=TOOLS)] | ToolNames | None = Field(
        None, description="the tools that the agent may call"
    )
    require_approval: Annotated[Literal["always", "never"], NullIs("always")] = Field(
        "always", description="always: calls of tools that write wait for an mcp_approval_response"
    )
    server_url: Annotated[None, _refused("MCP servers are those of the settings (AGENT_MCP)")] = None
    connector_id: Annotated[None, _refused("there are no connectors here")] = None
    defer_loading: LeftOut = None
    allowed_callers: LeftOut = None
    output_schema: LeftOut = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        field = {"function": "name", "mcp": "server_label"}.get(self.type, "vector_store_ids")
        if getattr(self, field) is None:
            raise ValueError(f"{field} is missing: a tool of type {self.type} needs it")
        return self

    @property
    def names(self) -> list[str] | None:
        """The tools that the agent may call."""
        allowed = self.allowed_tools
        return allowed.tool_names if isinstance(allowed, ToolNames) else allowed


class NamedTool(Request):
    type: Literal["function", "file_search"]
    name: str | None = None


class ResponseToolChoice(Request):
    type: Literal["function", "file_search", "allowed_tools"]
    name: str | None = None
    mode: Literal["none", "auto", "required"] | None = None
    tools: list[NamedTool] | None = Field(None, min_length=1, max_length=TOOLS)

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        field = {"function": "name", "allowed_tools": "tools"}.get(self.type)
        if field is not None and getattr(self, field) is None:
            raise ValueError(f"{field} is missing: {self.type} needs it")
        return self


class TextFormat(Request):
    type: Annotated[Literal["text", "json_object", "json_schema"], NullIs("json_schema")] = "json_schema"
    name: str | None = Field(None, min_length=1, max_length=64)
    description: str | None = None
    schema_: JsonSchemaObject | None = Field(None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _has_what_its_type_says(self) -> Self:
        if self.type == "json_schema" and self.schema_ is None:
            raise ValueError("schema is missing: json_schema needs one")
        return self


class TextOptions(Request):
    format: TextFormat | None = None
    verbosity: Literal["low", "medium", "high"] | None = None


class ReasoningOptions(Request):
    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    summary: Literal["auto", "concise", "detailed"] | None = None
    generate_summary: LeftOut = None
    context: LeftOut = None
    mode: LeftOut = None


class ResponseStreamOptions(Request):
    include_obfuscation: bool | None = None


Includes = Literal[
    "file_search_call.results",
    "message.output_text.logprobs",
    "reasoning.encrypted_content",
    "message.input_image.image_url",
    "computer_call_output.output.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
    "code_interpreter_call.outputs",
]
"""Only the first two have an effect. Clients send the others by default; there is no such content here."""


class RespondRequest(Request):
    input: (
        Annotated[str, Field(max_length=LETTERS)]
        | Annotated[list[InputItem], Field(min_length=1, max_length=MESSAGES)]
    )
    model: str | None = None
    instructions: str | None = Field(None, max_length=LETTERS)
    previous_response_id: ResponseId | None = None
    tools: list[ResponseTool] | None = Field(None, max_length=TOOLS)
    tool_choice: Literal["none", "auto", "required"] | ResponseToolChoice | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = Field(None, ge=1)
    text: TextOptions | None = None
    reasoning: ReasoningOptions | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    top_logprobs: int | None = Field(None, ge=0, le=20)
    max_output_tokens: int | None = Field(None, ge=1)
    truncation: Annotated[Literal["auto", "disabled"], NullIs("disabled")] = Field(
        "disabled", description="auto: leave out the oldest turns if all are too long for the model"
    )
    include: list[Includes] | None = Field(None, max_length=16)
    metadata: (
        Annotated[
            dict[Annotated[str, Field(max_length=64)], Annotated[str, Field(max_length=512)]],
            Field(max_length=16),
        ]
        | None
    ) = None
    store: Annotated[bool, NullIs(True)] = Field(
        True, description="store it, to be read later and continued by previous_response_id"
    )
    background: Annotated[bool, NullIs(False)] = Field(False, description="run it as a job; needs store")
    user: str | None = Field(None, max_length=512)
    safety_identifier: str | None = Field(None, max_length=512)
    prompt_cache_key: str | None = Field(None, max_length=512)
    stream: Annotated[bool, NullIs(False)] = False
    stream_options: ResponseStreamOptions | None = None

    # Only for OpenAI's own service.
    service_tier: LeftOut = None
    prompt_cache_options: LeftOut = None
    prompt_cache_retention: LeftOut = None
    background_options: LeftOut = None
    access_programs: LeftOut = None

    conversation: Annotated[None, _refused("conversations are not kept: send previous_response_id")] = None
    prompt: Annotated[None, _refused("there are no prompt templates here: send instructions")] = None
    context_management: Annotated[None, _refused("nothing is compacted here: send truncation")] = None
    moderation: Annotated[None, _refused("there is no moderation model here")] = None
    image: Annotated[None, _refused("no images are made here")] = None

    @model_validator(mode="after")
    def _what_runs_later_is_kept(self) -> Self:
        if self.background and not self.store:
            raise ValueError("background needs store: it could not be read afterwards")
        return self

    @property
    def length(self) -> int:
        """The number of characters that take as long to write out as the items and their parts."""
        return 0 if isinstance(self.input, str) else PART * parts(self.input)

    @property
    def file_searches(self) -> list[ResponseTool]:
        return [tool for tool in self.tools or () if tool.type == "file_search"]


class StoredResponseRequest(Request):
    response_id: ResponseId


class GetResponseRequest(StoredResponseRequest):
    include: str | None = Field(
        None, alias="include[]", description="accepted for OpenAI's clients; it changes nothing"
    )
    stream: bool = Field(False, description="answer with events, from the first or after starting_after")
    starting_after: int | None = Field(None, ge=0, description="the sequence_number of the last event seen")
    include_obfuscation: bool | None = None


class ListInputItemsRequest(StoredResponseRequest):
    limit: int = Field(20, ge=1, le=100)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = Field(None, max_length=256, description="the id of the last item seen")
    include: str | None = Field(
        None, alias="include[]", description="accepted for OpenAI's clients; it changes nothing"
    )


class ResponseObject(Response):
    """OpenAI's response object."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    model: str
    output: list[dict[str, Any]]
    error: dict[str, JsonValue] | None = None
    incomplete_details: dict[str, JsonValue] | None = None
    usage: dict[str, Any] | None = None


class ResponseDeleted(Response):
    id: str
    object: Literal["response"] = "response"
    deleted: Literal[True] = True


class InputItemList(Response):
    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool
