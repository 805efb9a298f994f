"""Embedding models on Text Embeddings Inference (TEI)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from math import inf
from typing import Any

from ..errors import InvalidRequest, NotFound
from .batches import Limits, ask_in_batches
from .remote_embedders import SHORT, RemoteEmbedder, Row, note, shares
from .tei import read_info, tokens_told
from .upstream import Upstream

TOKEN_CHARACTERS = 100
"""The most characters of a token. TEI refuses texts of more than 250 times its limit, so longer ones are sent
in pieces."""


class TEIEmbedder(RemoteEmbedder):
    """The Embedder for Text Embeddings Inference, by its own API (POST /embed)."""

    truncates = True

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        super().__init__(upstream, Limits(texts=32))
        self._name = model

    @property
    def name(self) -> str:
        return self._name or (self.known.model if self.known else "tei")

    @property
    def names(self) -> tuple[str, ...]:
        return (*super().names, "tei")

    async def _called(self) -> str:
        info = await read_info(self._upstream)
        self._limits = info.limits
        if info.permits is not None:
            self._upstream.budget.tell(info.permits)
        self._limit = int(info.limits.tokens_a_text) if info.limits.tokens_a_text < inf else None
        return info.model or self._name or "tei"

    async def _prepare(self, texts: Sequence[str]) -> None:
        """Nothing: `_called` has asked for everything."""

    async def _ask(self, batch: list[str], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        if truncate and self._limit is not None:
            batch = [text[: TOKEN_CHARACTERS * self._limit] for text in batch]
        asked: dict[str, Any] = {"inputs": batch, "truncate": truncate}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        unanswered = partial(note, self.name, None, batch)
        reply, headers = await self._upstream.have_read("/embed", asked, len(batch), unanswered=unanswered)
        note(self.name, total := tokens_told(headers), batch)
        with self._upstream.errors.translated():
            rows = list(reply)
        tokens = shares(total, batch)
        values = self._vectors(rows, len(batch), dimensions)
        return [Row(vector.tobytes(), count) for vector, count in zip(values, tokens, strict=True)]

    async def _count(self, texts: list[str]) -> dict[str, int]:
        step = TOKEN_CHARACTERS * (self._limit or SHORT)
        pieces = {text: [text[start : start + step] for start in range(0, len(text), step)] for text in texts}
        try:
            counts = await ask_in_batches(
                (piece for text in texts for piece in pieces[text]), lambda: self._limits, self._tokenize
            )
        except (NotFound, InvalidRequest):
            return {}  # the server does not count tokens; its refusals will tell
        return {
            text: sum(count for piece in pieces[text] if isinstance(count := counts[piece], int))
            for text in texts
        }

    async def _tokenize(self, batch: list[str]) -> list[int]:
        reply = await self._upstream.post("/tokenize", {"inputs": batch})
        with self._upstream.errors.translated():
            return [len(tokens) for tokens in reply]
