"""Embeddings in the form that a caller asks for: lists of numbers, base64, or one block of bytes."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from typing import Any

from pydantic_core import to_json

from .. import schemas, threads
from ..errors import InvalidRequest
from .cached_embedder import CachedEmbedder
from .embeddings import EmbeddingBatch, require

COPIED = 2**21
"""Up to this many bytes, vectors are copied on the event loop, because starting a thread would take longer."""


async def embed(
    embedder: CachedEmbedder, asked: schemas.EmbedRequest
) -> schemas.EmbeddingList | schemas.Block:
    """Embed what a request asks for.

    Raises NotFound for another model, InvalidRequest for an empty text, and whatever `Embedder.embed` raises.
    """
    require(embedder, asked.model)
    texts, dimensions = asked.texts, asked.dimensions
    if "" in texts:
        index = texts.index("")
        raise InvalidRequest(f"input[{index}]: an empty text has no vector", details={"index": index})
    if texts:
        vectors = await embedder.embed(
            texts, dimensions=dimensions, too_long=asked.too_long, role=asked.input_type
        )
    else:
        vectors = await embedder.embed_tokens(asked.token_ids, dimensions=dimensions)
    packed = partial(_packed, embedder.name, vectors, asked.encoding_format)
    if asked.encoding_format == "bytes" and vectors.values.nbytes <= COPIED:
        return packed()
    return await threads.processor(packed)


def _packed(model: str, vectors: EmbeddingBatch, encoding: str) -> schemas.EmbeddingList | schemas.Block:
    tokens = vectors.total
    about: dict[str, Any] = {
        "object": "list",
        "model": model,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        "cut": [asdict(cut) for cut in vectors.cut],
    }
    values = vectors.values.astype("<f4", order="C", copy=False)
    if encoding == "bytes":
        head = to_json({**about, "dimension": values.shape[1]})
        return schemas.Block(b"".join((head, b"\n", values.data)))
    rows: Iterable[Any] = (
        [base64.b64encode(row).decode() for row in values] if encoding == "base64" else values
    )
    result = schemas.EmbeddingList(data=[], **about)
    # Built without validation: the rows are our own, and may have a million numbers.
    result.data = [
        schemas.Embedding.model_construct(object="embedding", index=index, embedding=row)
        for index, row in enumerate(rows)
    ]
    return result
