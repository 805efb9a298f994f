"""Embedding models on servers: what OpenAI-compatible ones (openai_embedder.py) and TEI (tei_embedder.py)
have in common.

A text longer than the model's limit is cut as the caller asks, and reported. If the limit is known, the
server counts the tokens of texts that are probably longer; others are noticed when they are refused. Counting
every text that might be too long would cost a request for each.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import tracing
from ..errors import BackendError, InvalidRequest
from . import budget
from .batches import BYTES_A_TOKEN, Limits, ask_in_batches, size
from .context_limits import Length
from .embeddings import Cut, EmbeddingBatch, TokenIds, TooLong, added, checked, no_tokens
from .fingerprint import TEXTS, Fingerprint
from .long_texts import mean, shorter
from .upstream import Upstream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ADDED_TOKENS = 4
"""The most tokens that a model may add to a text's own."""

SHORT = 500
"""Every model takes this many bytes, so for shorter texts nothing is asked about the model."""

SAMPLE = 8
"""How many texts are counted first: their bytes per token may show that the others need no counting."""

TRIES = 3
"""How often embedding is tried if the server's model changes meanwhile."""

QUESTION = 8
"""Up to this many texts are embedded with the priority of a question; more are bulk work."""

LOOK_AGAIN = 3600.0
"""Seconds between two checks that a server still has the same model."""


class Row(NamedTuple):
    vector: bytes
    """float32, as bytes: thousands of them are joined faster than arrays."""
    tokens: int | None


class _Changed(Exception):
    """The vectors have another dimension than the model's vectors had."""


