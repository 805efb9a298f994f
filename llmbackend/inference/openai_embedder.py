"""Embedding models on OpenAI-compatible servers: vLLM, LiteLLM and others with /v1/embeddings."""

from __future__ import annotations

import base64
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any

from ..errors import BackendError, LLMBackendError
from .batches import Limits, ask_in_batches, size
from .context_limits import COUNTING, Length, counted
from .embeddings import EmbeddingBatch, TextRefused, TokenIds
from .fallback import context, listed
from .remote_embedders import SHORT, RemoteEmbedder, Row, matrix, note, shares
from .upstream import Upstream

ASK_AGAIN = 60.0
"""Seconds after which a server that did not tell its limit is asked again."""


class OpenAICompatibleEmbedder(RemoteEmbedder):
    """The Embedder for any server with /v1/embeddings. It asks for base64, and also reads the lists that some
    servers send."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        super().__init__(upstream, Limits(texts=64))
        self._name = model
        self._root = upstream.root(COUNTING)
        self._ask_at = 0.0  # when to read the server's list, if that failed before

    @property
    def name(self) -> str:
        return self._name

    async def _called(self) -> str:
        name = await self._told()
        if self._upstream.name == "LiteLLM":
            name = await self._behind() or name
        return name or (self.known.model if self.known else self.name)

    async def _told(self) -> str | None:
        """Read the server's list: the tokens that the model takes, and its real name. If that fails, it is
        tried again later."""
        self._ask_at = time.monotonic() + ASK_AGAIN
        with suppress(LLMBackendError):
            for model in await listed(self._upstream, time.monotonic() + COUNTING, retries=0):
                if model["id"] == self.name:
                    self._limit = context(model) or self._limit
                    self._ask_at = inf
                    root = model.get("root")  # vLLM tells here what it was started with
                    return root if isinstance(root, str) and root else self.name
            self._ask_at = inf
        return None

    async def _behind(self) -> str | None:
        """The model behind an alias of LiteLLM, if our key may read that; else None."""
        with suppress(LLMBackendError), self._upstream.errors.translated():
            told = await self._upstream.get("/model/info", time.monotonic() + COUNTING, retries=0)
            for model in told["data"]:
                if model["model_name"] == self.name:
                    return str(model["litellm_params"]["model"])
        return None

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        rows = await ask_in_batches(texts, self._room, partial(self._ask, dimensions=dimensions))
        for text, row in rows.items():
            if isinstance(row, Length):
                raise TextRefused(
                    text, f"there are {len(text)} token ids and the model takes {row.limit}", row._asdict()
                )
        found = [row for text in texts if isinstance(row := rows[text], Row)]
        return EmbeddingBatch(matrix(found), [row.tokens for row in found], noted=True)

    async def _prepare(self, texts: Sequence[str]) -> None:
        if time.monotonic() >= self._ask_at and any(size(text) > SHORT for text in texts):
            await self._told()

    async def _ask(self, batch: list[Any], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        asked: dict[str, Any] = {"model": self.name, "input": batch, "encoding_format": "base64"}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        unanswered = partial(note, self.name, None, batch)
        reply, _ = await self._upstream.have_read("/embeddings", asked, len(batch), unanswered=unanswered)
        with self._upstream.errors.translated():
            data = sorted(reply["data"], key=lambda item: item["index"])
            rows = [_floats(item["embedding"]) for item in data]
            total = (reply.get("usage") or {}).get("prompt_tokens")
            note(self.name, total, batch)
            if [item["index"] for item in data] != list(range(len(data))):
                raise BackendError(
                    f"{self._upstream.name} sent vectors whose indexes do not fit the texts",
                    details={"backend": self._upstream.name},
                )
        values = self._vectors(rows, len(batch), dimensions)
        # Some servers that do not count tokens report 0.
        tokens = shares(total if isinstance(total, int) and total else None, batch)
        return [Row(vector.tobytes(), count) for vector, count in zip(values, tokens, strict=True)]

    async def _count(self, texts: list[str]) -> dict[str, int]:
        async def count(batch: list[str]) -> list[int | None]:
            return [await counted(self._root, {"model": self.name, "prompt": text}) for text in batch]

        counts = await ask_in_batches(texts, lambda: Limits(texts=1), count)
        return {text: tokens for text, tokens in counts.items() if isinstance(tokens, int)}

    async def close(self) -> None:
        await self._root.close()
        await super().close()


def _floats(embedding: Any) -> Any:
    import numpy as np

    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding
