"""Embedding models: texts in, unit-length float32 vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

from ..errors import BackendError, InvalidRequest, NotFound

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from .fingerprint import Fingerprint

TooLong = Literal["split", "truncate", "error"]
"""What to do with a text longer than the model takes: average its parts' vectors, embed its beginning, or raise."""

TokenIds = tuple[int, ...]
"""A text as ids of the model's own vocabulary."""


@dataclass(frozen=True)
class Cut:
    """A text longer than the model takes; `index` is its place, from 0, `parts` how many of it were embedded."""

    index: int
    tokens: int | None
    """None where the server did not tell."""
    limit: int
    parts: int


class EmbeddingBatch(NamedTuple):
    """`values` is (texts, dimension), float32, each row of unit length; `tokens` counts what was read of each.

    A server may not tell the tokens: None.
    """

    values: NDArray[np.float32]
    tokens: Sequence[int | None]
    cut: Sequence[Cut] = ()
    made_by: Fingerprint | None = None
    """The model, where there was time to ask for it."""
    noted: bool = False
    """Whether its tokens are in the trace, reply by reply, as those of servers are."""

    @property
    def total(self) -> int | None:
        """All tokens; None where some are not told."""
        return added(0, *self.tokens)


def added(*counts: int | None) -> int | None:
    """The sum of counts; None where some are not known."""
    return None if None in counts else sum(count for count in counts if count is not None)


class Embedder(Protocol):
    """Makes vectors of texts, on the event loop. Vectors are rows of float32, of unit length.

    Any number of calls may be under way. Whoever made it closes it, once no call is. So a test may bring its own:

        class Lengths:
            name, names = "lengths", ("lengths",)

            async def embed(self, texts, *, dimensions=None, too_long="split"):
                rows = np.array([[len(text), 1.0] for text in texts], np.float32)
                return EmbeddingBatch(unit(rows), [len(text) for text in texts])
    """

    @property
    def name(self) -> str:
        """The model's name."""

    @property
    def names(self) -> tuple[str, ...]:
        """All names it goes by, including those that collections of earlier versions have."""

    async def fingerprint(self) -> Fingerprint:
        """What tells this model's vectors from those of any other; of a model on a server, when it was last looked at."""

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        """One vector a text, in order: `values` of shape (texts, dimensions), and what each took in tokens, if that is told.

        A text too long is split and its parts' vectors averaged, or cut, or refused, by `too_long`. Raises InvalidRequest
        for `dimensions` that the model does not have, TextRefused for a text that it does not take, and BackendError,
        BackendTimeout or Overloaded where its server fails.
        """

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        """A text's vector, if making it takes less time than a thread would; for the event loop."""

    def weight(self, text: str, tokens: int | None) -> float:
        """The weight of this model's list beside BM25's, in a search for a text with so many of its tokens."""

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        """As `embed`, of token ids; raises InvalidRequest where the model takes none."""

    async def close(self) -> None:
        """Release connections and models."""


SPELT = 0.75
"""Tokens a letter from which on a model spells a text instead of reading it: its vocabulary lacks the words.

wordllama has .26 in English, .33 in German, .54 in Turkish, and 1.1 and more in Arabic, Chinese, Japanese and Hindi, or
where there is little more than a code.
"""


def spelt(text: str, tokens: int) -> bool:
    """Whether an English model hardly knows what a text says."""
    return tokens > SPELT * sum(map(str.isalnum, text))


class TextRefused(Exception):
    """A text that cannot be embedded: raised to whoever knows its place and makes an InvalidRequest of it."""

    def __init__(self, text: str | TokenIds, reason: str, details: dict[str, Any]) -> None:
        super().__init__(reason)
        self.text = text
        self.reason = reason
        self.details = details


def require(embedder: Embedder, model: str | None) -> None:
    """Raise NotFound if a caller asks for another model than there is."""
    if model is not None and model not in embedder.names:
        raise NotFound(
            f"no embedding model {model!r}: this backend has {embedder.name!r}", details={"model": model}
        )


def no_tokens(name: str) -> InvalidRequest:
    """The error for token ids to a model that takes text only."""
    return InvalidRequest(
        f"input: {name} takes text, not token ids: send the texts themselves "
        "(LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False)"
    )


def checked(rows: list[Any], count: int, backend: str) -> NDArray[np.float32]:
    """A server's rows as unit vectors, once they are `count`, of one length, and finite."""
    import numpy as np

    about = {"backend": backend}
    if len(rows) != count:
        raise BackendError(f"{backend} sent {len(rows)} vectors for {count} texts", details=about)
    try:
        with np.errstate(over="ignore"):
            values = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError) as error:
        raise BackendError(
            f"{backend} sent vectors of different lengths, or that are none", details=about
        ) from error
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise BackendError(f"{backend} sent vectors that are not finite numbers", details=about)
    return unit(values)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same rows, scaled to length 1; a row of zeros stays."""
    import numpy as np

    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    values /= lengths
    return values
