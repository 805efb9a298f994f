"""What travels between client and core: the request and response of every operation.

Requests are strict: an unknown field or a wrong type is refused, never guessed at, on both transports alike.
"""

from __future__ import annotations

import base64
import re
import unicodedata
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    WithJsonSchema,
    field_validator,
    model_validator,
)


def _collection_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise ValueError(
            "a collection's name is 1 to 128 letters, digits, '_', '-' and '.', and begins with a letter or digit"
        )
    return name


CollectionName = Annotated[str, AfterValidator(_collection_name)]
DocumentId = Annotated[str, Field(min_length=1, max_length=512)]
_BASE64 = {"type": "string", "contentEncoding": "base64"}


class Request(BaseModel):
    """Base of everything a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Response(BaseModel):
    """Base of everything the core answers."""


class Empty(Request):
    """An operation that takes nothing."""


# Chat (OpenAI's wire: https://platform.openai.com/docs/api-reference/chat)
#
# What is listed here, down to the parts of a message, is all that reaches a model's server: such servers take more, and
# act on it. LiteLLM, for one, goes to the addresses that it finds in fields of its own, in `metadata`, and in tools.

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
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
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
    parameters: dict[str, JsonValue] | None = Field(None, description="a JSON schema")
    strict: bool | None = None


class CustomTool(Request):
    name: str
    description: str | None = None
    format: dict[str, JsonValue] | None = None


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
    tools: list[ToolReference]


class ToolChoice(Request):
    type: Literal["function", "custom", "allowed_tools"]
    function: ToolName | None = None
    custom: ToolName | None = None
    allowed_tools: AllowedTools | None = None


class JsonSchema(Request):
    name: str
    description: str | None = None
    schema_: dict[str, JsonValue] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Request):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class Prediction(Request):
    type: Literal["content"]
    content: str | list[Part]


class TemplateOptions(Request):
    """Of chat_template_kwargs, the switches; a template of the caller's own is refused."""

    enable_thinking: bool | None = None
    thinking: bool | None = None


class StructuredOutputs(Request):
    """What a JSON schema cannot say (vLLM's)."""

    choice: list[str] | None = Field(None, min_length=1)
    regex: str | None = None
    grammar: str | None = None


HISTORY = 100
"""Turns of a conversation that a question may come with."""


