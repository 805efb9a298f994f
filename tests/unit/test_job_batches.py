"""Built-in jobs keep a server busy: one reply that takes long holds up no other, and no batch waits for the one before."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from llmbackend.inference.embeddings import EmbeddingBatch
from llmbackend.job_types.built_in import BatchEmbedParams, batch_embed
from llmbackend.job_types.chats import batch_chat
from llmbackend.jobs import context
from llmbackend.jobs.context import Context
from llmbackend.jobs.ledger import Claim
from llmbackend.jobs.results import Chunk, Results, values
from llmbackend.schemas import BatchChatParams

AT_ONCE = 8


class _Job:
    """A job's context, with what it has saved."""

    def __init__(self, **services: Any) -> None:
        self.chunks: list[Chunk] = []
        self.saves = 0
        self.written = asyncio.Event()
        given: Any = SimpleNamespace(chats_at_once=AT_ONCE, **services)
        claim = Claim(1, "id", "owner", "type", "token", "{}")
        self.context = Context(claim, given, None, Results(0, 0), self._save, self._read)

    async def _save(self, values: dict[str, Any], chunks: list[Chunk]) -> None:
        self.chunks += chunks
        self.saves += bool(chunks)
        self.written.set()

    async def _read(self) -> list[Any]:
        return values(self.chunks)

    def rows(self) -> list[Any]:
        return values([*self.chunks, *self.context.results.take()])


async def _within(work: Coroutine[Any, Any, Any], seconds: float = 30) -> Any:
    async with asyncio.timeout(seconds):
        return await work


class _Chat:
    """Replies with the prompt; to the first only once `others` have been answered."""

    def __init__(self, others: int) -> None:
        self._others = others
        self._enough = asyncio.Event()
        self._answered = self._at_work = self.most = 0

    async def complete(self, wire: dict[str, Any]) -> dict[str, Any]:
        self._at_work += 1
        self.most = max(self.most, self._at_work)
        prompt = wire["messages"][-1]["content"]
        if prompt == "0":
            await self._enough.wait()
        await asyncio.sleep(0)
        self._answered += 1
        if self._answered == self._others:
            self._enough.set()
        self._at_work -= 1
        return {"choices": [{"message": {"content": prompt}}], "model": "m", "usage": None}


def test_a_chat_that_takes_long_holds_up_no_other() -> None:
    chat = _Chat(others=5 * AT_ONCE)
    job = _Job(chat=chat)
    params = BatchChatParams(prompts=[str(number) for number in range(200)])
    assert asyncio.run(_within(batch_chat(job.context, params))) == {"count": 200, "failed": 0}
    assert [row["reply"] for row in job.rows()] == [str(number) for number in range(200)]
    assert chat.most == AT_ONCE
    assert 1 < job.saves < 200


class _Embedder:
    name = "e"

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self._second = asyncio.Event()

    async def embed(self, texts: Sequence[str]) -> EmbeddingBatch:
        self.sizes.append(len(texts))
        if len(self.sizes) > 1:
            self._second.set()
        await self._second.wait()
        return EmbeddingBatch(np.array([[float(text)] for text in texts], np.float32), [1] * len(texts))


def test_batches_of_texts_grow_and_do_not_wait_for_each_other() -> None:
    embedder = _Embedder()
    job = _Job(embedder=embedder)
    params = BatchEmbedParams(texts=[str(number) for number in range(20_000)])
    result = asyncio.run(_within(batch_embed(job.context, params)))
    assert result == {"model": "e", "dimension": 1, "tokens": 20_000, "count": 20_000}
    saved = b"".join(chunk.data for chunk in [*job.chunks, *job.context.results.take()])
    assert np.frombuffer(saved, "<f4").tolist() == list(range(20_000))
    assert embedder.sizes[0] < max(embedder.sizes)
    assert len(embedder.sizes) < 20


def test_a_small_job_is_written_once_at_its_end_and_a_longer_one_tells_its_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Embedder:
        name = "e"

        def __init__(self) -> None:
            self.goes_on = asyncio.Event()

        async def embed(self, texts: Sequence[str]) -> EmbeddingBatch:
            await self.goes_on.wait()
            return EmbeddingBatch(np.ones((len(texts), 1), np.float32), [1] * len(texts))

    async def written(long: bool) -> bool:
        embedder = Embedder()
        job = _Job(embedder=embedder)
        working = asyncio.create_task(batch_embed(job.context, BatchEmbedParams(texts=["a"])))
        if long:
            await job.written.wait()
        embedder.goes_on.set()
        await working
        await job.context.settle()
        return job.written.is_set()

    assert asyncio.run(_within(written(long=True)))
    monkeypatch.setattr(context, "NEWS_SECONDS", 30)  # the machine may be slow
    assert not asyncio.run(_within(written(long=False)))
