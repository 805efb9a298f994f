"""What travels between client and core: the request and response of every operation.

Requests are strict: an unknown field or a wrong type is refused, never guessed at, on both transports alike.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    field_validator,
)


def _collection_name(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}", name):
        raise ValueError(
            "a collection's name is 1 to 128 letters, digits, '_', '-' and '.', and begins with a letter or digit"
        )
    return name


CollectionName = Annotated[str, AfterValidator(_collection_name)]
DocumentId = Annotated[str, Field(min_length=1, max_length=512)]


class Request(BaseModel):
    """Base of everything a caller sends."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Response(BaseModel):
    """Base of everything the core answers."""


class Empty(Request):
    """An operation that takes nothing."""


# Chat (OpenAI's wire: https://platform.openai.com/docs/api-reference/chat)


class StreamOptions(Request):
    include_usage: bool = False
    include_obfuscation: bool | None = None


class Message(BaseModel):
    """A turn of a conversation; fields beyond these (tool calls, names) pass to the model as they are."""

    model_config = ConfigDict(extra="allow", strict=True)

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[dict[str, JsonValue]] | None = None


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
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: list[dict[str, JsonValue]] | None = None
    tool_choice: str | dict[str, JsonValue] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, JsonValue] | None = None
    user: str | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


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
    stream: bool = Field(False, description="answer with progress events, then the report")

    @field_validator("documents", mode="before")
    @classmethod
    def _one_is_a_list_of_one(cls, value: Any) -> Any:
        return [value] if isinstance(value, str | dict) else value


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


Filters = dict[str, JsonValue]


class RagSearchRequest(Request):
    query: str = Field(min_length=1)
    collection: CollectionName | Annotated[list[CollectionName], Field(min_length=1, max_length=32)]
    top_k: int = Field(5, ge=1, le=1000)
    filters: Filters | None = None
    mode: Literal["hybrid", "dense", "sparse"] = "hybrid"


class Hit(Response):
    text: str
    score: float
    document_id: str
    chunk: int
    collection: str
    metadata: dict[str, JsonValue]


class SearchResult(Response):
    hits: list[Hit]


class RagQueryRequest(Request):
    question: str = Field(min_length=1)
    collection: CollectionName | Annotated[list[CollectionName], Field(min_length=1, max_length=32)]
    top_k: int = Field(5, ge=1, le=100)
    filters: Filters | None = None
    stream: bool = Field(False, description="answer with the sources, then pieces of text, then the whole")


class Source(Hit):
    number: int
    quote: str


class QueryAnswer(Response):
    answer: str
    found: bool
    sources: list[Source]
    model: str
    usage: dict[str, Any]


# Collections


class CollectionRequest(Request):
    collection: CollectionName


class CreateCollectionRequest(CollectionRequest):
    chunk_size: int | None = Field(None, ge=32, le=8192, description="tokens")
    chunk_overlap: int | None = Field(None, ge=0, le=4096, description="tokens")


class CollectionInfo(Response):
    name: str
    embedding_model: str
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


class SubmitJobRequest(Request):
    job_type: str
    params: dict[str, JsonValue]


class JobId(Response):
    id: str


class JobRequest(Request):
    job_id: str = Field(pattern=r"^[A-Za-z0-9-]{1,64}$")


class ListJobsRequest(Request):
    status: Literal["queued", "running", "completed", "failed", "cancelled"] | None = None
    job_type: str | None = None
    limit: int = Field(50, ge=1, le=1000)


class JobProgress(Response):
    done: int = 0
    total: int = 0
    stage: str = ""


class JobStatus(Response):
    id: str
    type: str
    status: Literal["queued", "running", "completed", "failed", "cancelled"]
    progress: JobProgress
    attempts: int
    result: Any = None
    error: dict[str, Any] | None = None
    created_at: str
    finished_at: str | None = None


class JobList(Response):
    jobs: list[JobStatus]


# Health


class Health(Response):
    status: Literal["ok"]
    version: str
    chat: str | None = Field(description="the chat model, or null where none is set up")
    embeddings: str
