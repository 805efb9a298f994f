"""What a Text Embeddings Inference server tells about itself:
https://huggingface.github.io/text-embeddings-inference"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from ..errors import NotFound
from .batches import Limits
from .upstream import Upstream


class Info(NamedTuple):
    """A server's answer to GET /info. The defaults hold for servers that do not answer: TEI's default batch size."""

    model: str | None = None
    sha: str | None = None
    version: str | None = None
    limits: Limits = Limits(texts=32)
    permits: int | None = None
    """The most texts that the server takes at a time."""


class _Told(BaseModel):
    model_config = ConfigDict(protected_namespaces=())

    max_client_batch_size: PositiveInt
    max_batch_tokens: PositiveInt
    max_input_length: PositiveInt
    max_concurrent_requests: NonNegativeInt | None = None
    model_id: str | None = None
    model_sha: str | None = None
    version: str | None = None


async def read_info(upstream: Upstream, deadline: float | None = None) -> Info:
    """Read GET /info; an empty Info if the server has no such path."""
    try:
        info = await upstream.get("/info", deadline)
    except NotFound:
        return Info()
    with upstream.errors.translated():
        told = _Told.model_validate(info)
    limits = Limits(
        texts=told.max_client_batch_size,
        tokens=told.max_batch_tokens,
        tokens_a_text=told.max_input_length,
    )
    return Info(told.model_id, told.model_sha, told.version, limits, told.max_concurrent_requests or None)


def tokens_told(headers: Mapping[str, str]) -> int | None:
    """The tokens that a request took, as TEI tells in a header of its reply; None if it does not."""
    told = headers.get("x-compute-tokens", "")
    return int(told) if told.isdecimal() and len(told) < 16 else None  # more would be a mistake