class ChatRequest(Request):
    messages: list[Message] = Field(min_length=1)
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    n: int | None = Field(None, ge=1, le=16)
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, Annotated[float, Field(ge=-100, le=100)]] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    json_schema: dict[str, JsonValue] | None = Field(
        None,
        alias="schema",
        exclude=True,
        description="JSON Schema that the reply's content has to fit; it is checked, and asked for once more",
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    prediction: Prediction | None = None
    modalities: list[Literal["text"]] | None = None
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


# Embeddings (OpenAI's wire)


_MANY = 2048


def _kind_of_input(value: Any) -> str:
    """Which of the types below is meant, so that an error speaks of that one only."""
    if not isinstance(value, list):
        return "str"
    match value[:1]:
        case [list()]:
            return "list[list[int]]"
        case [int()]:
            return "list[int]"
    return "list[str]"


TokenIds = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
EmbedInput = Annotated[
    Annotated[str, Tag("str")]
    | Annotated[list[str], Field(min_length=1, max_length=_MANY), Tag("list[str]")]
    | Annotated[TokenIds, Tag("list[int]")]
    | Annotated[list[TokenIds], Field(max_length=_MANY), Tag("list[list[int]]")],
    Discriminator(_kind_of_input),
]


class EmbedRequest(Request):
    input: EmbedInput = Field(
        description="one or several texts; or token ids of the model's own vocabulary, for a model that takes them"
    )
    model: str | None = None
    encoding_format: Literal["float", "base64", "bytes"] = Field(
        "float",
        description="bytes: not JSON, but a line of JSON (`data` left out, `dimension` added), then the vectors, one "
        "after the other, as little-endian float32",
    )
    dimensions: int | None = Field(None, ge=1, description="for a model whose vectors can be shortened")
    too_long: Literal["split", "truncate", "error"] = Field(
        "split",
        description="a text longer than the model takes is the mean of its parts, is cut off, or is refused",
    )
    user: str | None = None

    @property
    def texts(self) -> list[str]:
        """What is to be embedded, unless there are `token_ids`."""
        given: Any = [self.input] if isinstance(self.input, str) else self.input
        return given if isinstance(given[0], str) else []

    @property
    def token_ids(self) -> list[tuple[int, ...]]:
        given: Any = [self.input] if _kind_of_input(self.input) == "list[int]" else self.input
        return [tuple(ids) for ids in given] if isinstance(given[0], list) else []


class Embedding(Response):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str = Field(
        description="floats, or base64 of little-endian float32 where encoding_format is base64"
    )


class EmbeddingUsage(Response):
    prompt_tokens: int = 0
    total_tokens: int = 0


class Block(bytes):
    """A reply that is not JSON."""


class CutText(Response):
    """A text longer than the model takes."""

    index: int
    tokens: int | None = Field(description="null where the model's server does not tell")
    limit: int = Field(description="tokens that the model takes")
    parts: int = Field(description="how many parts of it are in the vector; 1 is its beginning")


class EmbeddingList(Response):
    object: Literal["list"] = "list"
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage
    cut: list[CutText] = []


# Rerank (Jina's and Cohere's wire: https://jina.ai/reranker)


class RerankRequest(Request):
    query: str = Field(min_length=1)
    documents: list[Annotated[str, Field(min_length=1)]] = Field(min_length=1, max_length=10_000)
    top_n: int | None = Field(None, ge=1, description="how many of the best to answer; all, if not given")
    model: str | None = None
    return_documents: bool = True


class RerankDocument(Response):
    text: str


class RerankResult(Response):
    index: int
    relevance_score: float
    document: RerankDocument | None = None


class RerankUsage(Response):
    prompt_tokens: int = 0
    total_tokens: int = 0


class RerankResponse(Response):
    model: str
    results: list[RerankResult] = Field(description="best first")
    usage: RerankUsage


# RAG


class Document(Request):
    id: DocumentId
    text: str
    metadata: dict[str, JsonValue] = {}


class RagIngestRequest(Request):
    documents: list[str | Document] = Field(min_length=1)
    collection: CollectionName
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    sync: bool = False
    plan: bool = Field(False, description="tell what would be done, and do nothing")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @field_validator("documents", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


def _file_name(name: str) -> str:
    """A path that leads nowhere but down, the same on every system."""
    printable = "".join(letter for letter in unicodedata.normalize("NFC", name) if letter.isprintable())
    parts = [part for part in printable.replace("\\", "/").split("/") if part.strip(" .")]
    if parts and re.fullmatch("[A-Za-z]:", parts[0]):
        del parts[0]
    if not parts:
        raise ValueError("a file needs a name")
    return "/".join(parts)


def _from_base64(value: Any) -> Any:
    try:
        return base64.b64decode(value, validate=True) if isinstance(value, str) else value
    except ValueError:
        raise ValueError("must be base64") from None


FileName = Annotated[DocumentId, AfterValidator(_file_name)]


class File(Request):
    name: FileName = Field(
        description="a path below the folder ingested: the document's id; its end tells the type"
    )
    content: Annotated[bytes, BeforeValidator(_from_base64), WithJsonSchema(_BASE64)]


class RagIngestFilesRequest(Request):
    files: list[File]
    collection: CollectionName
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")
    sync: bool = False
    keep: list[FileName] = Field(
        [], description="what sync is to leave, beside these files: those sent before"
    )
    plan: bool = Field(False, description="tell what would be done, and do nothing")
    stream: bool = Field(False, description="answer with progress events, then the report")

    @model_validator(mode="after")
    def _something_is_given(self) -> RagIngestFilesRequest:
        if not self.files and not self.keep:  # with sync, it would remove everything
            raise ValueError("there are no files")
        return self


class Failure(Response):
    id: str
    error: str


class IngestReport(Response):
    """The first four count documents; chunks, those written."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0
    deleted: int = 0
    failed: list[Failure] = []
    chunks: int = 0


class IngestPlan(IngestReport):
    """What a report would say, of so many documents in all; `tokens` and `seconds` are estimates."""

    documents: int = 0
    tokens: int = 0
    seconds: float = 0


Filters = Annotated[
    dict[str, JsonValue],
    Field(
        description="on metadata, all of them: {field: value}, {field: [any of these]}, {field: {gte, gt, lte, lt}}, "
        "{field: {exists: true or false}}, {field: {not: …}}; and {and: [filters, …]}, {or: [filters, …]}, "
        "{not: filters}"
    ),
]


class Retrieval(Request):
    """Which passages are wanted."""

    collection: CollectionName | Annotated[list[CollectionName], Field(min_length=1, max_length=32)]
    top_k: int = Field(5, ge=1, le=1000)
    filters: Filters | None = None
    mode: Literal["hybrid", "dense", "sparse"] = "hybrid"
    rerank: bool | Annotated[str, Field(min_length=1)] = Field(
        False, description="true, or a reranker's model"
    )
    min_score: float | None = Field(None, description="leave out what scores lower, on the scale of `score`")


class RagSearchRequest(Retrieval):
    query: str = Field(min_length=1)


class Place(Response):
    collection: str
    document_id: str
    chunk: int


class Hit(Response):
    text: str
    score: float = Field(
        description="a cosine (dense), BM25 (sparse), reciprocal rank fusion (hybrid) or the reranker's score"
    )
    document_id: str
    chunk: int
    collection: str
    metadata: dict[str, JsonValue]
    duplicates: list[Place] = Field([], description="where the same text is found, too")


class SearchResult(Response):
    hits: list[Hit]


class RagQueryRequest(Retrieval):
    question: str = Field(min_length=1)
    top_k: int = Field(5, ge=1, le=100)
    history: list[Message] | None = Field(None, max_length=HISTORY, description="what was said before")
    explain: bool = Field(False, description="tell how the answer came about")
    stream: bool = Field(False, description="answer with the sources, then pieces of text, then the whole")


class Source(Hit):
    number: int
    quote: str


class Candidate(Place):
    """A passage that retrieval came upon, and what became of it."""

    number: int | None = Field(description="of the source that it is; null where it was dropped before")
    text: str = Field(description="its beginning")
    score: float = Field(description="what it was ordered by, the last of the following that there is")
    dense: float | None = Field(None, description="cosine; null beyond the list's end")
    sparse: float | None = Field(None, description="BM25; null beyond the list's end")
    fused: float | None = Field(None, description="reciprocal rank fusion of both lists")
    rerank: float | None = Field(None, description="the reranker's")
    quote_score: float | None = Field(None, description="how well its best sentence fits the question")
    dropped: Literal["duplicate", "min_score", "top_k", "budget"] | None = Field(
        None, description="why the answer was not written from it"
    )


class Explanation(Response):
    question: str = Field(description="as it was searched for")
    candidates: list[Candidate] = Field(
        description="best first; those that were dropped before the others last"
    )
    fit: float | None = Field(description="how well the passages fit the question; null where a model judged")
    found: bool
    model: str
    prompt_tokens: int
    ms: dict[str, float] = Field(description="milliseconds of each step, in their order")


class QueryAnswer(Response):
    answer: str
    found: bool = Field(description="whether the passages tell")
    citations: list[int] = Field(description="numbers of the sources that the answer cites")
    sources: list[Source]
    model: str
    usage: dict[str, Any]
    explanation: Explanation | None = None


# Evaluation


class GoldQuestion(Request):
    question: str = Field(min_length=1)
    gold: (
        DocumentId
        | Annotated[list[DocumentId], Field(min_length=1)]
        | Annotated[dict[DocumentId, Annotated[int, Field(ge=0)]], Field(min_length=1)]
    ) = Field(description="the document that answers it, several, or each with how relevant it is")

    @property
    def relevance(self) -> dict[str, int]:
        """The gold documents, each with how relevant it is."""
        if isinstance(self.gold, dict):
            return self.gold
        return dict.fromkeys([self.gold] if isinstance(self.gold, str) else self.gold, 1)


class EvaluateRequest(Request):
    collection: CollectionName
    questions: list[GoldQuestion] = Field(min_length=1, max_length=10_000)
    k: int = Field(10, ge=1, le=100)
    stream: bool = Field(False, description="answer with progress events, then the evaluation")


class ModeScores(Response):
    """The means over all questions."""

    mode: str = Field(description="dense, sparse, hybrid, or hybrid+rerank where a reranker is set")
    recall: float = Field(description="share of the gold documents among the first k")
    mrr: float = Field(description="mean reciprocal rank of the first gold document among the first k")
    ndcg: float = Field(description="normalised discounted cumulative gain of the first k")
    ms: float = Field(description="milliseconds a search")


class QuestionScores(Response):
    question: str
    gold: list[str]
    ranks: dict[str, int | None] = Field(
        description="by mode, where the first gold document stands; null if not among the first k"
    )
    ndcg: dict[str, float] = Field(description="by mode")
    first: dict[str, str | None] = Field(description="by mode, the document that stands first")


class Evaluation(Response):
    collection: str
    k: int
    scores: list[ModeScores]
    questions: list[QuestionScores]


# Collections


class CollectionRequest(Request):
    collection: CollectionName


class CreateCollectionRequest(CollectionRequest):
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")


class CollectionInfo(Response):
    name: str
    embedding_model: str
    sparse_model: str
    dimension: int
    chunk_size: int
    chunk_overlap: int
    documents: int
    chunks: int
    created_at: str


class CollectionList(Response):
    collections: list[CollectionInfo]


class CollectionDeleted(Response):
    deleted: str
    documents: int


class ReindexRequest(CollectionRequest):
    model: str | None = Field(None, description="the embedding model that is set, lest it be another one")
    stream: bool = Field(False, description="answer with progress events, then the report")


class ReindexReport(Response):
    collection: str
    from_model: str
    to_model: str
    documents: int
    chunks: int
    seconds: float


class CollectionManifest(Request):
    """What an exported collection was made with."""

    embedding_model: str = Field(min_length=1, max_length=512)
    dimension: int = Field(ge=1, le=65_536)
    chunk_size: int = Field(ge=32, le=8192)
    chunk_overlap: int = Field(ge=0, le=4096)


class StoredChunk(Request):
    document_id: DocumentId
    hash: str = Field(min_length=1, max_length=64, description="of the document's content")
    number: int = Field(ge=0)
    total: int = Field(ge=1, description="chunks of the document")
    text: str
    metadata: dict[str, JsonValue] = {}
    place: dict[str, JsonValue] = {}
    vector: str = Field(description="base64 of little-endian float32")

    @model_validator(mode="after")
    def _within_its_document(self) -> StoredChunk:
        if self.number >= self.total:
            raise ValueError("number must be less than total")
        return self


class ExportRequest(CollectionRequest):
    limit: int = Field(500, ge=1, le=5000)
    cursor: str | None = None


class CollectionExport(Response):
    manifest: CollectionManifest
    chunks: list[StoredChunk]
    cursor: str | None = Field(None, description="where the next page starts; null after the last")


class ImportRequest(CollectionRequest):
    manifest: CollectionManifest | None = Field(None, description="with the first page")
    chunks: list[StoredChunk] = Field([], max_length=5000)
    token: str | None = Field(None, description="what the first page was answered with, with all others")
    last: bool = Field(False, description="make it a collection")
    abort: bool = Field(False, description="forget what came")


class ImportedCollection(Response):
    token: str | None = Field(None, description="to send the next page with; null after the last")
    documents: int = 0
    chunks: int = 0


class ListDocumentsRequest(CollectionRequest):
    limit: int = Field(100, ge=1, le=1000)
    cursor: str | None = None


class DocumentInfo(Response):
    id: str
    chunks: int
    metadata: dict[str, JsonValue]


class DocumentList(Response):
    documents: list[DocumentInfo]
    cursor: str | None = Field(None, description="where the next page starts; null after the last")


class DeleteDocumentsRequest(CollectionRequest):
    ids: list[DocumentId] = Field(min_length=1, max_length=10_000)


class DocumentsDeleted(Response):
    deleted: int


# Analysis


class AnalyzeRequest(Request):
    text: str = Field(pattern=r"\S", description="not blank")


class Analysis(Response):
    sentiment: Literal["positive", "negative", "neutral", "mixed"]
    sentiment_score: float = Field(ge=-1, le=1)
    key_points: list[str]
    summary: str
    model: str


# Jobs


_JobId = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$")]


def _moment(value: str) -> str:
    moment = datetime.fromisoformat(value)
    if moment.tzinfo is None:
        raise ValueError("a time needs its offset from UTC, as in 2030-01-31T09:00:00+01:00")
    return value


class SubmitJobRequest(Request):
    job_type: str
    params: dict[str, JsonValue]
    priority: int = Field(0, ge=-100, le=100, description="among the owner's jobs; higher is sooner")
    run_at: Annotated[str, AfterValidator(_moment)] | None = Field(
        None, description="not before; ISO 8601 with an offset from UTC"
    )
    depends_on: list[_JobId] | None = Field(
        None, max_length=1000, description="jobs that are to be completed first"
    )
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=255, description="submitting again with the same key is the same job"
    )
    webhook: str | None = Field(
        None, max_length=2000, description="a URL that is told of the job's end, signed with WEBHOOK_SECRET"
    )


class JobId(Response):
    id: str


class JobRequest(Request):
    job_id: _JobId


class JobEventsRequest(JobRequest):
    last_event_id: int = Field(0, ge=0, description="the last seen: what has changed since is told")
    stream: bool = Field(True, description="false: at most one event, what has changed so far")


class JobResultRequest(JobRequest):
    offset: int = Field(0, ge=0, description="rows to leave out")
    limit: int = Field(1000, ge=1, le=10_000, description="rows in one answer")
    encoding_format: Literal["json", "bytes"] = Field(
        "json",
        description="bytes: where rows are vectors, a line of JSON (`rows` left out, `count` and `dimension` added), then "
        "the vectors, one after the other, as little-endian float32",
    )
    stream: bool = Field(False, description="JSON lines, a row each, from offset to the last")


class ListJobsRequest(Request):
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    job_type: str | None = None
    limit: int = Field(50, ge=1, le=1000)


class JobProgress(Response):
    done: int = 0
    total: int = 0
    stage: str = ""
    rate: float | None = Field(None, description="a second")
    eta: float | None = Field(None, description="seconds that are left, at this rate")


class JobRows(Response):
    """What of a result comes in rows, from none to millions of them."""

    name: str
    count: int
    inline: bool = Field(
        False, description="whether they are in the result here; else they are read in pages"
    )
    dimension: int | None = Field(
        None, description="inline rows that are vectors: base64 of float32, all in one"
    )


class JobWebhook(Response):
    url: str
    tries: int
    delivered_at: str | None
    error: str | None


class JobStatus(Response):
    id: str
    type: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    owner: str
    progress: JobProgress
    attempts: int
    result: Any = None
    rows: JobRows | None = None
    expired: bool = Field(False, description="the result was kept for its time, and is no more")
    error: dict[str, Any] | None = None
    priority: int
    run_at: str | None = None
    depends_on: list[str] | None = None
    webhook: JobWebhook | None = None
    created_at: str
    started_at: str | None = None
    finished_at: str | None = None


class JobList(Response):
    jobs: list[JobStatus]


class JobEvent(Response):
    id: int
    job: JobStatus


class JobEvents(Response):
    events: list[JobEvent]


class JobResult(Response):
    result: dict[str, Any] = Field(description="without its rows")
    offset: int
    total: int
    rows: list[Any]


# Schedules


_ScheduleName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]


class SetScheduleRequest(Request):
    name: _ScheduleName
    cron: str = Field(
        max_length=100, description="minute, hour, day, month, weekday; six fields begin with seconds"
    )
    job_type: str
    params: dict[str, JsonValue]
    timezone: str = Field("UTC", max_length=64)
    priority: int = Field(0, ge=-100, le=100)


class ScheduleRequest(Request):
    name: _ScheduleName


class Schedule(Response):
    name: str
    cron: str
    timezone: str
    job_type: str
    priority: int
    next_at: str


class ScheduleList(Response):
    schedules: list[Schedule]


class ScheduleDeleted(Response):
    deleted: str


# Health


class Health(Response):
    status: Literal["ok"]
    version: str
    chat: str | None = Field(description="the chat model, or null where none is set up")
    embeddings: str


CheckName = Literal["chat", "embeddings", "rerank", "vectors", "data"]


class Check(Response):
    name: CheckName
    server: str = Field(description="who does it: a model server, or this process (embedded)")
    ok: bool
    url: str | None
    models: list[str]
    version: str | None
    limits: dict[str, int] = Field(
        description="context, dimension, input (tokens), batch (texts), collections, free_mb"
    )
    latency_ms: float
    fix: str | None = Field(description="what is wrong, and what to do")


class Diagnosis(Response):
    ok: bool
    version: str
    checks: list[Check]
