"""The kinds of job that are built in: long forms of what the operations do, batch by batch."""

from __future__ import annotations

import time
from typing import Annotated, Any

import anyio
from pydantic import AfterValidator, Field, WithJsonSchema

from .. import loading, threads
from ..errors import LLMBackendError
from ..inference.embeddings import added, require
from ..knowledge.collections import rebuild
from ..knowledge.ingest.ingest import ingest
from ..schemas import ChatRequest, CollectionName, Document, Message, RagIngestRequest, Request
from ..schemas.rag import DOCUMENTS
from .context import Context
from .registry import job_type

EMBED_BATCH = 512
FIRST_BATCH = 64
"""Small, so that an attempt soon has something to show; grows while batches take less than a second."""
CHAT_BATCH = 32
CHATS_AT_ONCE = 8


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
    while results.count < total:
        context.progress(results.count, total, "embed")
        began = time.monotonic()
        vectors = await embedder.embed(params.texts[results.count : results.count + size])
        if time.monotonic() - began < 1:
            size = min(2 * size, EMBED_BATCH)
        results.append_vectors(vectors.values)
        tokens = added(state["tokens"], vectors.total)
        state = {"dimension": int(vectors.values.shape[1]), "tokens": tokens}
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
    results, total = context.results, len(params.prompts)
    failed: int = (context.resume or {}).get("failed", 0)
    limit = anyio.CapacityLimiter(CHATS_AT_ONCE)

    async def ask(index: int, into: list[Any], place: int) -> None:
        async with limit:
            into[place] = await _reply(context, params, index)
        context.progress(results.count + sum(one is not None for one in into), total, "chat")

    while results.count < total:
        context.progress(results.count, total, "chat")
        indexes = range(results.count, min(results.count + CHAT_BATCH, total))
        replies: list[Any] = [None] * len(indexes)
        async with anyio.create_task_group() as asking:
            for place, index in enumerate(indexes):
                asking.start_soon(ask, index, replies, place)
        results.append(replies)
        failed += sum(one["error"] is not None for one in replies)
        if results.count < total:
            await context.checkpoint({"failed": failed})
    context.progress(total, total, "done")
    return {"count": total, "failed": failed}


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

    state: dict[str, Any] = context.resume or {"done": 0, "failed": []}
    total = len(params.documents)
    for number in range(state["done"], total):
        context.progress(number, total, "analyze")
        given = params.documents[number]
        name, text = (str(number), given) if isinstance(given, str) else (given.id, given.text)
        try:
            analysis = await analyze(
                context.services.chat,
                context.services.embedder,
                context.services.judge,
                text,
                context.services.answer_links,
            )
            context.results.append([{"id": name, **analysis.model_dump()}])
        except LLMBackendError as error:
            state["failed"].append({"id": name, "error": error.message})
        state["done"] = number + 1
        await context.checkpoint(state)
    context.progress(total, total, "done")
    return {"failed": state["failed"]}
