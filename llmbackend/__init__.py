"""llmbackend: chat, embeddings, RAG, jobs and document analysis behind one class, in process or over HTTP."""

from __future__ import annotations

from llm_client import (
    Answer,
    BackendError,
    BackendTimeout,
    Conflict,
    Embeddings,
    Forbidden,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    Overloaded,
    Record,
    Reply,
    StreamInterrupted,
    TooLarge,
    TransportError,
    Unauthorized,
)

__version__ = "0.1.0"

__all__ = [
    "Answer",
    "BackendError",
    "BackendTimeout",
    "Conflict",
    "Embeddings",
    "Forbidden",
    "InvalidRequest",
    "LLMBackendClient",
    "LLMBackendError",
    "NotFound",
    "Overloaded",
    "Record",
    "Reply",
    "StreamInterrupted",
    "TooLarge",
    "TransportError",
    "Unauthorized",
    "__version__",
]
