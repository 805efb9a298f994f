"""A collection as a chat model: `model="rag/<collection>"` on OpenAI's chat route answers from its documents."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from ..errors import InvalidRequest
from ..schemas import ChatRequest, QueryAnswer
from ..sse import DONE, event

PREFIX = "rag/"


def question(request: ChatRequest) -> str:
    """What is asked: the text of the last user message; raises InvalidRequest if there is none."""
    for message in reversed(request.messages):
        if message.role == "user":
            if isinstance(message.content, str):
                return message.content
            return "\n".join(part.text or "" for part in message.content or [] if part.type == "text")
    raise InvalidRequest(f"messages: {request.model} answers a user message, and there is none")


def completion(model: str, answer: QueryAnswer) -> dict[str, Any]:
    """The answer as a chat.completion; its sources are beside the choices."""
    message = {"role": "assistant", "content": answer.answer}
    return {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
        "usage": answer.usage,
        "sources": [source.model_dump() for source in answer.sources],
    }


async def chunks(
    model: str, events: AsyncIterator[dict[str, Any]], include_usage: bool
) -> AsyncIterator[bytes]:
    """The events of an answer (see answers.stream) as chat.completion.chunk events; sources are in the first."""
    base = {
        "id": f"chatcmpl-{uuid.uuid4().hex}",
        "object": "chat.completion.chunk",
        "created": int(time.time()),
        "model": model,
    }

    def piece(delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        return {**base, "choices": [{"index": 0, "delta": delta, "finish_reason": finish_reason}]}

    async for item in events:
        if "sources" in item:
            yield event({**piece({"role": "assistant", "content": ""}), "sources": item["sources"]})
        elif "delta" in item:
            yield event(piece({"content": item["delta"]}))
        else:
            yield event(piece({}, "stop"))
            if include_usage:
                yield event({**base, "choices": [], "usage": item["answer"]["usage"]})
    yield DONE
