"""Rerankers: models that read a query and a text together, and tell how well the text answers it."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from .. import schemas, tracing
from ..errors import BackendError, InvalidRequest, NotFound
from . import budget
from .batches import BYTES_A_TOKEN, Limits, ask_in_batches, size
from .context_limits import Length
from .embeddings import TextRefused, added
from .tei import Info, read_info, tokens_told
from .upstream import Upstream


class Ranks(NamedTuple):
    """One score for each text, in order, higher is better; `tokens` counts what was read, and is None if that
    is not known."""

    model: str
    scores: list[float]
    tokens: int | None


class Reranker(Protocol):
    """Scores texts by how well they answer a query. Whoever made it closes it."""

    async def rerank(self, query: str, texts: Sequence[str], model: str | None = None) -> Ranks:
        """Score the texts, all within the server's timeout. Raises an LLMBackendError: NotFound for another
        `model`."""

    async def close(self) -> None:
        """Release connections and models."""


async def reranked(reranker: Reranker, asked: schemas.RerankRequest) -> schemas.RerankResponse:
    """The best of a request's texts, best first; raises whatever `Reranker.rerank` raises."""
    texts = asked.documents
    ranks = await reranker.rerank(asked.query, texts, asked.model)
    usage = schemas.RerankUsage(prompt_tokens=ranks.tokens, total_tokens=ranks.tokens)
    best = sorted(range(len(texts)), key=ranks.scores.__getitem__, reverse=True)[: asked.top_n]
    results = [
        schemas.RerankResult(
            index=index,
            relevance_score=ranks.scores[index],
            document=schemas.RerankDocument(text=texts[index]) if asked.return_documents else None,
        )
        for index in best
    ]
    return schemas.RerankResponse(model=ranks.model, results=results, usage=usage)


class NoReranker:
    """Stands in where no reranker is set: calls raise a BackendError that says what to do."""

    def __init__(self, absent: str | None = None) -> None:
        """`absent` is the model that is set but not installed."""
        self._absent = absent

    async def rerank(self, query: str, texts: Sequence[str], model: str | None = None) -> Ranks:
        raise BackendError(
            f"RERANK_MODEL is {self._absent!r}, which is not here: run `llmbackend models pull {self._absent}`, or set the "
            "RERANK_URL of the server that has it"
            if self._absent
            else "no reranker is set: run `llmbackend models pull ms-marco-MiniLM-L-6-v2`, or set TEI_RERANK_URL, or "
            "RERANK_URL and RERANK_MODEL",
            details={"backend": "rerank"},
        )

    async def close(self) -> None:
        pass


class TEIReranker:
    """Text Embeddings Inference, by its own API (POST /rerank). It truncates texts longer than its model reads."""

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        upstream.budget = budget.of_server(upstream.url, "rerank")
        self._upstream = upstream
        self._model = model
        self._info: Info | None = None

    async def rerank(self, query: str, texts: Sequence[str], model: str | None = None) -> Ranks:
        deadline = time.monotonic() + self._upstream.timeout
        if self._info is None:
            self._info = await read_info(self._upstream, deadline)
            if self._info.permits is not None:
                self._upstream.budget.tell(self._info.permits)
        name = self._model or self._info.model or "tei"
        if model not in (None, name):
            raise NotFound(f"no reranker {model!r}: this backend has {name!r}", details={"model": model})

        tokens: int | None = 0

        async def ask(batch: list[str]) -> list[float]:
            nonlocal tokens
            body = {"query": query, "texts": batch, "truncate": True, "raw_scores": False}
            unanswered = partial(_noted, name, None, query, batch)
            reply, headers = await self._upstream.have_read(
                "/rerank", body, len(batch), deadline, unanswered=unanswered
            )
            tokens = added(tokens, _noted(name, tokens_told(headers), query, batch))
            with self._upstream.errors.translated():
                ranks = [(rank["index"], rank["score"]) for rank in reply]
                return _scores(ranks, batch, self._upstream)

        limits, room = self._info.limits, self._upstream.budget
        scores = await _each(
            texts,
            lambda: limits._replace(texts=room.batch(limits.texts), at_once=self._upstream.at_once),
            ask,
        )
        return Ranks(name, scores, tokens)

    async def close(self) -> None:
        await self._upstream.close()


