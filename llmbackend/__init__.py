"""llmbackend: chat, embeddings, RAG, jobs and document analysis behind one class, in process or over HTTP."""

from __future__ import annotations

import typing

from llm_client import (
    AgentRun,
    AgentStream,
    Analysis,
    Answer,
    AnswerStream,
    BackendError,
    BackendTimeout,
    ChunkInfo,
    CollectionHandle,
    CollectionInfo,
    Conflict,
    CreatedKey,
    DocumentInfo,
    Embeddings,
    EmbeddingsFile,
    Evaluation,
    Explanation,
    Forbidden,
    Health,
    Hit,
    Hits,
    IngestReport,
    InsufficientStorage,
    InvalidRequest,
    Job,
    JobExpired,
    KeyInfo,
    LLMBackendClient,
    LLMBackendError,
    MethodNotAllowed,
    ModelInfo,
    NotFound,
    Overloaded,
    ParsedReply,
    RankedText,
    Record,
    Records,
    Reply,
    ReplyStream,
    RequestTimeout,
    Source,
    StoredDocument,
    StreamInterrupted,
    TooLarge,
    ToolCall,
    Transport,
    TransportError,
    Unauthorized,
    Usage,
    __version__,
)

if typing.TYPE_CHECKING:
    from .async_client import AsyncAgentStream, AsyncAnswerStream, AsyncLLMBackendClient, AsyncReplyStream

__all__ = [
    "AgentRun",
    "AgentStream",
    "Analysis",
    "Answer",
    "AnswerStream",
    "AsyncAgentStream",
    "AsyncAnswerStream",
    "AsyncLLMBackendClient",
    "AsyncReplyStream",
    "BackendError",
    "BackendTimeout",
    "ChunkInfo",
    "CollectionHandle",
    "CollectionInfo",
    "Conflict",
    "CreatedKey",
    "DocumentInfo",
    "Embeddings",
    "EmbeddingsFile",
    "Evaluation",
    "Explanation",
    "Forbidden",
    "Health",
    "Hit",
    "Hits",
    "IngestReport",
    "InsufficientStorage",
    "InvalidRequest",
    "Job",
    "JobExpired",
    "KeyInfo",
    "LLMBackendClient",
    "LLMBackendError",
    "MethodNotAllowed",
    "ModelInfo",
    "NotFound",
    "Overloaded",
    "ParsedReply",
    "RankedText",
    "Record",
    "Records",
    "Reply",
    "ReplyStream",
    "RequestTimeout",
    "Source",
    "StoredDocument",
    "StreamInterrupted",
    "TooLarge",
    "ToolCall",
    "Transport",
    "TransportError",
    "Unauthorized",
    "Usage",
    "__version__",
]


def __getattr__(name: str) -> typing.Any:
    """The client for `await` is imported when it is asked for: it needs what runs in this process, too."""
    if name in ("AsyncAgentStream", "AsyncAnswerStream", "AsyncLLMBackendClient", "AsyncReplyStream"):
        from . import async_client

        return getattr(async_client, name)
    if name == "load_ipython_extension":  # `%load_ext llmbackend`
        from .notebook import magic

        return magic.load
    raise AttributeError(f"module 'llmbackend' has no attribute {name!r}")