class RemoteEmbedder(ABC):
    """What embedders of servers have in common. Subclasses send the requests."""

    truncates = False
    """Whether the server can truncate texts itself."""

    def __init__(self, upstream: Upstream, limits: Limits) -> None:
        self._upstream = upstream
        self._limits = limits
        self._limit: int | None = None  # tokens that the model takes, once known
        self._bytes_a_token: float = BYTES_A_TOKEN  # in the texts counted last
        self.known: Fingerprint | None = None
        """The model's fingerprint when the server was last checked."""
        self._looked_at = -math.inf
        self._reconnected = 0  # the upstream's count at that time
        upstream.watched = True
        upstream.budget = budget.of_server(upstream.url, "embed", budget.UNTOLD)

    @property
    @abstractmethod
    def name(self) -> str: ...

    @property
    def about(self) -> str:
        return f"{self._upstream.name} at {self._upstream.url}"

    @property
    def names(self) -> tuple[str, ...]:
        return (self.name, self.known.model) if self.known else (self.name,)

    async def fingerprint(self) -> Fingerprint:
        """The model's fingerprint. The first call asks the server, and may raise an LLMBackendError."""
        return self.known or await self.look()

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        """Embed as Embedder.embed says. If the server may have changed its model meanwhile, it is checked, too."""
        for _ in range(TRIES):
            before = await self.fingerprint()
            looking = asyncio.create_task(self.look()) if self._due else None
            vectors: EmbeddingBatch | None = None
            try:
                with suppress(_Changed):
                    vectors = await self._embed(texts, dimensions, too_long, before)
                if looking is not None:  # at the same time, so that the call takes no longer
                    await looking
                elif vectors is None or self._reconnected != self._upstream.reconnected:
                    await self.look()
            finally:
                if looking is not None:
                    looking.add_done_callback(_ended)
                    looking.cancel()
            made_by = await self.fingerprint()
            if vectors is not None and made_by.same_vectors(before):
                return vectors._replace(made_by=made_by)
        raise BackendError(
            f"{self._upstream.name} at {self._upstream.url} answers with changing embedding models: "
            "give each model a name or a URL of its own",
            details={"backend": self._upstream.name},
        )

    def _room(self) -> Limits:
        """The limits of a request at this moment: a busy server gets less than it takes."""
        server = self._upstream
        return self._limits._replace(texts=server.budget.batch(self._limits.texts), at_once=server.at_once)

    @property
    def _due(self) -> bool:
        return self._upstream.idle or time.monotonic() >= self._looked_at + LOOK_AGAIN

    async def look(self) -> Fingerprint:
        """Ask for the model's name and its vectors of TEXTS, by which it is known; return the fingerprint."""
        reconnected = self._upstream.reconnected
        name = await self._called()
        with budget.in_bulk(False):  # a caller waits for it, and it measures how long a question takes
            answers = await ask_in_batches(TEXTS, self._room, partial(self._ask, dimensions=None))
        rows = [row for text in TEXTS if isinstance(row := answers[text], Row)]
        if len(rows) < len(TEXTS):
            raise BackendError(
                f"{self._upstream.name} at {self._upstream.url} refuses texts of twenty words: is its model for texts?",
                details={"backend": self._upstream.name},
            )
        found = Fingerprint(name, vectors=matrix(rows))
        known = self.known
        if known is None or not known.same_vectors(found):
            if known is not None:
                log.warning(
                    "%s at %s has another embedding model: %s instead of %s",
                    *(self._upstream.name, self._upstream.url, name, known.model),
                )
            known = found
        elif known.model != name:
            known = replace(known, model=name)
        self.known, self._looked_at, self._reconnected = known, time.monotonic(), reconnected
        return known

    async def _embed(
        self, texts: Sequence[str], dimensions: int | None, too_long: TooLong, made_by: Fingerprint
    ) -> EmbeddingBatch:
        """Raises _Changed if the vectors have another dimension than the fingerprint's."""
        await self._prepare(texts)
        with budget.in_bulk(len(texts) > QUESTION or budget.is_in_bulk()):
            return await self._embed_all(texts, dimensions, too_long, made_by)

    async def _embed_all(
        self, texts: Sequence[str], dimensions: int | None, too_long: TooLong, made_by: Fingerprint
    ) -> EmbeddingBatch:
        ask = partial(self._ask, dimensions=dimensions)
        rows: dict[str, Row] = {}
        long: dict[str, Length] = {}
        parts: dict[str, list[str]] = {}  # what is sent instead of a long text
        waiting = list(dict.fromkeys(texts))
        cuts = too_long == "truncate" and self.truncates
        while waiting:
            beyond = await self._measured(waiting)
            if not cuts:
                parts |= {text: shorter(text, beyond[text], too_long) for text in beyond}
            whole = [text for text in waiting if text not in beyond]
            answers = await ask_in_batches(whole, self._room, ask)
            _check_size(answers.values(), made_by, dimensions)
            refused = {text: answer for text, answer in answers.items() if isinstance(answer, Length)}
            if refused:
                refused = await self._looked_into(refused)
                beyond |= refused
                if not cuts:
                    parts |= {text: shorter(text, refused[text], too_long) for text in refused}
            if cuts and beyond:
                others = await ask_in_batches(beyond, self._room, partial(ask, truncate=True))
                answers = {**answers, **others}
            rows |= {text: answer for text, answer in answers.items() if isinstance(answer, Row)}
            long |= beyond
            new = dict.fromkeys(part for text in beyond for part in parts.get(text, ()))
            waiting = [part for part in new if part not in rows and part not in parts]
        return _assembled(texts, rows, long, parts)

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        return None

    def weight(self, text: str, tokens: int | None) -> float:
        """The same as MiniLM's: servers' models are at least as good, and know their languages."""
        return 0.7

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        raise no_tokens(self.name)

    async def _measured(self, texts: Iterable[str]) -> dict[str, Length]:
        """The texts that are too long, among those that probably are, as far as the server counts tokens."""
        limit = self._limit
        if limit is None:
            return {}
        sizes = {text: size(text) for text in texts}
        waiting = sorted(sizes, key=lambda text: -sizes[text])
        found: dict[str, Length] = {}
        some = SAMPLE
        # A text has no more tokens than bytes.
        while waiting and sizes[waiting[0]] > max(1.0, self._bytes_a_token) * (limit - ADDED_TOKENS):
            counts = await self._count(waiting[:some])
            self._learn(counts)
            found |= {text: Length(tokens, limit) for text, tokens in counts.items() if tokens > limit}
            if not counts:
                break
            waiting = waiting[some:]
            some *= 2
        return found

    def _learn(self, counts: Mapping[str, int | None]) -> None:
        counted = {text: tokens for text, tokens in counts.items() if tokens}
        if counted:
            self._bytes_a_token = sum(map(size, counted)) / sum(counted.values())

    async def _looked_into(self, refused: dict[str, Length]) -> dict[str, Length]:
        """The lengths of refused texts, counted by the server if the refusal does not tell them."""
        self._limit = next(iter(refused.values())).limit
        vague = [text for text, length in refused.items() if length.tokens is None or length.at_least]
        counts = await self._count(vague) if vague else {}
        found = {
            text: Length(counts.get(text), length.limit) if text in vague else length
            for text, length in refused.items()
        }
        self._learn({text: length.tokens for text, length in found.items()})
        return found

    def _vectors(self, rows: list[Any], count: int, dimensions: int | None) -> NDArray[np.float32]:
        """The vectors in a reply, checked: as many as texts, of one length, finite, and of the requested
        dimension."""
        about = {"backend": self._upstream.name}
        values = checked(rows, count, self._upstream.name)
        found = values.shape[1]
        if dimensions is not None:
            if found != dimensions:
                raise InvalidRequest(
                    f"dimensions: {self._upstream.name} gives vectors of {found} for this model, not {dimensions}",
                    details={**about, "dimensions": dimensions, "possible": [found]},
                )
            return values
        return values

    @abstractmethod
    async def _called(self) -> str:
        """The server's name for the model. The model's limits are read along with it."""

    @abstractmethod
    async def _prepare(self, texts: Sequence[str]) -> None:
        """Ask for what has to be known about the model to embed these texts."""

    @abstractmethod
    async def _ask(
        self, batch: list[str], *, dimensions: int | None, truncate: bool = False
    ) -> list[Row]: ...

    @abstractmethod
    async def _count(self, texts: list[str]) -> dict[str, int]:
        """The number of tokens of each text, for those texts that the server counts."""

    async def close(self) -> None:
        await self._upstream.close()