class JinaReranker:
    """Jina's and Cohere's API (POST /rerank), which vLLM, LiteLLM and llama.cpp have, too."""

    # Few large requests, since some models compare the texts of one request, and some services charge or
    # limit by the request.
    limits = Limits(texts=1000)

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        upstream.budget = budget.of_server(upstream.url, "rerank")
        self._upstream = upstream
        self._model = model

    async def rerank(self, query: str, texts: Sequence[str], model: str | None = None) -> Ranks:
        deadline = time.monotonic() + self._upstream.timeout
        name = model or self._model
        # A server with a single model needs no name.
        fields = {"query": query, "return_documents": False, **({"model": name} if name else {})}
        answered_by = name or ""
        tokens: int | None = 0

        async def ask(batch: list[str]) -> list[float]:
            nonlocal answered_by, tokens
            asked = {**fields, "documents": batch}
            unanswered = partial(_noted, answered_by, None, query, batch)
            reply, _ = await self._upstream.have_read("/rerank", asked, 1, deadline, unanswered=unanswered)
            with self._upstream.errors.translated():
                ranks = [(rank["index"], rank["relevance_score"]) for rank in reply["results"]]
                answered_by = str(reply.get("model") or answered_by)
                tokens = added(tokens, _noted(answered_by, _tokens(reply.get("usage")), query, batch))
                return _scores(ranks, batch, self._upstream)

        limits = self.limits._replace(at_once=self._upstream.at_once)
        scores = await _each(texts, lambda: limits, ask)
        return Ranks(answered_by, scores, tokens)

    async def close(self) -> None:
        await self._upstream.close()


def _noted(model: str, tokens: int | None, query: str, batch: Sequence[str]) -> int | None:
    """Record the tokens of a request, estimated if the server does not tell them; return what it tells."""
    estimate = sum(size(query) + size(text) for text in batch) // BYTES_A_TOKEN
    told = {"prompt_tokens": estimate if tokens is None else tokens}
    tracing.current().used(model, told, estimated=tokens is None)
    return tokens


async def _each(
    texts: Sequence[str],
    limits: Callable[[], Limits],
    ask: Callable[[list[str]], Awaitable[list[float]]],
) -> list[float]:
    """The score of each text, in order; raises InvalidRequest with the index of a text that the server refuses."""
    try:
        scores = await ask_in_batches(texts, limits, ask)
    except TextRefused as refused:
        place = texts.index(str(refused.text))
        details = {**refused.details, "index": place}
        raise InvalidRequest(f"documents[{place}]: {refused.reason}", details=details) from refused
    found: list[float] = []
    for place, text in enumerate(texts):
        score = scores[text]
        if isinstance(score, Length):
            raise InvalidRequest(
                f"documents[{place}]: the text and the query are longer than the {score.limit} tokens that the model takes",
                details={**score._asdict(), "index": place},
            )
        found.append(score)
    return found


def _scores(ranks: list[tuple[Any, Any]], batch: list[str], upstream: Upstream) -> list[float]:
    """The scores in the order of the texts, checked: one for each, all finite."""
    about = {"backend": upstream.name}
    scores = dict(ranks)
    if len(ranks) != len(batch) or scores.keys() != set(range(len(batch))):
        raise BackendError(
            f"{upstream.name} at {upstream.url} did not give each of {len(batch)} texts one score",
            details=about,
        )
    if not all(isinstance(score, int | float) and math.isfinite(score) for score in scores.values()):
        raise BackendError(
            f"{upstream.name} at {upstream.url} sent scores that are not finite numbers", details=about
        )
    return [float(scores[index]) for index in range(len(batch))]


def _tokens(usage: Any) -> int | None:
    """The tokens in vLLM's or Jina's usage."""
    if not isinstance(usage, dict):
        return None
    tokens = usage.get("prompt_tokens", usage.get("total_tokens"))
    return tokens if isinstance(tokens, int) else None
