"""Embedding models: texts in, unit-length float32 vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ..errors import BackendError, NotFound
from .batches import Answer, Limits, ask_in_batches
from .tei import read_info
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

    limits = Limits(texts=64)

    def __init__(self, upstream: Upstream, model: str) -> None:
        import openai

        self.name = model
        self._upstream = upstream
        # A key is always given, lest the client send OPENAI_API_KEY to another's server; the tries are Upstream's.
        self._client = openai.AsyncOpenAI(
            base_url=upstream.url, api_key=upstream.secret or "none", timeout=upstream.timeout, max_retries=0
        )

    async def embed(self, texts: Sequence[str]) -> Vectors:
        answer = await ask_in_batches(texts, self.limits, self._ask)
        return Vectors(_checked(answer.rows, self._upstream.name), answer.tokens)

    async def _ask(self, batch: list[str]) -> Answer:
        create = partial(self._client.embeddings.create, input=batch, model=self.name)
        reply = await self._upstream.persist(create)
        with self._upstream.translated():
            rows = [item.embedding for item in sorted(reply.data, key=lambda item: item.index)]
            tokens = reply.usage.prompt_tokens if reply.usage else 0
        return Answer(_one_each(rows, batch, self._upstream.name), tokens)

    async def close(self) -> None:
        await self._client.close()


class TEIEmbedder:
    """Text Embeddings Inference by its own API (POST /embed): https://huggingface.github.io/text-embeddings-inference"""

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        self.name = model or "tei"
        self._upstream = upstream
        self._limits: Limits | None = None

    async def embed(self, texts: Sequence[str]) -> Vectors:
        # Callers who are first at the same time each read them: none has to wait for another's failure.
        if self._limits is None:
            self._limits = (await read_info(self._upstream)).limits
        answer = await ask_in_batches(texts, self._limits, self._ask)
        return Vectors(_checked(answer.rows, self._upstream.name), answer.tokens)

    async def _ask(self, batch: list[str]) -> Answer:
        reply = await self._upstream.post("/embed", {"inputs": batch, "truncate": True})
        with self._upstream.translated():
            return Answer(_one_each(list(reply), batch, self._upstream.name), 0)

    async def close(self) -> None:
        await self._upstream.close()


def _one_each(rows: list[Any], batch: list[str], backend: str) -> list[Any]:
    """The rows, once they are as many as the texts."""
    if len(rows) != len(batch):
        raise BackendError(
            f"{backend} sent {len(rows)} vectors for {len(batch)} texts", details={"backend": backend}
        )
    return rows


def _checked(rows: list[Any], backend: str) -> NDArray[np.float32]:
    """Rows as unit vectors, once they are of one length, and finite."""
    import numpy as np

    about = {"backend": backend}
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
