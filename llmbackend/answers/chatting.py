"""Serves chat requests: by the chat model, perhaps in a requested shape, or by an answer from a collection."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from .. import json_writing, threads
from ..errors import InvalidRequest
from ..inference import structured
from ..inference.chat import ChatModel
from ..plugins import AGENT
from ..schemas import ChatCompletion, ChatRequest
from . import rag_model
from .answers import Answering


@dataclass(frozen=True, slots=True)
class Chatting:
    chat: ChatModel
    answering: Answering

    async def reply(self, request: ChatRequest) -> ChatCompletion | bytes:
        if request.model and request.model.startswith(rag_model.PREFIX):
            answer = await self.answering.answered(rag_model.query(request))
            return ChatCompletion.model_validate(rag_model.completion(request.model, answer))
        if request.json_schema is not None:
            shaped = await structured.complete(self.chat, await _wire(request), request.json_schema)
            return await json_writing.dumps(shaped)
        return await self.chat.reply(await _wire(request))

    async def events(self, request: ChatRequest) -> AsyncGenerator[bytes]:
        if request.model and request.model.startswith(rag_model.PREFIX):
            usage = bool(request.stream_options and request.stream_options.include_usage)
            answer = self.answering.piecewise(rag_model.query(request))
            events: AsyncGenerator[bytes] = rag_model.chunks(request.model, answer, usage)
        else:
            events = self.chat.events(await _wire(request))
        async with aclosing(events):
            async for event in events:
                yield event


async def _wire(request: ChatRequest) -> dict[str, Any]:
    """Return the request as JSON fields for an OpenAI-compatible server. Raises InvalidRequest for an agent's name."""
    if request.model and request.model.startswith(AGENT):
        raise InvalidRequest(f"model: {request.model} is an agent: call it by run_agent, or on /v1/responses")
    return await threads.by_length(request.length, request.wire)
