"""Embedding models on servers: OpenAI-compatible ones and TEI, which differ in their wire only.

A text longer than the model takes is told to the caller and cut as asked. Where the limit is known, the server counts
the texts that are probably beyond it; a refusal tells of the others, and of all where the limit is not known. Counting
every text that might be too long would cost a request a text.
"""

from __future__ import annotations

import asyncio
import base64
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import accumulate, pairwise
from math import inf
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import tracing
from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound
from . import budget
from .batches import BYTES_A_TOKEN, Limits, ask_in_batches, size
from .context_limits import COUNTING, Length, counted
from .embeddings import Cut, EmbeddingBatch, TextRefused, TokenIds, TooLong, added, checked, no_tokens
from .fallback import context, listed
from .fingerprint import TEXTS, Fingerprint
from .long_texts import mean, shorter
from .tei import read_info, tokens_told
from .upstream import Upstream

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

log = logging.getLogger(__name__)

ADDED_TOKENS = 4
"""Tokens that a model may add to a text's own."""

SHORT = 500
"""Bytes that every model takes: for texts up to this, nothing is asked about the model."""

SAMPLE = 8
"""Texts that are counted first: their tokens per character may spare counting the others."""

ASK_AGAIN = 60.0
"""Seconds until a server that did not tell its limit is asked again."""

TOKEN_CHARACTERS = 100
"""Characters that a token has at most. TEI reads no text of more than 250 times its limit, so that longer are sent in pieces."""


TRIES = 3
"""How often texts are embedded again because the server's model has changed."""

QUESTION = 8
"""Texts that are embedded as a question is, before what has more."""

LOOK_AGAIN = 3600.0
"""Seconds between two checks whether a server still has the same model."""


class Row(NamedTuple):
    vector: bytes
    """As float32: thousands are joined faster than arrays are."""
    tokens: int | None


class _Changed(Exception):
    """The vectors have another dimension than the model's."""


