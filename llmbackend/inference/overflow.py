"""Prompts longer than a model takes: a typed error that tells how long, and how much it takes.

Nothing is counted beforehand, which would cost every call a request more; a refusal is looked into. Servers name their
limit in it, in words of their own, and few the exact length: that is asked of POST /tokenize, which vLLM has.
"""

from __future__ import annotations

import re
from typing import Any

from ..errors import InvalidRequest, LLMBackendError
from .upstream import Upstream

# As vLLM, OpenAI and LiteLLM (which quotes them) put it, and llama.cpp.
_LIMIT = re.compile(r"(?:maximum context length is|max_model_len=|context size \()\s*(\d+)", re.IGNORECASE)
_LENGTH = re.compile(r"(at least )?\b(\d+) (?:input )?tokens\b(?! and your request)", re.IGNORECASE)

COUNTING = 10  # seconds


def too_long(prompt: str, model: str, context: int, details: dict[str, Any]) -> InvalidRequest:
    """The error for a prompt of `prompt` tokens, to a model that takes `context`.

    LangChain knows it by the words "exceeds the context window", and then shortens the conversation.
    """
    return InvalidRequest(
        f"the prompt of {prompt} tokens exceeds the context window of {model}, which takes {context}: shorten it",
        details=details,
    )


async def overflow(
    refusal: InvalidRequest, upstream: Upstream, request: dict[str, Any]
) -> InvalidRequest | None:
    """The refusal as an error with `tokens` and `context` in its details; None if it is about something else."""
    said = refusal.message
    limit = _LIMIT.search(said)
    if limit is None:
        return None
    context = int(limit[1])
    model = request["model"]
    tokens, about = await _counted(upstream, request), ""
    if tokens is None:
        lengths = [found for found in _LENGTH.finditer(said) if int(found[2]) != context]
        if lengths:
            tokens, about = int(lengths[0][2]), lengths[0][1] or ""
    details = {**refusal.details, "context": context, "tokens": tokens}
    if tokens is None:
        return InvalidRequest(said, details=details)
    if tokens >= context:
        return too_long(f"{about}{tokens}", model, context, details)
    asked = request.get("max_completion_tokens") or request.get("max_tokens")
    return InvalidRequest(
        f"the prompt has {tokens} tokens, which with max_tokens={asked} is more than the {context} that {model} takes: "
        "ask for fewer, or shorten the prompt",
        details={**details, "max_tokens": asked},
    )


async def _counted(upstream: Upstream, request: dict[str, Any]) -> int | None:
    """The tokens of the prompt, by the server's own count; None where it has none."""
    root = upstream.root(COUNTING)
    fields = {name: request[name] for name in ("model", "messages", "tools") if request.get(name)}
    try:
        count = (await root.post("/tokenize", fields, retries=0))["count"]
        return count if isinstance(count, int) else None
    except (LLMBackendError, KeyError, TypeError):
        return None
    finally:
        await root.close()
