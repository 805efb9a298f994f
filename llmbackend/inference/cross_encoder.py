"""A reranker in this process: a cross-encoder on ONNX Runtime, which reads a query and a text together."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from .. import tracing
from ..errors import BackendError, NotFound
from ..threads import Threads
from .long_texts import of_similar_length
from .onnx import session, whole_characters
from .rerank import Ranks

TOKENS = 512
"""The most tokens of a query and a text together; longer texts are cut."""

TOKENS_A_RUN = 2048
"""The most tokens in one run of the model, padding included."""

READ = 2**14
"""How many characters of a text are read: more than 512 tokens, unless nearly all are white space."""

PAIRS_AT_ONCE = 64
"""How many pairs are tokenized together: until they are cut, whole texts take up memory."""


class _Pair(NamedTuple):
    """A query and a text, as tokens."""

    ids: list[int]
    kinds: list[int]
    """0 for each token of the query, 1 for each of the text."""


_FILES = ("model.onnx", "tokenizer.json")


class CrossEncoder:
    """A Reranker. Scores are the logistic function of the model's output, between 0 and 1."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self._folder = name, folder
        self._loading = threading.Lock()
        self._threads = Threads(max(1, (os.cpu_count() or 2) // 2))

    async def rerank(self, query: str, texts: Sequence[str], model: str | None = None) -> Ranks:
        if model not in (None, self.name):
            raise NotFound(f"no reranker {model!r}: this backend has {self.name!r}", details={"model": model})
        with tracing.current().waiting():
            encoded = await self._threads(self._encoded, query, texts)
            scores = [0.0] * len(texts)
            for group in of_similar_length([one.ids for one in encoded], TOKENS_A_RUN):
                found = await self._threads(self._run, [encoded[index] for index in group])
                for index, score in zip(group, found, strict=True):
                    scores[index] = score
        tokens = sum(len(one.ids) for one in encoded)
        tracing.current().used(self.name, {"prompt_tokens": tokens})
        return Ranks(self.name, scores, tokens)

    async def close(self) -> None:
        pass

    def score(self, query: str, texts: Sequence[str]) -> list[float]:
        """Score like `rerank`, in the caller's thread."""
        return self._run(self._encoded(query, texts))

    def _encoded(self, query: str, texts: Sequence[str]) -> list[_Pair]:
        tokenizer, _ = self._loaded()
        query = whole_characters(query[:READ])
        found: list[_Pair] = []
        for start in range(0, len(texts), PAIRS_AT_ONCE):
            some = [(query, whole_characters(text[:READ])) for text in texts[start : start + PAIRS_AT_ONCE]]
            found += [_Pair(one.ids, one.type_ids) for one in tokenizer.encode_batch(some)]
        return found

    def _run(self, encoded: list[_Pair]) -> list[float]:
        import numpy as np

        _, model = self._loaded()
        longest = max(len(one.ids) for one in encoded)
        inputs = {
            "input_ids": np.zeros((len(encoded), longest), np.int64),
            "attention_mask": np.zeros((len(encoded), longest), np.int64),
            "token_type_ids": np.zeros((len(encoded), longest), np.int64),
        }
        for row, one in enumerate(encoded):
            inputs["input_ids"][row, : len(one.ids)] = one.ids
            inputs["attention_mask"][row, : len(one.ids)] = 1
            inputs["token_type_ids"][row, : len(one.ids)] = one.kinds
        wanted = {one.name for one in model.get_inputs()}
        (logits,) = model.run(None, {name: values for name, values in inputs.items() if name in wanted})
        values = np.asarray(logits, np.float64).reshape(len(encoded), -1)[:, -1]
        return [float(value) for value in 1 / (1 + np.exp(-values))]

    def _loaded(self) -> tuple[Any, Any]:
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The tokenizer and the session of ONNX Runtime."""
        model, words = (self._folder / name for name in _FILES)
        if not (model.is_file() and words.is_file()):
            raise BackendError(
                f"{self.name} is not here: run `llmbackend models pull {self.name}`",
                details={"backend": self.name, "path": str(self._folder)},
            )
        loaded = session(model, self.name)
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(str(words))
        tokenizer.no_padding()
        tokenizer.enable_truncation(TOKENS, strategy="longest_first")
        return tokenizer, loaded


def check(folder: Path) -> None:
    """Raise LookupError with the reason if the folder's files are not a working cross-encoder."""
    try:
        (score,) = CrossEncoder(folder.name, folder).score("word", ["word"])
    except BackendError:
        raise
    except Exception as error:  # ONNX Runtime has a dozen exceptions without a common base class
        raise LookupError(str(error).splitlines()[0][:200]) from error
    if not 0 <= score <= 1:
        raise LookupError("it gives no score for a pair of texts")
