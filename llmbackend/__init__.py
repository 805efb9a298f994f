"""llmbackend: chat, embeddings, RAG, jobs and document analysis behind one class, in process or over HTTP."""

from __future__ import annotations

import typing

import llm_client
from llm_client import *  # noqa: F403
from llm_client import __version__

if typing.TYPE_CHECKING:
    from .async_client import AsyncAgentStream, AsyncAnswerStream, AsyncLLMBackendClient, AsyncReplyStream

__all__ = [
    "AsyncAgentStream",
    "AsyncAnswerStream",
    "AsyncLLMBackendClient",
    "AsyncReplyStream",
    "__version__",
]
__all__ += llm_client.__all__


def __getattr__(name: str) -> typing.Any:
    """Import the asynchronous client when it is first used, because it also needs what runs in this process."""
    if name.startswith("Async") and name in __all__:
        from .importing import uncollected

        with uncollected():
            from . import async_client
        return getattr(async_client, name)
    if name == "load_ipython_extension":  # `%load_ext llmbackend`
        from .notebook import magic

        return magic.load
    raise AttributeError(f"module 'llmbackend' has no attribute {name!r}")
