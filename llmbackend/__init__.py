"""llmbackend: chat, embeddings, RAG, jobs and document analysis behind one class, in process or over HTTP."""

from __future__ import annotations

from llm_client import (
    Answer,
    AnswerStream,
    BackendError,
    BackendTimeout,
    Conflict,
    Embeddings,
    Forbidden,
    InvalidRequest,
    Job,
    JobExpired,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    Overloaded,
    Record,
    Records,
    Reply,
    ReplyStream,
    StreamInterrupted,
    TooLarge,
    Transport,
    TransportError,
    Unauthorized,
)

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "AnswerStream",
    "BackendError",
    "BackendTimeout",
    "Conflict",
    "Embeddings",
    "Forbidden",
    "InvalidRequest",
    "Job",
    "JobExpired",
    "LLMBackendClient",
    "LLMBackendError",
    "NotFound",
    "Overloaded",
    "Record",
    "Records",
    "Reply",
    "ReplyStream",
    "StreamInterrupted",
    "TooLarge",
    "Transport",
    "TransportError",
    "Unauthorized",
    "__version__",
]
