"""Embedding models: texts in, unit-length float32 vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import BackendError, NotFound
from .upstream import Upstream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Vectors(NamedTuple):
    """`values` is (texts, dimension), float32, each row of unit length; `tokens` counts what was read."""

    values: NDArray[np.float32]
    tokens: int


class Embedder(Protocol):
    @property
    def name(self) -> str:
        """The model's name, as collections remember it."""

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """One vector a text, in order; raises an LLMBackendError."""

    async def close(self) -> None: ...


def require(embedder: Embedder, model: str | None) -> None:
    """Raise NotFound if a caller asks for another model than there is."""
    if model not in (None, embedder.name):
        raise NotFound(
            f"no embedding model {model!r}: this backend has {embedder.name!r}", details={"model": model}
        )


class OpenAICompatibleEmbedder:
    """Any server with /v1/embeddings, by the openai client, which lets vectors travel as base64."""

    batch = 64

    def __init__(self, upstream: Upstream, model: str) -> None:
        import openai

        self.name = model
        self._upstream = upstream
        # A key is always given, lest the client send OPENAI_API_KEY to another's server; the tries are Upstream's.
        self._client = openai.AsyncOpenAI(
            base_url=upstream.url, api_key=upstream.secret or "none", timeout=upstream.timeout, max_retries=0
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows: list[Any] = []
        tokens = 0
        for start in range(0, len(texts), self.batch):
            part = list(texts[start : start + self.batch])
            reply = await self._upstream.persist(
                partial(self._client.embeddings.create, input=part, model=self.name)
            )
            with self._upstream.translated():
                rows += [item.embedding for item in sorted(reply.data, key=lambda item: item.index)]
                tokens += reply.usage.prompt_tokens if reply.usage else 0
        return Vectors(_checked(rows, len(texts), self._upstream.name), tokens)

    async def close(self) -> None:
        await self._client.close()


class TEIEmbedder:
    """Text Embeddings Inference by its own API (POST /embed): https://huggingface.github.io/text-embeddings-inference"""

    batch = 32  # its default max_client_batch_size

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        self.name = model or "tei"
        self._upstream = upstream

    async def embed(self, texts: Sequence[str]) -> Vectors:
        rows: list[Any] = []
        for start in range(0, len(texts), self.batch):
            body = {"inputs": list(texts[start : start + self.batch]), "truncate": True}
            reply = await self._upstream.post("/embed", body)
            with self._upstream.translated():
                rows += list(reply)
        return Vectors(_checked(rows, len(texts), self._upstream.name), 0)

    async def close(self) -> None:
        await self._upstream.close()


def _checked(rows: list[Any], count: int, backend: str) -> NDArray[np.float32]:
    """Rows as unit vectors, once they are as many as asked for, of one length, and finite."""
    import numpy as np

    about = {"backend": backend}
    if len(rows) != count:
        raise BackendError(f"{backend} sent {len(rows)} vectors for {count} texts", details=about)
    try:
        values = np.asarray(rows, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise BackendError(f"{backend} sent vectors of different lengths", details=about) from error
    if values.ndim != 2 or not np.isfinite(values).all():
        raise BackendError(f"{backend} sent vectors that are not finite numbers", details=about)
    return unit(values)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same rows, scaled to length 1; a row of zeros stays."""
    import numpy as np

    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    values /= lengths
    return values
