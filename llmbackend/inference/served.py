"""Embedding models on servers: OpenAI-compatible ones and TEI, which differ in their wire only.

A text longer than the model takes is told to the caller and cut as asked. Where the limit is known, the server counts
the texts that are probably beyond it; a refusal tells of the others, and of all where the limit is not known. Counting
every text that might be too long would cost a request a text.
"""

from __future__ import annotations

import base64
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound
from .batches import BYTES_A_TOKEN, Limits, ask_in_batches, size
from .embeddings import Cut, TextRefused, TokenIds, TooLong, Vectors, checked, no_tokens
from .fallback import offered
from .lengths import mean, shorter
from .overflow import COUNTING, Length, counted
from .tei import Info, read_info
from .upstream import Upstream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FEW = 4
"""Tokens that a model may add to a text's own."""

SHORT = 500
"""Bytes that every model takes: for texts up to this, nothing is asked about the model."""

SAMPLE = 8
"""How many texts are counted first; what they tell of the language may spare the others."""

ASK_AGAIN = 60.0
"""Seconds after which a server that did not tell its limit is asked again."""

LONGEST = 100
"""Characters that a token has at most. TEI reads no text of more than 250 times its limit, so that longer are sent in pieces."""


class Row(NamedTuple):
    vector: bytes
    """As float32: thousands are joined faster than arrays are."""
    tokens: int


class ServedEmbedder(ABC):
    truncates = False
    """Whether the server itself cuts texts off when told to."""

    def __init__(self, upstream: Upstream, name: str, limits: Limits) -> None:
        self.name = name
        self._upstream = upstream
        self._limits = limits
        self._limit: int | None = None  # tokens a text, once known
        self._bytes_a_token: float = BYTES_A_TOKEN  # of the texts counted last
        self._dimension: int | None = None  # of the first vectors

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> Vectors:
        await self._prepare(texts)

        ask = partial(self._ask, dimensions=dimensions)
        rows: dict[str, Row] = {}
        long: dict[str, Length] = {}
        parts: dict[str, list[str]] = {}  # of a long text, what is sent in its place
        waiting = list(dict.fromkeys(texts))
        cuts = too_long == "truncate" and self.truncates
        while waiting:
            beyond = await self._measured(waiting)
            if not cuts:
                parts |= {text: shorter(text, beyond[text], too_long) for text in beyond}
            whole = [text for text in waiting if text not in beyond]
            answers = await ask_in_batches(whole, self._limits, ask)
            refused = {text: answer for text, answer in answers.items() if isinstance(answer, Length)}
            if refused:
                refused = await self._looked_into(refused)
                beyond |= refused
                if not cuts:
                    parts |= {text: shorter(text, refused[text], too_long) for text in refused}
            if cuts and beyond:
                others = await ask_in_batches(beyond, self._limits, partial(ask, truncate=True))
                answers = {**answers, **others}
            rows |= {text: answer for text, answer in answers.items() if isinstance(answer, Row)}
            long |= beyond
            new = dict.fromkeys(part for text in beyond for part in parts.get(text, ()))
            waiting = [part for part in new if part not in rows and part not in parts]
        return _assembled(texts, rows, long, parts)

    def at_once(self, text: str, dimensions: int | None) -> Vectors | None:
        return None

    def weight(self, text: str, tokens: int) -> float:
        """As of MiniLM: models of servers are as good at least, and know their languages."""
        return 0.7

    async def embed_tokens(self, texts: Sequence[TokenIds], *, dimensions: int | None = None) -> Vectors:
        raise no_tokens(self.name)

    async def _measured(self, texts: Iterable[str]) -> dict[str, Length]:
        """Those that are too long, of those that probably are, as far as the server counts."""
        limit = self._limit
        if limit is None:
            return {}
        sizes = {text: size(text) for text in texts}
        waiting = sorted(sizes, key=lambda text: -sizes[text])
        found: dict[str, Length] = {}
        some = SAMPLE
        # A text has no more tokens than bytes.
        while waiting and sizes[waiting[0]] > max(1.0, self._bytes_a_token) * (limit - FEW):
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
        """What was refused as too long, counted where the refusal does not tell."""
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
        """A reply's vectors, once they are as they must be."""
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
        self._dimension = self._dimension or found
        if found != self._dimension:
            raise BackendError(
                f"{self._upstream.name} sent vectors of {found} dimensions, and of {self._dimension} before: "
                "restart llmbackend if its model was changed, and ingest anew",
                details={**about, "dimension": found, "before": self._dimension},
            )
        return values

    @abstractmethod
    async def identity(self) -> str: ...

    @abstractmethod
    async def _prepare(self, texts: Sequence[str]) -> None:
        """Ask what has to be known of the model to embed these."""

    @abstractmethod
    async def _ask(
        self, batch: list[str], *, dimensions: int | None, truncate: bool = False
    ) -> list[Row]: ...

    @abstractmethod
    async def _count(self, texts: list[str]) -> dict[str, int]:
        """The tokens of each, of those that the server counts."""

    async def close(self) -> None:
        await self._upstream.close()


