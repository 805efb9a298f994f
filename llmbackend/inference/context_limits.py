"""Refusals of what is longer than a model takes: how long it is, and how much the model takes.

Nothing is counted beforehand, which would cost every call a request more; a refusal is looked into. Servers name their
limit in it, in words of their own, and few the exact length: that is asked of POST /tokenize, which vLLM has.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ..errors import InvalidRequest, LLMBackendError
from .upstream import Upstream

# As vLLM, OpenAI and LiteLLM (which quotes them) put it, llama.cpp, and TEI.
_LIMIT = re.compile(
    r"(?:maximum context length is|max_model_len=|context size \(|must have less than)\s*(\d+)(?!\d| characters)",
    re.IGNORECASE,
)
_LENGTH = re.compile(
    r"(at least )?\b(\d+) (?:input )?tokens\b(?! and your request)|\bGiven: (\d+)", re.IGNORECASE
)

COUNTING = 10  # seconds


class Length(NamedTuple):
    """How many tokens a text has, if known, and how many the model takes."""

    tokens: int | None
    limit: int
    at_least: bool = False
    """Whether it was counted no further."""


def told(refusal: str) -> Length | None:
    """The lengths in a refusal; None if it is about something else."""
    limit = _LIMIT.search(refusal)
    if limit is None:
        return None
    for found in _LENGTH.finditer(refusal):
        tokens = int(found[2] or found[3])
        if tokens != int(limit[1]):
            return Length(tokens, int(limit[1]), bool(found[1]))
    return Length(None, int(limit[1]))


def too_long(prompt: str, model: str, context: int, details: dict[str, Any]) -> InvalidRequest:
    """The error for a prompt of `prompt` tokens, to a model that takes `context`.

    LangChain knows it by the words "exceeds the context window", and then shortens the conversation.
    """
    return InvalidRequest(
        f"the prompt of {prompt} tokens exceeds the context window of {model}, which takes {context}: shorten it",
        details=details,
    )


async def overflow(
    refusal: InvalidRequest, upstream: Upstream, request: dict[str, Any], deadline: float
) -> InvalidRequest | None:
    """The refusal as an error with `tokens` and `context` in its details; None if it is about something else."""
    length = told(refusal.message)
    if length is None:
        return None
    context, model = length.limit, request["model"]
    root = upstream.root(COUNTING)
    try:
        tokens = await counted(
            root,
            {name: request[name] for name in ("model", "messages", "tools") if request.get(name)},
            deadline,
        )
    finally:
        await root.close()
    about = ""
    if tokens is None:
        tokens, about = length.tokens, "at least " if length.at_least else ""
    details = {**refusal.details, "context": context, "tokens": tokens}
    if tokens is None:
        return InvalidRequest(refusal.message, details=details)
    if tokens >= context:
        return too_long(f"{about}{tokens}", model, context, details)
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    return InvalidRequest(
        f"the prompt has {tokens} tokens, which with max_tokens={asked} is more than the {context} that {model} takes: "
        "ask for fewer, or shorten the prompt",
        details={**details, "max_tokens": asked},
    )


async def counted(root: Upstream, fields: dict[str, Any], deadline: float | None = None) -> int | None:
    """The tokens of a chat or a text, by the server's own count; None where it has none."""
    try:
        count = (await root.post("/tokenize", fields, deadline, retries=0))["count"]
        return count if isinstance(count, int) else None
    except (LLMBackendError, KeyError, TypeError):
        return None
