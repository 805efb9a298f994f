"""Many chats as a job. Equal prompts are asked once, each chat is retried on its own, and a plan estimates
the cost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import anyio

from .. import slices, threads, usage
from ..access.decision import Asks
from ..backoff import passing
from ..chunks.tokens import tokens_of
from ..errors import BackendError, LLMBackendError, Overloaded
from ..inference import structured
from ..jobs.context import Context
from ..jobs.registry import job_type
from ..schemas import BatchChat, BatchChatParams, BatchChatRequest, ChatRequest, Message
from ..schemas.usage import Price
from .concurrent_items import each

PAUSE = 0.5
"""Seconds before the first retry; doubled before each further one, up to MOST_PAUSE."""
MOST_PAUSE = 30.0
AROUND = 4
"""About how many tokens a chat template adds to a message, rounded up."""


@job_type("batch_chat", BatchChatParams, rows="replies", rights=("chat",), asks="chat")
async def batch_chat(context: Context, params: BatchChatParams) -> dict[str, Any]:
    """`{count, failed, replies: [{index, reply, parsed, model, usage, error, same_as}]}`, in order; one
    failure stops no others.

    A repeated prompt is `same_as` the first one's index, and has no usage of its own.
    """
    total = len(params.prompts)
    failed: int = (context.resume or {}).get("failed", 0)
    firsts = await threads.processor(_firsts, params)
    repeated = {first: asyncio.Event() for index, first in enumerate(firsts) if first != index}
    known: dict[int, dict[str, Any]] = {}
    if context.results.count and repeated:
        known = {row["index"]: row for row in await context.saved_rows() if row["index"] in repeated}

    async def reply(index: int) -> dict[str, Any]:
        if (first := firsts[index]) != index:  # which was started earlier
            if first not in known:
                await repeated[first].wait()
            return {**known[first], "index": index, "usage": None, "same_as": first}
        told = await _reply(context, params, index)
        if index in repeated:
            known[index] = told
            repeated[index].set()
        return told

    async with each(context, total, "chat", reply) as replies:
        async for told, due in replies:
            context.results.append([told])
            failed += told["error"] is not None
            if due:
                await context.checkpoint({"failed": failed})
    context.progress(total, total, "done")
    return {"count": total, "failed": failed}


def _firsts(params: BatchChatParams) -> list[int]:
    """For each prompt, the index of the first equal one; with a temperature, its own, since replies are then
    samples."""
    if params.temperature:
        return list(range(len(params.prompts)))
    seen: dict[str, int] = {}
    return [seen.setdefault(_key(prompt), index) for index, prompt in enumerate(params.prompts)]


def _key(prompt: str | Sequence[Message]) -> str:
    slices.give_way()
    if isinstance(prompt, str):
        return prompt
    return "\n" + json.dumps([message.model_dump(exclude_none=True) for message in prompt])


async def _reply(context: Context, params: BatchChatParams, index: int) -> dict[str, Any]:
    told: dict[str, Any] = {"index": index, "reply": None, "model": None, "usage": None, "error": None}
    if params.json_schema is not None:
        told["parsed"] = None
    pause = PAUSE
    for left in range(params.retries, -1, -1):
        try:
            said = await _asked(context, params, params.prompts[index])
            break
        except LLMBackendError as error:
            if not left or not _for_now(error):
                return {**told, "error": {"code": error.code, "message": error.message}}
            await anyio.sleep(min(MOST_PAUSE, error.details.get("retry_after") or pause))
            pause *= 2
    reply = said["choices"][0]["message"].get("content")
    told |= {"reply": reply, "model": said.get("model"), "usage": said.get("usage")}
    return {**told, "parsed": json.loads(reply)} if params.json_schema is not None else told


async def _asked(context: Context, params: BatchChatParams, prompt: str | list[Message]) -> dict[str, Any]:
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    if params.system is not None:
        turns = [Message(role="system", content=params.system), *turns]
    asked = {name: getattr(params, name) for name in ("model", "temperature", "max_tokens")}
    request = ChatRequest(messages=turns, **{name: one for name, one in asked.items() if one is not None})
    wire = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
    if params.json_schema is not None:
        return await structured.complete(context.services.chat, wire, params.json_schema)
    return await context.services.chat.complete(wire)


def _for_now(error: LLMBackendError) -> bool:
    """Whether a retry may succeed."""
    status = error.details.get("status")
    return isinstance(error, BackendError | Overloaded) and (status is None or passing(status))


@dataclass(frozen=True, slots=True)
class ChatBatches:
    """Starts and plans jobs of many chats."""

    begin_job: Callable[[str, dict[str, Any]], Awaitable[str]]
    default: Callable[[Asks], Awaitable[str]]
    """Returns the model of a kind that is asked if a request names none."""
    prices: Mapping[str, Price]

    async def begin(self, asked: BatchChatRequest) -> BatchChat:
        """Submit the job, or only estimate what it would take. Raises like `Submission.submit`."""
        if asked.plan:
            return await _plan(asked, asked.model or await self.default("chat"), self.prices)
        told = await threads.processor(_count, asked)
        params = asked.model_dump(exclude_unset=True, by_alias=True, exclude={"plan"})
        told.id = await self.begin_job("batch_chat", params)
        return told


async def _plan(params: BatchChatParams, model: str, prices: Mapping[str, Price]) -> BatchChat:
    """What the job would take with this model."""
    told = await threads.processor(_counted, params)
    told.model = model
    if params.max_tokens is not None:
        told.completion_tokens = params.max_tokens * told.distinct
    if prices:
        counts = {"prompt_tokens": told.prompt_tokens or 0, "completion_tokens": told.completion_tokens or 0}
        told.cost = usage.cost({"model": model, "embedded_tokens": 0, **counts}, prices)
    return told


def _count(params: BatchChatParams) -> BatchChat:
    """The numbers of prompts and of distinct ones."""
    return BatchChat(count=len(params.prompts), distinct=len(set(_firsts(params))))


def _counted(params: BatchChatParams) -> BatchChat:
    told, read = _count(params), 0
    beside = len(tokens_of(params.system)) + AROUND if params.system else 0
    for index in set(_firsts(params)):
        prompt = params.prompts[index]
        texts = [prompt] if isinstance(prompt, str) else [_text(message) for message in prompt]
        read += beside + sum(len(tokens_of(text)) + AROUND for text in texts)
    told.prompt_tokens = read
    return told


def _text(message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    return " ".join(part.text or "" for part in message.content or ())
