"""What a Text Embeddings Inference server tells about itself:
https://huggingface.github.io/text-embeddings-inference"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

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


async def read_info(upstream: Upstream, deadline: float | None = None) -> Info:
    """Read GET /info; an empty Info if the server has no such path."""
    try:
        info = await upstream.get("/info", deadline)
    except NotFound:
        return Info()
    with upstream.errors.translated():
        limits = Limits(
            texts=int(info["max_client_batch_size"]),
            tokens=int(info["max_batch_tokens"]),
            tokens_a_text=int(info["max_input_length"]),
        )
        permits = info.get("max_concurrent_requests")
        return Info(info.get("model_id"), info.get("model_sha"), info.get("version"), limits, permits or None)


def tokens_told(headers: Mapping[str, str]) -> int | None:
    """The tokens that a request took, as TEI tells in a header of its reply; None if it does not."""
    told = headers.get("x-compute-tokens", "")
    return int(told) if told.isdecimal() else None
