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
"""What to do with a text longer than the model takes: embed its parts and average their vectors, embed its
beginning, or raise."""

TokenIds = tuple[int, ...]
"""A text as token ids of the model's own vocabulary."""


@dataclass(frozen=True)
class Cut:
    """A text that was longer than the model takes: `index` is its place among the texts, `parts` how many
    were embedded."""

    index: int
    tokens: int | None
    """The text's length in tokens; None if the server does not tell."""
    limit: int
    """The tokens that the model takes."""
    parts: int


class EmbeddingBatch(NamedTuple):
    """The vectors of some texts: `values` is a float32 array of shape (texts, dimensions), each row of unit
    length.

    `tokens` has the number of tokens read of each text, or None if the server does not tell; `cut` the texts
    that were too long.
    """

    values: NDArray[np.float32]
    tokens: Sequence[int | None]
    cut: Sequence[Cut] = ()
    made_by: Fingerprint | None = None
    """The model that made the vectors, if it is known."""
    noted: bool = False
    """Whether the tokens are already in the trace. Embedders of servers record them with each reply."""

    @property
    def total(self) -> int | None:
        """All tokens together; None if some are not known."""
        return added(0, *self.tokens)


def added(*counts: int | None) -> int | None:
    """The sum of the counts; None if one of them is None."""
    return None if None in counts else sum(count for count in counts if count is not None)


class Embedder(Protocol):
    """Turns texts into vectors, on the event loop.

    Any number of calls may be under way. Whoever made the embedder closes it, after the last call. A minimal
    one, for a test:

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
        """All names that the model is known by, including those in collections of earlier versions."""

    async def fingerprint(self) -> Fingerprint:
        """What tells this model's vectors from those of any other model.

        For a model on a server, it is what was found when the server was last checked. Raises an
        LLMBackendError if the first check fails.
        """

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        """Embed the texts: one vector each, in order, as `values` of shape (texts, dimensions), and each
        text's tokens, if known.

        `too_long` says what happens to a text longer than the model takes: it is split and its parts' vectors
        are averaged, or it is truncated, or refused. Raises InvalidRequest for `dimensions` that the model
        does not have, TextRefused for a text that it does not take, and BackendError, BackendTimeout or
        Overloaded if its server fails.
        """

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        """Embed one text on the event loop, if that takes less time than starting a thread would; else return
        None."""

    def weight(self, text: str, tokens: int | None) -> float:
        """The weight (0 to 1) of this model's list of hits beside BM25's, in a search for a text of so many
        of the model's tokens."""

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        """Embed texts given as token ids, like `embed`. Raises InvalidRequest if the model takes text only."""

    async def close(self) -> None:
        """Release connections and models. No call may be under way."""


SPELT = 0.75
"""From this many tokens a letter on, a model spells a text instead of reading it, because its vocabulary
lacks the words.

wordllama needs .26 in English, .33 in German, .54 in Turkish, and 1.1 and more in Arabic, Chinese, Japanese
and Hindi, or for texts that are little more than a code.
"""


def spelt(text: str, tokens: int) -> bool:
    """Whether a model has to spell a text, and so hardly knows what it says."""
    return tokens > SPELT * sum(map(str.isalnum, text))


class TextRefused(Exception):
    """A text that cannot be embedded. A caller that knows the text's place turns it into an InvalidRequest."""

    def __init__(self, text: str | TokenIds, reason: str, details: dict[str, Any]) -> None:
        super().__init__(reason)
        self.text = text
        self.reason = reason
        self.details = details


def require(embedder: Embedder, model: str | None) -> None:
    """Raise NotFound if a caller names another model than the embedder's."""
    if model is not None and model not in embedder.names:
        raise NotFound(
            f"no embedding model {model!r}: this backend has {embedder.name!r}", details={"model": model}
        )


def no_tokens(name: str) -> InvalidRequest:
    """The error for token ids sent to a model that takes text only."""
    return InvalidRequest(
        f"input: {name} takes text, not token ids: send the texts themselves "
        "(LangChain's OpenAIEmbeddings does with check_embedding_ctx_length=False)"
    )


def checked(rows: list[Any], count: int, backend: str) -> NDArray[np.float32]:
    """A server's rows as unit vectors; raises BackendError unless there are `count`, all of one length and finite."""
    import numpy as np

    about = {"backend": backend}
    if len(rows) != count:
        raise BackendError(f"{backend} sent {len(rows)} vectors for {count} texts", details=about)
    # NumPy would read "0.1" as a number.
    if not all(set(map(type, row)) <= {int, float} for row in rows if isinstance(row, list)):
        raise BackendError(f"{backend} sent vectors that are not numbers", details=about)
    try:
        with np.errstate(over="ignore"):
            values = np.array(rows, dtype=np.float32)
    except (ValueError, TypeError, OverflowError) as error:
        raise BackendError(
            f"{backend} sent vectors of different lengths, or that are not numbers", details=about
        ) from error
    if values.ndim != 2 or not values.size or not np.isfinite(values).all():
        raise BackendError(f"{backend} sent vectors that are not finite numbers", details=about)
    return unit(values)


def unit(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale the rows to length 1, in place, and return them. Rows of zeros stay."""
    import numpy as np

    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    values /= lengths
    return values