def _ended(task: asyncio.Task[Any]) -> None:
    """Retrieve the task's exception, if any: another error is raised already."""
    task.cancelled() or task.exception()


def _check_size(answers: Iterable[Row | Length], made_by: Fingerprint, dimensions: int | None) -> None:
    if dimensions is None and made_by.vectors is not None:
        most = made_by.vectors[0].nbytes
        if any(isinstance(answer, Row) and len(answer.vector) != most for answer in answers):
            raise _Changed


def _assembled(
    texts: Sequence[str], rows: dict[str, Row], long: dict[str, Length], parts: dict[str, list[str]]
) -> EmbeddingBatch:
    def whole(text: str) -> tuple[Row, int]:
        """A text's row, and how many parts it was made from."""
        leaves = [text]
        while any(leaf in parts for leaf in leaves):
            leaves = [part for leaf in leaves for part in parts.get(leaf, [leaf])]
        if len(leaves) == 1:
            return rows[leaves[0]], 1
        found = [rows[leaf] for leaf in leaves]
        vector = mean(matrix(found), [size(leaf) for leaf in leaves])
        return Row(vector.tobytes(), added(*(row.tokens for row in found))), len(leaves)

    made = {text: whole(text) for text in long if text in parts}
    cut = [
        Cut(index, length.tokens, length.limit, made[text][1] if text in made else 1)
        for index, text in enumerate(texts)
        if (length := long.get(text)) is not None
    ]
    found = [made[text][0] if text in made else rows[text] for text in texts]
    return EmbeddingBatch(matrix(found), [row.tokens for row in found], cut, noted=True)


def matrix(rows: list[Row]) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(b"".join([row.vector for row in rows]), np.float32).reshape(len(rows), -1)


def note(model: str, tokens: Any, batch: Sequence[Any]) -> None:
    """Record the tokens of a request, whatever becomes of its reply; estimate them if the server does not tell."""
    told = isinstance(tokens, int) and 0 < tokens <= tracing.MOST_TOKENS
    if not told:
        tokens = (
            sum(size(one) if isinstance(one, str) else BYTES_A_TOKEN * len(one) for one in batch)
            // BYTES_A_TOKEN
        )
    tracing.current().used(model, {"embedded_tokens": tokens}, estimated=not told)


def shares(total: int | None, batch: Sequence[str | TokenIds]) -> Sequence[int | None]:
    """Split a batch's total of tokens among its texts, by their sizes."""
    if total is None:
        return [None] * len(batch)
    sizes = [len(text) for text in batch]
    whole = sum(sizes)
    return [
        after - before for before, after in pairwise(total * end // whole for end in [0, *accumulate(sizes)])
    ]
