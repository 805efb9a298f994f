"""The kinds of job: the params each takes, and the function that does the work."""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ..errors import InvalidRequest, LLMBackendError, invalid
from ..inference.chat import ChatModel
from ..inference.embeddings import Embedder, require
from ..knowledge.collections import Collections
from ..knowledge.ingest import ingest
from ..schemas import Document, RagIngestRequest, Request

Progress = Callable[[int, int, str], None]
"""Called with steps done, steps in all, and the stage."""


@dataclass(frozen=True)
class Rooms:
    """What a job may use."""

    chat: ChatModel
    embedder: Embedder
    collections: Collections


@dataclass(frozen=True)
class JobType:
    params: type[Request]
    run: Callable[[Rooms, Any, Progress], Awaitable[dict[str, Any]]]
    check: Callable[[Rooms, Any], None] = lambda rooms, params: None
    """Raises what can be known at once to be wrong with valid params."""


class BatchEmbedParams(Request):
    texts: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=1, max_length=500_000)]
    model: str | None = None


class RagIngestParams(RagIngestRequest):
    stream: Annotated[bool, Field(exclude=True)] = False


class AnalyzeDocumentsParams(Request):
    documents: Annotated[list[str | Document], Field(min_length=1)]


EMBED_BATCH = 512


async def batch_embed(rooms: Rooms, params: BatchEmbedParams, progress: Progress) -> dict[str, Any]:
    """`{model, dimension, count, embeddings}`: the vectors as one base64 block of float32, row by row."""
    blocks: list[bytes] = []
    dimension = 0
    total = len(params.texts)
    for start in range(0, total, EMBED_BATCH):
        progress(start, total, "embed")
        vectors = await rooms.embedder.embed(params.texts[start : start + EMBED_BATCH])
        dimension = int(vectors.values.shape[1])
        blocks.append(vectors.values.astype("<f4").tobytes())
    progress(total, total, "done")
    return {
        "model": rooms.embedder.name,
        "dimension": dimension,
        "count": total,
        "embeddings": base64.b64encode(b"".join(blocks)).decode(),
    }


async def rag_ingest(rooms: Rooms, params: RagIngestParams, progress: Progress) -> dict[str, Any]:
    """An ingest report."""
    collection = await rooms.collections.get_or_create(
        params.collection, params.chunk_size, params.chunk_overlap
    )
    report = await ingest(collection, params.documents, rooms.embedder, sync=params.sync, progress=progress)
    return report.model_dump()


async def analyze_documents(
    rooms: Rooms, params: AnalyzeDocumentsParams, progress: Progress
) -> dict[str, Any]:
    """`{analyses: [{id, sentiment, …}], failed: [{id, error}]}`; a bare text's id is its place in the list."""
    from ..agents.analysis import analyze  # LlamaIndex, which takes a second to import

    analyses: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    total = len(params.documents)
    for number, given in enumerate(params.documents):
        progress(number, total, "analyze")
        name, text = (str(number), given) if isinstance(given, str) else (given.id, given.text)
        try:
            analysis = await analyze(rooms.chat, rooms.embedder, text)
            analyses.append({"id": name, **analysis.model_dump()})
        except LLMBackendError as error:
            failed.append({"id": name, "error": error.message})
    progress(total, total, "done")
    return {"analyses": analyses, "failed": failed}


TYPES: dict[str, JobType] = {
    "batch_embed": JobType(
        BatchEmbedParams, batch_embed, lambda rooms, params: require(rooms.embedder, params.model)
    ),
    "rag_ingest": JobType(RagIngestParams, rag_ingest),
    "analyze_documents": JobType(AnalyzeDocumentsParams, analyze_documents),
}


def checked(job_type: str, params: dict[str, Any], rooms: Rooms) -> Request:
    """The params of a job, validated.

    Raises InvalidRequest that names the type or the params that do not fit, NotFound for a model there is not.
    """
    kind = TYPES.get(job_type)
    if kind is None:
        raise InvalidRequest(
            f"no job type {job_type!r}: there are {', '.join(TYPES)}", details={"job_type": job_type}
        )
    try:
        valid = kind.params.model_validate(params)
    except ValidationError as error:
        raise invalid(error, f"params of a {job_type} job") from error
    kind.check(rooms, valid)
    return valid
