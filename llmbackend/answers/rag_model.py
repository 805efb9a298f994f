"""Offers a collection as a chat model: `model="rag/<collection>"` on OpenAI's chat route answers from its documents."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from pydantic import ValidationError

from ..errors import InvalidRequest, NotFound
from ..schemas import HISTORY, ChatRequest, InstructedQuery, QueryAnswer
from ..sse import DONE, event
from .conversation import text

PREFIX = "rag/"


def query(request: ChatRequest) -> InstructedQuery:
    """Turn a chat request into a query: the last user message is the question, the messages before it are its history.

    System and developer messages become instructions for the model that writes the answer. Raises InvalidRequest if there
    is no user message, or it is empty, or functions or a shape are requested, and NotFound if no collection can have that
    name.
    """
    model = request.model or ""
    shape = None
    if request.json_schema is not None:
        shape = "schema"
    elif request.response_format and request.response_format.type != "text":
        shape = "response_format"
    require_words(model, calls=bool(request.tools) and request.tool_choice != "none", shape=shape)
    turns = [message for message in request.messages if message.role in ("user", "assistant")]
    while turns and turns[-1].role != "user":
        turns.pop()
    if not turns:
        raise InvalidRequest(f"messages: {model} answers a user message, but there is none")
    question = text(turns[-1])
    if not question.strip():
        raise InvalidRequest(f"messages: {model} answers the last user message, but it is empty")
    instructions = [text(message) for message in request.messages if message.role in ("system", "developer")]
    try:
        return InstructedQuery(
            question=question,
            collection=model.removeprefix(PREFIX),
            history=turns[:-1][-HISTORY:],
            instructions="\n\n".join(instructions) or None,
        )
    except ValidationError:
        raise NotFound(f"no model {model!r}: see the list of models") from None


def require_words(model: str, *, calls: bool, shape: str | None, instead: str = "ask a chat model") -> None:
    """Raise InvalidRequest if the request allows function `calls`, or its field `shape` asks for something but words."""
    if shape is not None:
        raise InvalidRequest(f"{shape}: {model} answers in words and quotes: {instead}")
    if calls:
        raise InvalidRequest(f"tools: {model} calls no functions: {instead}, or leave them out")


def completion(model: str, answer: QueryAnswer) -> dict[str, Any]:
    """Return the answer as a chat.completion, with an extra field `sources`."""
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
) -> AsyncGenerator[bytes]:
    """Yield an answer's events (see `Answering.piecewise`) as chat.completion.chunk events; the first has the sources."""
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
