"""Static vectors, wordllama's or another model's: a table of token vectors, which are looked up and averaged
in this process."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import slices, threads, tracing
from ..errors import BackendError, InvalidRequest
from .embeddings import spelt
from .fingerprint import Fingerprint
from .long_texts import in_pieces, token_ids
from .weights import not_installed

if TYPE_CHECKING:
    from .embeddings import EmbeddingBatch, TokenIds, TooLong


QUESTION = 500
"""Shorter texts are embedded on the event loop: it takes a twentieth of a millisecond, half of what changing
to a thread does."""


class StaticModel(NamedTuple):
    """A table with a vector for each token of a vocabulary. A text's vector is the mean of its tokens'."""

    name: str
    folder: Path
    """Has `weights.safetensors`, with a single table, and `tokenizer.json`."""
    dimensions: tuple[int, ...]
    """The lengths that vectors may be cut down to; the last is their full length."""
    skips_unknown: bool = True
    """Whether tokens that are not in the vocabulary are left out of the mean, as in model2vec's models."""


WORDLLAMA = StaticModel(
    "wordllama-l2-supercat-256",
    Path(__file__).with_name("wordllama"),
    (64, 128, 256),  # it was trained to be cut to these lengths (Matryoshka)
    skips_unknown=False,  # its vocabulary has every byte
)
"""The default embedding model, whose weights come with this package (MIT license)."""


def static_model(name: str, folder: Path) -> StaticModel:
    """The model in a folder. Raises LookupError with the reason if its files do not fit together."""
    try:
        from safetensors import SafetensorError, safe_open
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise not_installed(error) from error
    try:
        with safe_open(folder / "weights.safetensors", "np") as weights:
            names = list(weights.keys())
            shape = weights.get_slice(names[0]).get_shape() if len(names) == 1 else []
    except SafetensorError as error:
        raise LookupError(f"its weights cannot be read: {error}") from error
    if len(shape) != 2:
        raise LookupError("its weights are not one table of a vector for each token")
    try:
        tokens = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab_size()
    except Exception as error:  # the library raises nothing more specific
        raise LookupError(f"its tokenizer cannot be read: {error}") from error
    if tokens != shape[0]:
        raise LookupError(f"its tokenizer knows {tokens} tokens, and its weights {shape[0]}")
    return StaticModel(name, folder, (shape[1],))


class StaticEmbedder:
    """An Embedder that looks up static vectors: several thousand passages a second."""

    def __init__(self, model: StaticModel = WORDLLAMA) -> None:
        self.name, self._folder, self.dimensions, self._skips_unknown = model
        self._loading = threading.Lock()
        self._fingerprint: Fingerprint | None = None
        self.names = (self.name,)

    async def fingerprint(self) -> Fingerprint:
        if self._fingerprint is None:
            self._fingerprint = await threads.files(self._hashed)
        return self._fingerprint

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        """Embed as Embedder.embed says; no text is too long for this model."""
        if dimensions is not None and dimensions not in self.dimensions:
            raise InvalidRequest(
                f"dimensions: {self.name} has {_either(self.dimensions)}, not {dimensions}",
                details={"dimensions": dimensions, "possible": [*self.dimensions]},
            )
        with tracing.current().waiting():
            return await threads.embedding(self._embed, texts, dimensions)

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        """Embed a short text, if the model is loaded."""
        short = len(text) < QUESTION and dimensions in (None, *self.dimensions)
        return self._embed([text], dimensions) if short and "_table" in vars(self) else None

    def weight(self, text: str, tokens: int | None) -> float:
        """Small, because static vectors find the neighbourhood, but order it poorly."""
        return 0.1 if spelt(text, tokens or 0) else 0.3

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        from .embeddings import no_tokens

        raise no_tokens(self.name)

    def _embed(self, texts: Sequence[str], dimensions: int | None) -> EmbeddingBatch:
        """The mean of each text's token vectors, scaled to unit length.

        The numbers are those that the packages wordllama and model2vec give. Padding texts to the same length,
        as wordllama does, would take longer. Embedding a text of a megabyte as a whole would take ten times as
        long as its pieces, and half a gigabyte.
        """
        import numpy as np

        from .embeddings import EmbeddingBatch, unit

        tokenizer, table = self.loaded()
        cut = [in_pieces(text) for text in texts]
        pieces = [piece for of_text in cut for piece in of_text]
        values = np.zeros((len(pieces), table.shape[1]), dtype=np.float32)
        tokens: list[int] = []
        for ids in token_ids(tokenizer, pieces):
            if self._unknown is not None:
                ids = [[token for token in of_piece if token != self._unknown] for of_piece in ids]
            for row, of_piece in zip(values[len(tokens) :], ids, strict=False):
                slices.give_way()
                if of_piece:
                    table.take(of_piece, axis=0).sum(axis=0, out=row)
            tokens += map(len, ids)
        if len(pieces) > len(texts):
            begins = np.cumsum([0, *map(len, cut[:-1])])
            values, tokens = np.add.reduceat(values, begins), np.add.reduceat(tokens, begins).tolist()
        return EmbeddingBatch(unit(values[:, :dimensions]), tokens)

    def _hashed(self) -> Fingerprint:
        with self._file("weights.safetensors").open("rb") as weights:
            return Fingerprint(self.name, hashlib.file_digest(weights, "sha256").hexdigest())

    def loaded(self) -> tuple[Any, Any]:
        """The tokenizer and the table, which are read once they are needed."""
        if "_table" not in vars(self):  # else no lock: it might be held when the process is forked
            with self._loading:
                _ = self._tokenizer, self._table
        return self._tokenizer, self._table

    @cached_property
    def _tokenizer(self) -> Any:
        try:
            from tokenizers import Tokenizer
        except ModuleNotFoundError as error:
            raise not_installed(error) from error
        tokenizer = Tokenizer.from_file(str(self._file("tokenizer.json")))
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer

    @cached_property
    def _unknown(self) -> int | None:
        """The id of the token for unknown words, if it is to be left out."""
        if not self._skips_unknown:
            return None
        name = json.loads(self._tokenizer.to_str())["model"].get("unk_token")
        return self._tokenizer.token_to_id(name) if name else None

    @cached_property
    def _table(self) -> Any:
        """A vector for each token."""
        import numpy as np

        try:
            from safetensors.numpy import load_file
        except ModuleNotFoundError as error:
            raise not_installed(error) from error
        (table,) = load_file(self._file("weights.safetensors")).values()
        return table.astype(np.float32, copy=False)

    def _file(self, name: str) -> Path:
        path = self._folder / name
        if not path.is_file():
            raise BackendError(
                f"{self.name}: {path} is missing: install llmbackend again"
                if self._folder == WORDLLAMA.folder
                else f"{self.name} is not here: run `llmbackend models pull {self.name}`",
                details={"backend": "embeddings", "path": str(path)},
            )
        return path

    async def close(self) -> None:
        pass


@cache
def wordllama() -> StaticEmbedder:
    """The default model, loaded once for all clients of a process: that takes longer than all else at their start."""
    return StaticEmbedder()


def _either(numbers: Sequence[int]) -> str:
    *others, last = map(str, numbers)
    return f"{', '.join(others)} or {last}" if others else last
