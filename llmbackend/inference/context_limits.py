"""Refusals of texts that are too long for a model: how long the text is, and how much the model takes.

Nothing is counted beforehand, as that would cost every call another request. Instead, refusals are read.
Servers name their limit in words of their own, and few tell the exact length, so it is asked for by POST
/tokenize, which vLLM has.
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ..errors import InvalidRequest, LLMBackendError
from .upstream import Upstream

# The wordings of vLLM, OpenAI and LiteLLM (which quotes them), of llama.cpp, and of TEI.
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
    """Whether the server stopped counting at `tokens`."""


def told(refusal: str) -> Length | None:
    """Read the lengths in a refusal; None if it is about something else."""
    limit = _LIMIT.search(refusal)
    if limit is None:
        return None
    for found in _LENGTH.finditer(refusal):
        tokens = int(found[2] or found[3])
        if tokens != int(limit[1]):
            return Length(tokens, int(limit[1]), bool(found[1]))
    return Length(None, int(limit[1]))


def too_long(prompt: str, model: str, context: int, details: dict[str, Any]) -> InvalidRequest:
    """The error for a prompt of `prompt` tokens that is too long for the model's `context`.

    LangChain recognizes it by the words "exceeds the context window", and then shortens the conversation.
    """
    return InvalidRequest(
        f"the prompt of {prompt} tokens exceeds the context window of {model}, which takes {context}: shorten it",
        details=details,
    )


async def overflow(
    refusal: InvalidRequest, upstream: Upstream, request: dict[str, Any], deadline: float
) -> InvalidRequest | None:
    """The error for a refusal because of length, with `tokens` and `context` in its details; None for any
    other refusal."""
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
    """The number of tokens in a chat or a text, as the server counts them; None if it cannot."""
    try:
        count = (await root.post("/tokenize", fields, deadline, retries=0))["count"]
        return count if isinstance(count, int) else None
    except (LLMBackendError, KeyError, TypeError):
        return None
