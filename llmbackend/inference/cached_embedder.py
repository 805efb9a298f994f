"""The embedder that everything else uses: it asks the model only for texts whose vectors are not cached."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import threads, tracing
from ..access.caller import DEFAULT
from ..errors import InvalidRequest
from .cache import Cache, Entry
from .embeddings import Cut, Embedder, EmbeddingBatch, TextRefused, TokenIds, TooLong
from .fingerprint import Fingerprint

if TYPE_CHECKING:
    import numpy as np

LONG = 2**16
"""From this many characters on, a text is looked up in a thread, because hashing it would block the event loop."""

BULK = 8_192
"""After this many new texts in a row, further texts are expected to be new as well."""

SAMPLE = 64
"""How many texts are looked up as a sample while all are expected to be new."""

Role = Literal["query", "passage"]


class Prompts(NamedTuple):
    """Prefixes that some models were trained with, for questions and for stored texts."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()


class CachedEmbedder:
    """An Embedder that asks its model only for texts that the cache does not have; without a cache, for all.

    It also counts tokens, and turns a refused text into an InvalidRequest that names the text's index.
    """

    def __init__(
        self,
        model: Embedder,
        cache: Cache | None,
        prompts: Prompts = NO_PROMPTS,
        *,
        counts: bool = True,
        keeps_bulk: bool = True,
    ) -> None:
        """If `counts`, tokens count towards the caller's usage.

        `keeps_bulk` is false for a model that is as fast as the cache: long series of new texts then mostly
        bypass the cache, so that they do not displace what is in it.
        """
        self._counts = counts
        self._keeps_bulk = keeps_bulk
        self._new_in_a_row = 0
        self.hits = self.misses = 0
        """Numbers of texts that were in the cache and that were not."""
        self.model = model
        """The model itself, without the cache."""
        self._cache = cache
        self._prompts = prompts
        # The fingerprint seen last, with the prompts added, and the cache's name for it.
        self._made_by: tuple[Fingerprint | None, Fingerprint] | tuple[None, None] = None, None
        self._kept_by: tuple[Fingerprint | None, str] = None, ""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    async def fingerprint(self) -> Fingerprint:
        """The model's fingerprint, with the prompts that are used here."""
        return self._with_prompts(await self.model.fingerprint())

    def _with_prompts(self, made_by: Fingerprint) -> Fingerprint:
        if self._prompts == NO_PROMPTS:
            return made_by
        before, with_prompts = self._made_by
        if with_prompts is None or before is not made_by:
            with_prompts = replace(made_by, query=self._prompts.query, passage=self._prompts.passage)
            self._made_by = made_by, with_prompts
        return with_prompts

    @property
    def uncached(self) -> CachedEmbedder:
        """The same model without the cache. Do not close it: it shares the model with this embedder."""
        return CachedEmbedder(self.model, None, self._prompts, counts=self._counts)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        too_long: TooLong = "split",
        role: Role | None = None,
    ) -> EmbeddingBatch:
        """Embed the texts: one vector each, in order. Texts of a collection have a `role`, which may have a
        prompt.

        Raises an LLMBackendError; for a refused text, that is InvalidRequest with the text's `index` in its
        details.
        """
        prompt = getattr(self._prompts, role) if role else ""
        written = [prompt + text for text in texts] if prompt else texts
        ask = partial(self.model.embed, dimensions=dimensions, too_long=too_long)
        try:
            if self._cache is None:
                vectors = self._noted(await ask(written))
                made_by = vectors.made_by or await self.model.fingerprint()
            else:
                vectors, made_by = await self._through(self._cache, written, [dimensions, too_long], ask)
        except TextRefused as refused:
            raise _placed(refused, written) from refused.__cause__
        return vectors._replace(made_by=self._with_prompts(made_by))

    async def _through(
        self, cache: Cache, texts: Sequence[str], how: list[Any], ask: Any
    ) -> tuple[EmbeddingBatch, Fingerprint]:
        """The vectors, and the fingerprint of the model that made all of them."""
        while True:
            made_by = await self.model.fingerprint()
            before, name = self._kept_by
            if before is not made_by:
                name = made_by.digest or await threads.files(cache.name_of, made_by)
                self._kept_by = made_by, name
            key_of = _key(name, *how, tracing.current().caller.project)
            vectors = await self._embed(cache, key_of, texts, how[0], ask, made_by)
            if vectors is not None:
                return vectors, vectors.made_by or made_by

    async def _embed(
        self,
        cache: Cache,
        key_of: _Key,
        texts: Sequence[str],
        dimensions: int | None,
        ask: Any,
        made_by: Fingerprint,
    ) -> EmbeddingBatch | None:
        """The vectors; None if another model embedded the missing texts, because the server exchanged its
        model meanwhile."""
        if len(texts) == 1 and len(texts[0]) < LONG:
            if entry := cache.at_hand(key := key_of(texts[0])):
                self._note()
                self.hits += 1
                return _vectors([entry])
            with tracing.current().waiting():
                new = self.model.at_once(texts[0], dimensions)
            if new:
                self.misses += 1
                cache.remember(dict(zip([key], _entries(new), strict=True)))
                return self._noted(new)
        if await self._are_new(cache, key_of, texts):
            self.misses += len(texts)
            new = self._noted(await ask(texts))
            return new if new.made_by is None or new.made_by.same_vectors(made_by) else None
        keys, entries, vectors = await threads.files(_look_up, cache, key_of, texts)
        found = sum(entry is not None for entry in entries)
        if len(texts) > SAMPLE:
            self._new_in_a_row = self._new_in_a_row + len(texts) if 10 * found < len(texts) else 0
        if vectors is not None:
            self._note()
            self.hits += len(texts)
            return vectors
        self.hits, self.misses = self.hits + found, self.misses + len(texts) - found
        missing = {key: text for key, text, entry in zip(keys, texts, entries, strict=True) if entry is None}
        new = self._noted(await ask(list(missing.values())))
        if new.made_by is not None and not new.made_by.same_vectors(made_by):
            return None
        return await threads.processor(_merged, cache, list(missing), new, keys, entries)

    async def _are_new(self, cache: Cache, key_of: _Key, texts: Sequence[str]) -> bool:
        """Whether the texts belong to a long series of new ones, which need not be kept."""
        if self._keeps_bulk or len(texts) <= SAMPLE or self._new_in_a_row < BULK:
            return False
        some = texts[:: len(texts) // SAMPLE]
        return not any((await threads.files(_look_up, cache, key_of, some))[1])

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        return self.model.at_once(text, dimensions)

    def weight(self, text: str, tokens: int | None) -> float:
        return self.model.weight(text, tokens)

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        """Embed token ids like `embed`, without the cache."""
        try:
            return self._noted(await self.model.embed_tokens(texts, dimensions=dimensions))
        except TextRefused as refused:
            raise _placed(refused, texts) from refused.__cause__

    def _noted(self, vectors: EmbeddingBatch) -> EmbeddingBatch:
        self._note(None if vectors.noted else vectors.total)
        return vectors

    def _note(self, tokens: int | None = None) -> None:
        if self._counts:
            tracing.current().used(self.name, {"embedded_tokens": tokens})

    async def close(self) -> None:
        await self.model.close()
        if self._cache is not None:
            await threads.files(self._cache.close)


def _placed(refused: TextRefused, texts: Sequence[str] | Sequence[TokenIds]) -> InvalidRequest:
    # The refused text may also be a part of a text, or a text with its prompt.
    places = [index for index, text in enumerate(texts) if text == refused.text]
    places += [index for index, text in enumerate(texts) if refused.text in text]
    index = places[0]
    return InvalidRequest(f"input[{index}]: {refused.reason}", details={**refused.details, "index": index})


class _Key:
    def __init__(self, seed: bytes) -> None:
        self._seed = hashlib.blake2b(seed, digest_size=24)

    def __call__(self, text: str) -> bytes:
        """The hash of all that the text's vector depends on."""
        hashed = self._seed.copy()
        hashed.update(text.encode(errors="surrogatepass"))
        return hashed.digest()


@lru_cache(1000)
def _key(name: str, dimensions: int | None, too_long: TooLong, project: str) -> _Key:
    """The key for vectors made in one way. Each project has its own, or timing would tell who else has
    embedded a text."""
    whose = [] if project == DEFAULT else [project]  # as in caches from before there were projects
    return _Key(json.dumps([name, dimensions, too_long, *whose]).encode())


def _look_up(
    cache: Cache, key_of: _Key, texts: Sequence[str]
) -> tuple[list[bytes], list[Entry | None], EmbeddingBatch | None]:
    """The texts' keys and entries, and the vectors if nothing is missing."""
    keys = [key_of(text) for text in texts]
    entries = cache.get(keys)
    found = [entry for entry in entries if entry is not None]
    return keys, entries, _vectors(found) if len(found) == len(keys) else None


def _merged(
    cache: Cache, missing: list[bytes], new: EmbeddingBatch, keys: list[bytes], entries: list[Entry | None]
) -> EmbeddingBatch:
    """The vectors of all keys, in order, cached and new. The new ones go into the cache."""
    fresh = dict(zip(missing, _entries(new), strict=True))
    cache.keep(fresh)
    if len(missing) == len(keys):
        return new
    merged = _vectors([entry or fresh[key] for key, entry in zip(keys, entries, strict=True)])
    return merged._replace(made_by=new.made_by)


def _entries(vectors: EmbeddingBatch) -> list[Entry]:
    cuts = {cut.index: json.dumps([cut.tokens, cut.limit, cut.parts]) for cut in vectors.cut}
    return [
        Entry(row.tobytes(), tokens, cuts.get(index))
        for index, (row, tokens) in enumerate(zip(vectors.values.astype("<f4"), vectors.tokens, strict=True))
    ]


def _vectors(entries: list[Entry]) -> EmbeddingBatch:
    import numpy as np

    block, tokens, cuts = zip(*entries, strict=True)
    values: np.ndarray[Any, Any] = np.frombuffer(b"".join(block), "<f4").reshape(len(entries), -1)
    cut = [Cut(index, *json.loads(fields)) for index, fields in enumerate(cuts) if fields]
    return EmbeddingBatch(values, list(tokens), cut)
