"""The judge: a second, small model, which tells better than the model that embeds collections how well a text
fits a question.

It judges only the passages and sentences that a search has found: some 200 sentences a second on each core.
Its vectors are kept in the cache.
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
    """all-MiniLM-L6-v2. Check `here` first: without its weights, calls raise BackendError."""

    def __init__(self, model: MiniLM, embedder: CachedEmbedder) -> None:
        """`embedder` is the same model behind the cache of vectors."""
        self._model = model
        self._embedder = embedder

    @property
    def name(self) -> str:
        return self._model.name

    @property
    def here(self) -> bool:
        """Whether the weights are installed; `llmbackend models pull` fetches them."""
        return self._model.path.is_file()

    async def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Embed the texts: an array of shape (texts, 384), rows of unit length. Of a long text, only the
        first 254 tokens count."""
        import numpy as np

        if not texts:
            return np.empty((0, 384), np.float32)
        return (await self._embedder.embed(texts, too_long="truncate")).values

    async def cosines(self, question: str, texts: Sequence[str]) -> NDArray[np.float32]:
        """How near each text is to the question: 1 is the same, and about 0 is unrelated."""
        values = await self.embed([question, *texts])
        cosines: NDArray[np.float32] = values[1:] @ values[0]
        return cosines

    async def words(self, question: str, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """The words of a question, and how near each comes to the nearest word of each text: an array of
        shape (texts, words).

        Only what was read lately is kept, and in memory.
        """
        return await self._model.words(question, texts)

    async def load(self) -> None:
        """Load the model, so that the first call does not have to wait for it."""
        await self._model.load()

    async def close(self) -> None:
        await self._embedder.close()
