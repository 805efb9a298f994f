"""The kinds of job that are built in: long forms of what the operations do, batch by batch."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field, WithJsonSchema

from .. import loading, threads
from ..errors import LLMBackendError
from ..inference.embeddings import EmbeddingBatch, added, require
from ..knowledge.collections import rebuild
from ..knowledge.ingest.ingest import ingest
from ..knowledge.pipeline import side_by_side
from ..schemas import Analysis, ChatRequest, CollectionName, Document, Message, RagIngestRequest, Request
from ..schemas.rag import DOCUMENTS
from .context import Context
from .registry import job_type

EMBED_BATCH = 4096
"""Texts, at most, and ..."""
FIRST_BATCH = 64
"""... at first: an attempt soon has something to show. Doubles while a batch takes less than half of BATCH_SECONDS."""
BATCH_SECONDS = 1.0
"""How long a batch may take: what is not saved yet is done again after a kill."""
BATCHES_AT_ONCE = 2
"""With one, an embedding server would have nothing to do between two batches."""
SAVED_TOGETHER = 32
"""Replies or analyses, at most, and all that came within SAVE_SECONDS."""
SAVE_SECONDS = 1.0
WINDOW = 8
"""For each that is asked for at once, so many may be there before one that takes long."""


_Made = TypeVar("_Made")


class BatchEmbedParams(Request):
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=500_000)]
    model: str | None = None


@job_type(
    "batch_embed",
    BatchEmbedParams,
    rows="embeddings",
    check=lambda services, params: require(services.embedder, params.model),
    rights=("chat",),
    asks="embedding",
)
async def batch_embed(context: Context, params: BatchEmbedParams) -> dict[str, Any]:
    """`{model, dimension, tokens, count, embeddings}`: a vector a text, in order; tokens is null where not told."""
    embedder, results, total = context.services.embedder, context.results, len(params.texts)
    state: dict[str, Any] = {"dimension": 0, "tokens": 0, **(context.resume or {})}
    size = FIRST_BATCH

    async def batches() -> AsyncGenerator[list[str]]:
        start = results.count
        while start < total:
            batch = params.texts[start : start + size]
            start += len(batch)
            yield batch

    async def embed(batch: list[str]) -> EmbeddingBatch:
        nonlocal size
        began = time.monotonic()
        vectors = await embedder.embed(batch)
        if time.monotonic() - began < BATCH_SECONDS / 2:
            size = max(size, min(2 * len(batch), EMBED_BATCH))
        return vectors

    context.progress(results.count, total, "embed")
    async with side_by_side(batches(), embed, BATCHES_AT_ONCE) as embedded:
        async for vectors in embedded:
            results.append_vectors(vectors.values)
            tokens = added(state["tokens"], vectors.total)
            state = {"dimension": int(vectors.values.shape[1]), "tokens": tokens}
            context.progress(results.count, total, "embed")
            if results.count < total:
                await context.checkpoint(state)
    context.progress(total, total, "done")
    return {"model": embedder.name, **state, "count": total}


class BatchChatParams(Request):
    prompts: Annotated[
        list[str | Annotated[list[Message], Field(min_length=1)]], Field(min_length=1, max_length=100_000)
    ]
    system: str | None = None
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)


@job_type("batch_chat", BatchChatParams, rows="replies", rights=("chat",), asks="chat")
async def batch_chat(context: Context, params: BatchChatParams) -> dict[str, Any]:
    """`{count, failed, replies: [{index, reply, model, usage, error}]}`, in order; one that fails leaves the others."""
    failed: int = (context.resume or {}).get("failed", 0)
    async with _each(context, len(params.prompts), "chat", partial(_reply, context, params)) as replies:
        async for reply, due in replies:
            context.results.append([reply])
            failed += reply["error"] is not None
            if due:
                await context.checkpoint({"failed": failed})
    context.progress(len(params.prompts), len(params.prompts), "done")
    return {"count": len(params.prompts), "failed": failed}


@asynccontextmanager
async def _each(
    context: Context,
    total: int,
    stage: str,
    work: Callable[[int], Awaitable[_Made]],
    first: int | None = None,
) -> AsyncIterator[AsyncIterator[tuple[_Made, bool]]]:
    """What `work` makes of each number up to `total`, in order, CHATS_AT_ONCE at the same time, and whether to save now.

    It begins with `first`, else with the first that has no row in the result yet.
    """
    done = start = context.results.count if first is None else first
    at_once = context.services.chats_at_once

    async def numbers() -> AsyncGenerator[int]:
        for number in range(start, total):
            yield number

    async def make(number: int) -> _Made:
        nonlocal done
        made = await work(number)
        done += 1
        context.progress(done, total, stage)
        return made

    async def saving(items: AsyncIterator[_Made]) -> AsyncGenerator[tuple[_Made, bool]]:
        unsaved, saved, number = 0, time.monotonic(), start
        async for item in items:
            unsaved, number = unsaved + 1, number + 1
            due = unsaved >= SAVED_TOGETHER or time.monotonic() - saved >= SAVE_SECONDS
            yield item, due and number < total
            if due:
                unsaved, saved = 0, time.monotonic()

    context.progress(done, total, stage)
    async with (
        side_by_side(numbers(), make, at_once, window=WINDOW * at_once) as made,
        aclosing(saving(made)) as items,
    ):
        yield items


async def _reply(context: Context, params: BatchChatParams, index: int) -> dict[str, Any]:
    prompt = params.prompts[index]
    turns = [Message(role="user", content=prompt)] if isinstance(prompt, str) else prompt
    if params.system is not None:
        turns = [Message(role="system", content=params.system), *turns]
    asked = {name: getattr(params, name) for name in ("model", "temperature", "max_tokens")}
    told: dict[str, Any] = {"index": index, "reply": None, "model": None, "usage": None, "error": None}
    try:
        request = ChatRequest(messages=turns, **{name: one for name, one in asked.items() if one is not None})
        wire = request.model_dump(exclude_unset=True, exclude_none=True, by_alias=True)
        said = await context.services.chat.complete(wire)
    except LLMBackendError as error:
        return {**told, "error": {"code": error.code, "message": error.message}}
    reply = said["choices"][0]["message"].get("content")
    return {**told, "reply": reply, "model": said.get("model"), "usage": said.get("usage")}


def _is_not(value: bool) -> bool:
    if value:
        raise ValueError("a job takes false only")
    return value


_False = Annotated[bool, AfterValidator(_is_not), WithJsonSchema({"const": False})]


class RagIngestParams(RagIngestRequest):
    """A job writes, and tells its progress by itself."""

    plan: _False = False
    stream: _False = False


@job_type("rag_ingest", RagIngestParams, where="collections")
async def rag_ingest(context: Context, params: RagIngestParams) -> dict[str, Any]:
    """An ingest report. What an earlier attempt stored is unchanged, and costs nothing: no checkpoint is needed."""
    services = context.services
    collection = await services.collections.get_or_create(
        context.collection(params.collection), params.chunk_size, params.chunk_overlap
    )
    report = await ingest(
        collection,
        params.documents,
        services.embedder,
        sync=params.sync,
        progress=lambda done, total, stage, stages: context.progress(done, total, stage),
    )
    return report.model_dump()


class ReindexParams(Request):
    collection: CollectionName
    model: str | None = None


@job_type(
    "reindex",
    ReindexParams,
    where="here",
    tidy=lambda services, unfinished: services.collections.physical.tidy_after_jobs(unfinished),
)
async def reindex(context: Context, params: ReindexParams) -> dict[str, Any]:
    """A reindex report. The new vectors are in a copy until the end, which a later attempt goes on with."""
    report = await rebuild.reindex(
        context.services.collections,
        context.collection(params.collection),
        model=params.model,
        progress=context.progress,
        job=context,
    )
    return report.model_dump()


class AnalyzeDocumentsParams(Request):
    documents: Annotated[list[str | Document], Field(min_length=1, max_length=DOCUMENTS)]


@job_type("analyze_documents", AnalyzeDocumentsParams, rows="analyses", rights=("chat",), asks="chat")
async def analyze_documents(context: Context, params: AnalyzeDocumentsParams) -> dict[str, Any]:
    """`{failed: [{id, error}], analyses: [{id, sentiment, …}]}`; a bare text's id is its place in the list."""
    await threads.files(loading.llamaindex)
    from ..analysis.workflow import analyze

    services = context.services
    state: dict[str, Any] = context.resume or {"done": 0, "failed": []}
    total = len(params.documents)

    async def analysed(number: int) -> tuple[str, Analysis | LLMBackendError]:
        given = params.documents[number]
        name, text = (str(number), given) if isinstance(given, str) else (given.id, given.text)
        try:
            return name, await analyze(
                services.chat, services.embedder, services.judge, text, services.answer_links
            )
        except LLMBackendError as error:
            return name, error

    async with _each(context, total, "analyze", analysed, first=state["done"]) as analyses:
        async for (name, analysis), due in analyses:
            if isinstance(analysis, LLMBackendError):
                state["failed"].append({"id": name, "error": analysis.message})
            else:
                context.results.append([{"id": name, **analysis.model_dump()}])
            state["done"] += 1
            if due:
                await context.checkpoint(state)
    context.progress(total, total, "done")
    return {"failed": state["failed"]}