class RemoteEmbedder(ABC):
    truncates = False
    """Whether the server itself cuts texts off when told to."""

    def __init__(self, upstream: Upstream, limits: Limits) -> None:
        self._upstream = upstream
        self._limits = limits
        self._limit: int | None = None  # tokens a text, once known
        self._bytes_a_token: float = BYTES_A_TOKEN  # of the texts counted last
        self.known: Fingerprint | None = None
        """Of the model, when the server was last looked at."""
        self._looked_at = 0.0
        self._reconnected = 0  # the upstream's, by then
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
        """The first call looks at the server, and raises an LLMBackendError."""
        return self.known or await self.look()

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        """Where another model may have taken the place of the one before meanwhile, the server is looked at."""
        for _ in range(TRIES):
            before = await self.fingerprint()
            looking = asyncio.create_task(self.look()) if self._due else None
            vectors: EmbeddingBatch | None = None
            try:
                with suppress(_Changed):
                    vectors = await self._embed(texts, dimensions, too_long, before)
                if looking is not None:  # both at the same time, so that the call takes no longer
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
            f"{self._upstream.name} at {self._upstream.url} answers now with one embedding model and now with "
            "another: give each a name or a URL of its own",
            details={"backend": self._upstream.name},
        )

    def _room(self) -> Limits:
        """Of a request, which the server may have less room for than it takes."""
        server = self._upstream
        return self._limits._replace(texts=server.budget.batch(self._limits.texts), at_once=server.at_once)

    @property
    def _due(self) -> bool:
        return self._upstream.idle or time.monotonic() >= self._looked_at + LOOK_AGAIN

    async def look(self) -> Fingerprint:
        """Ask what the model is called, and have the texts embedded by which it is known."""
        reconnected = self._upstream.reconnected
        name = await self._called()
        with budget.in_bulk(False):  # somebody waits for it, and it tells how long a question takes
            answers = await ask_in_batches(TEXTS, self._room, partial(self._ask, dimensions=None))
        rows = [row for text in TEXTS if isinstance(row := answers[text], Row)]
        if len(rows) < len(TEXTS):
            raise BackendError(
                f"{self._upstream.name} at {self._upstream.url} takes no text of twenty words: is its model for texts?",
                details={"backend": self._upstream.name},
            )
        found = Fingerprint(name, vectors=_matrix(rows))
        known = self.known
        if known is None or not known.same_vectors(found):
            if known is not None:
                log.warning(
                    "%s at %s has another embedding model: %s, where it was %s",
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
        """Raises _Changed if they are not as long as that model's."""
        await self._prepare(texts)
        with budget.in_bulk(len(texts) > QUESTION or budget.is_in_bulk()):
            return await self._embed_all(texts, dimensions, too_long, made_by)

    async def _embed_all(
        self, texts: Sequence[str], dimensions: int | None, too_long: TooLong, made_by: Fingerprint
    ) -> EmbeddingBatch:
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
        """As of MiniLM: models of servers are as good at least, and know their languages."""
        return 0.7

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
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
        """A reply's vectors, validated."""
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
        """What the server calls the model; its limits are read with it."""

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


def _ended(task: asyncio.Task[Any]) -> None:
    """What it raised, if anything, is told by another error."""
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
        """A text's row, and how many parts it was made of."""
        leaves = [text]
        while any(leaf in parts for leaf in leaves):
            leaves = [part for leaf in leaves for part in parts.get(leaf, [leaf])]
        if len(leaves) == 1:
            return rows[leaves[0]], 1
        found = [rows[leaf] for leaf in leaves]
        vector = mean(_matrix(found), [size(leaf) for leaf in leaves])
        return Row(vector.tobytes(), added(*(row.tokens for row in found))), len(leaves)

    made = {text: whole(text) for text in long if text in parts}
    cut = [
        Cut(index, length.tokens, length.limit, made[text][1] if text in made else 1)
        for index, text in enumerate(texts)
        if (length := long.get(text)) is not None
    ]
    found = [made[text][0] if text in made else rows[text] for text in texts]
    return EmbeddingBatch(_matrix(found), [row.tokens for row in found], cut, noted=True)


def _matrix(rows: list[Row]) -> NDArray[np.float32]:
    import numpy as np

    return np.frombuffer(b"".join([row.vector for row in rows]), np.float32).reshape(len(rows), -1)


class OpenAICompatibleEmbedder(RemoteEmbedder):
    """Any server with /v1/embeddings. Vectors are asked for as base64, which not every server gives."""

    def __init__(self, upstream: Upstream, model: str) -> None:
        super().__init__(upstream, Limits(texts=64))
        self._name = model
        self._root = upstream.root(COUNTING)
        self._ask_at = 0.0  # when to read the list, where that failed

    @property
    def name(self) -> str:
        return self._name

    async def _called(self) -> str:
        name = await self._told()
        if self._upstream.name == "LiteLLM":
            name = await self._behind() or name
        return name or (self.known.model if self.known else self.name)

    async def _told(self) -> str | None:
        """Read the server's list: how many tokens the model takes, and what it is; later, if that fails."""
        self._ask_at = time.monotonic() + ASK_AGAIN
        with suppress(LLMBackendError):
            for model in await listed(self._upstream, time.monotonic() + COUNTING, retries=0):
                if model["id"] == self.name:
                    self._limit = context(model) or self._limit
                    self._ask_at = inf
                    root = model.get("root")  # vLLM's: what it was started with, whatever it is asked for by
                    return root if isinstance(root, str) and root else self.name
            self._ask_at = inf
        return None

    async def _behind(self) -> str | None:
        """The model that an alias of LiteLLM's stands for, where the key may know."""
        with suppress(LLMBackendError), self._upstream.translated():
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
        return EmbeddingBatch(_matrix(found), [row.tokens for row in found], noted=True)

    async def _prepare(self, texts: Sequence[str]) -> None:
        if time.monotonic() >= self._ask_at and any(size(text) > SHORT for text in texts):
            await self._told()

    async def _ask(self, batch: list[Any], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        asked: dict[str, Any] = {"model": self.name, "input": batch, "encoding_format": "base64"}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        unanswered = partial(_note, self.name, None, batch)
        reply, _ = await self._upstream.have_read("/embeddings", asked, len(batch), unanswered=unanswered)
        with self._upstream.translated():
            data = sorted(reply["data"], key=lambda item: item["index"])
            rows = [_floats(item["embedding"]) for item in data]
            total = (reply.get("usage") or {}).get("prompt_tokens")
            _note(self.name, total, batch)
            if [item["index"] for item in data] != list(range(len(data))):
                raise BackendError(
                    f"{self._upstream.name} sent vectors whose numbers do not fit the texts",
                    details={"backend": self._upstream.name},
                )
        values = self._vectors(rows, len(batch), dimensions)
        # Some servers that do not count say 0.
        tokens = _shares(total if isinstance(total, int) and total else None, batch)
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


def _note(model: str, tokens: Any, batch: Sequence[Any]) -> None:
    """Note what a request took, whatever becomes of its reply; an estimate where the server does not tell."""
    told = isinstance(tokens, int) and tokens > 0
    if not told:
        tokens = (
            sum(size(one) if isinstance(one, str) else BYTES_A_TOKEN * len(one) for one in batch)
            // BYTES_A_TOKEN
        )
    tracing.current().used(model, {"embedded_tokens": tokens}, estimated=not told)


def _shares(total: int | None, batch: Sequence[str | TokenIds]) -> Sequence[int | None]:
    """A batch's tokens, told in one sum, dealt out by the texts' sizes."""
    if total is None:
        return [None] * len(batch)
    sizes = [len(text) for text in batch]
    whole = sum(sizes)
    return [
        after - before for before, after in pairwise(total * end // whole for end in [0, *accumulate(sizes)])
    ]


class TEIEmbedder(RemoteEmbedder):
    """Text Embeddings Inference by its own API (POST /embed): https://huggingface.github.io/text-embeddings-inference"""

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
        """It was asked before."""

    async def _ask(self, batch: list[str], *, dimensions: int | None, truncate: bool = False) -> list[Row]:
        if truncate and self._limit is not None:
            batch = [text[: TOKEN_CHARACTERS * self._limit] for text in batch]
        asked: dict[str, Any] = {"inputs": batch, "truncate": truncate}
        if dimensions is not None:
            asked["dimensions"] = dimensions
        unanswered = partial(_note, self.name, None, batch)
        reply, headers = await self._upstream.have_read("/embed", asked, len(batch), unanswered=unanswered)
        _note(self.name, total := tokens_told(headers), batch)
        with self._upstream.translated():
            rows = list(reply)
        tokens = _shares(total, batch)
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
            return {}  # it does not count: its refusal will tell
        return {
            text: sum(count for piece in pieces[text] if isinstance(count := counts[piece], int))
            for text in texts
        }

    async def _tokenize(self, batch: list[str]) -> list[int]:
        reply = await self._upstream.post("/tokenize", {"inputs": batch})
        with self._upstream.translated():
            return [len(tokens) for tokens in reply]
