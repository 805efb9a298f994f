"""The judge: a second, small model, which tells better how well a text fits a question than the one that embeds
collections.

It judges the few passages and sentences that a search has found: some 200 sentences a second and core. What it has read
is kept in the cache of vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .cached_embedder import CachedEmbedder
from .minilm import MiniLM

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Judge:
    """all-MiniLM-L6-v2. Ask `here` first: without its weights, calls raise a BackendError."""

    def __init__(self, model: MiniLM, embedder: CachedEmbedder) -> None:
        """The embedder is the cache before this model."""
        self._model = model
        self._embedder = embedder

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def here(self) -> bool:
        """Whether the weights are: `llmbackend models pull` fetches them."""
        return self._model.path.is_file()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """A unit vector a text, as rows; of a long text (254 tokens, some 190 English words) that of its beginning."""
        import numpy as np

        if not texts:
            return np.empty((0, 384), np.float32)
        return (await self._embedder.embed(texts, too_long="truncate")).values

    async def cosines(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How near each text is to the question: 1 is the same, and what has nothing to do with it is about 0."""
        values = await self.embed([question, *texts])
        cosines: NDArray[np.float32] = values[1:] @ values[0]
        return cosines

    async def words(self, question: str, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """The words of a question, and how near each comes to the nearest word of each text: a row a text.

        Nothing of it is kept: it takes as long as embedding the texts anew.
        """
        return await self._model.words(question, texts)

    async def load(self) -> None:
        """Load the model, so that the first call does not wait for it."""
        await self._model.load()

    async def close(self) -> None:
        await self._embedder.close()
