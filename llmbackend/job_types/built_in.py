"""Built-in job types: operations on large inputs, batch by batch."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema

from ..errors import LLMBackendError
from ..inference.embeddings import EmbeddingBatch, added, require
from ..jobs.context import Context
from ..jobs.registry import job_type
from ..knowledge.collections import rebuild
from ..knowledge.ingest.ingest import ingest
from ..pipeline import side_by_side
from ..schemas import Analysis, CollectionName, Document, RagIngestRequest, Request
from ..schemas.rag import DOCUMENTS
from .concurrent_items import each

EMBED_BATCH = 4096
"""The most texts of a batch."""
FIRST_BATCH = 64
"""The texts of the first batch, so that progress shows soon. Doubled while batches take less than half of
BATCH_SECONDS."""
BATCH_SECONDS = 1.0
"""How long a batch may take. After a kill, unsaved work has to be done again."""
BATCHES_AT_ONCE = 2
"""With one batch at a time, an embedding server would idle between two batches."""


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
    """`{model, dimension, tokens, count, embeddings}`: a vector per text, in order; tokens is null if unknown."""
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

    async def keep(vectors: EmbeddingBatch) -> None:
        nonlocal state
        results.append_vectors(vectors.values)
        tokens = added(state["tokens"], vectors.total)
        state = {"dimension": int(vectors.values.shape[1]), "tokens": tokens}
        context.progress(results.count, total, "embed")
        if results.count < total:
            await context.checkpoint(state)

    context.progress(results.count, total, "embed")
    if total - results.count <= size:  # a single batch: extra tasks would cost more than the texts
        await keep(await embed(params.texts[results.count :]))
    else:
        async with side_by_side(batches(), embed, BATCHES_AT_ONCE) as embedded:
            async for vectors in embedded:
                await keep(vectors)
    context.progress(total, total, "done")
    return {"model": embedder.name, **state, "count": total}


def _is_not(value: bool) -> bool:
    if value:
        raise ValueError("a job takes false only")
    return value


_False = Annotated[bool, AfterValidator(_is_not), WithJsonSchema({"const": False})]


class RagIngestParams(RagIngestRequest):
    """A job always writes, and reports progress by itself."""

    plan: _False = False
    stream: _False = False


@job_type("rag_ingest", RagIngestParams, where="collections")
async def rag_ingest(context: Context, params: RagIngestParams) -> dict[str, Any]:
    """An ingest report. Documents stored by an earlier attempt count as unchanged, so no checkpoint is needed."""
    services = context.services
    name = context.collection(params.collection)
    async with services.collections.filling(name, params.chunk_size, params.chunk_overlap) as collection:
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
    """A reindex report. New vectors go to a copy, which a later attempt continues."""
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
    from ..analysis.document import analyze

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

    async with each(context, total, "analyze", analysed, first=state["done"]) as analyses:
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