def _assembled(
    texts: Sequence[str], rows: dict[str, Row], long: dict[str, Length], parts: dict[str, list[str]]
) -> Vectors:
    def whole(text: str) -> tuple[Row, int]:
        """A text's row, and how many parts it was made of."""
        leaves = [text]
        while any(leaf in parts for leaf in leaves):
            leaves = [part for leaf in leaves for part in parts.get(leaf, [leaf])]
        if len(leaves) == 1:
            return rows[leaves[0]], 1
        found = [rows[leaf] for leaf in leaves]
        vector = mean(_matrix(found), [size(leaf) for leaf in leaves])
        return Row(vector.tobytes(), sum(row.tokens for row in found)), len(leaves)

    made = {text: whole(text) for text in long if text in parts}
    cut = [
        Cut(index, length.tokens, length.limit, made[text][1] if text in made else 1)
        for index, text in enumerate(texts)
        if (length := long.get(text)) is not None
    ]
    found = [made[text][0] if text in made else rows[text] for text in texts]
    return Vectors(_matrix(found), [row.tokens for row in found], cut)


def _matrix(rows: list[Row]) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(b"".join([row.vector for row in rows]), np.float32).reshape(len(rows), -1)


class OpenAICompatibleEmbedder(ServedEmbedder):
    """Any server with /v1/embeddings. Vectors are asked for as base64, which not every server gives."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        super().__init__(upstream, model, Limits(texts=64))
        self._root = upstream.root(COUNTING)
        self._ask_at: float = 0.0  # when to ask for the limit; never again once the list has been read

    async def identity(self) -> str:
        return f"{self._upstream.url} {self.name}"

    async def embed_tokens(self, texts: Sequence[TokenIds], *, dimensions: int | None = None) -> Vectors:
        rows = await ask_in_batches(texts, self._limits, partial(self._ask, dimensions=dimensions))
        for text, row in rows.items():
            if isinstance(row, Length):
                raise TextRefused(
                    text, f"there are {len(text)} token ids and the model takes {row.limit}", row._asdict()
                )
        found = [row for text in texts if isinstance(row := rows[text], Row)]
        return Vectors(_matrix(found), [row.tokens for row in found])

    async def _prepare(self, texts: Sequence[str]) -> None:
        """Read how much the model takes, where the server's list tells (vLLM's does); later, if that fails."""
        now = time.monotonic()
        if now < self._ask_at or all(size(text) <= SHORT for text in texts):
            return
        self._ask_at = now + ASK_AGAIN
        with suppress(LLMBackendError):
            listed = await offered(self._upstream, now + COUNTING, retries=0)
            self._limit = listed.get(self.name)
            self._ask_at = inf

    async def _ask(self, batch: list[Any], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        client = await self._upstream.openai()
        import openai  # now that it is there

        create = partial(
            client.embeddings.create,
            model=self.name,
            input=batch,
            encoding_format="base64",
            dimensions=openai.omit if dimensions is None else dimensions,
        )
        reply = await self._upstream.persist(create)
        with self._upstream.translated():
            data = sorted(reply.data, key=lambda item: item.index)
            rows = [_floats(item.embedding) for item in data]
            total = reply.usage.prompt_tokens if reply.usage else None
            if [item.index for item in data] != list(range(len(data))):
                raise BackendError(
                    f"{self._upstream.name} sent vectors whose numbers do not fit the texts",
                    details={"backend": self._upstream.name},
                )
        values = self._vectors(rows, len(batch), dimensions)
        tokens = _shares(total if isinstance(total, int) else 0, [len(text) for text in batch])
        return [Row(vector.tobytes(), count) for vector, count in zip(values, tokens, strict=True)]

    async def _count(self, texts: list[str]) -> dict[str, int]:
        async def count(batch: list[str]) -> list[int | None]:
            return [await counted(self._root, {"model": self.name, "prompt": text}) for text in batch]

        counts = await ask_in_batches(texts, Limits(texts=1), count)
        return {text: tokens for text, tokens in counts.items() if isinstance(tokens, int)}

    async def close(self) -> None:
        await self._root.close()
        await super().close()


def _floats(embedding: Any) -> Any:
    import numpy as np

    return np.frombuffer(base64.b64decode(embedding), "<f4") if isinstance(embedding, str) else embedding


def _shares(total: int, sizes: list[int]) -> list[int]:
    """A batch's tokens, told in one sum, dealt out by the texts' sizes."""
    whole = sum(sizes)
    return [
        after - before for before, after in pairwise(total * end // whole for end in [0, *accumulate(sizes)])
    ]


class TEIEmbedder(ServedEmbedder):
    """Text Embeddings Inference by its own API (POST /embed): https://huggingface.github.io/text-embeddings-inference"""

    truncates = True

    def __init__(self, upstream: Upstream, model: str | None) -> None:
        super().__init__(upstream, model or "tei", Limits(texts=32))
        self._info: Info | None = None

    async def identity(self) -> str:
        info = await self._told()
        return f"{self._upstream.url} {info.model} {info.sha}"

    async def _prepare(self, texts: Sequence[str]) -> None:
        await self._told()

    async def _told(self) -> Info:
        # Callers who are first at the same time each read it: none has to wait for another's failure.
        if self._info is None:
            self._info = info = await read_info(self._upstream)
            self._limits = info.limits
            if info.limits.tokens_a_text < inf:
                self._limit = int(info.limits.tokens_a_text)
        return self._info

    async def _ask(self, batch: list[str], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        if truncate and self._limit is not None:
            batch = [text[: LONGEST * self._limit] for text in batch]
        asked: dict[str, Any] = {"inputs": batch, "truncate": truncate}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        reply = await self._upstream.post("/embed", asked)
        with self._upstream.translated():
            rows = list(reply)
        return [Row(vector.tobytes(), 0) for vector in self._vectors(rows, len(batch), dimensions)]

    async def _count(self, texts: list[str]) -> dict[str, int]:
        step = LONGEST * (self._limit or SHORT)
        pieces = {text: [text[start : start + step] for start in range(0, len(text), step)] for text in texts}
        try:
            counts = await ask_in_batches(
                (piece for text in texts for piece in pieces[text]), self._limits, self._tokenize
            )
        except (NotFound, InvalidRequest):
            return {}  # it does not count: a refusal will tell
        return {
            text: sum(count for piece in pieces[text] if isinstance(count := counts[piece], int))
            for text in texts
        }

    async def _tokenize(self, batch: list[str]) -> list[int]:
        reply = await self._upstream.post("/tokenize", {"inputs": batch})
        with self._upstream.translated():
            return [len(tokens) for tokens in reply]
