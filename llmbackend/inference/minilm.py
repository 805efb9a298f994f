"""all-MiniLM-L6-v2 in this process, on ONNX Runtime: far better vectors than wordllama's, at a hundredth of
the speed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import tracing
from ..errors import BackendError, InvalidRequest
from ..threads import Threads
from .embeddings import Cut, EmbeddingBatch, TextRefused, TokenIds, TooLong, no_tokens, spelt, unit
from .fingerprint import Fingerprint
from .long_texts import in_pieces, mean, of_similar_length, token_ids
from .minilm_onnx import STATES, SUM, TOKENIZER, states
from .onnx import session, whole_characters
from .weights import MINILM, path_of

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIMENSION = 384

_Part = tuple[int, ...]
"""The ids of a text's tokens."""

FINGERPRINT = Fingerprint(MINILM.model, MINILM.sha256)

TOKENS = 256
"""The length, in tokens, of the longest texts that the model was trained on."""

TOKENS_A_RUN = 512
"""The most tokens in one run, padding included: more would not fit into a processor's cache."""

STATES_KEPT = 32 * 2**20
"""Bytes of the most recently used texts' vectors of tokens that are kept in memory: some 1,000 sentences."""

RUNS = 8
"""How many runs a call makes before another call has its turn, so that a question does not wait for a whole
ingest."""


class MiniLM:
    """An Embedder. If the weights are missing, calls raise a BackendError that says how to get them."""

    name = MINILM.model

    def __init__(self, models_folder: Path) -> None:
        self.names = (self.name,)
        self.path = path_of(MINILM, models_folder)
        self._loading = threading.Lock()
        # Threads of its own, so that the shared ones stay free. Each run uses two cores.
        self._threads = Threads(max(1, (os.cpu_count() or 2) // 2))
        self._states = _RecentStates()

    async def fingerprint(self) -> Fingerprint:
        return FINGERPRINT

    async def load(self) -> None:
        """Load the model, so that the first call does not have to wait for it."""
        await self._threads(self._loaded)

    async def embed(
        self, texts: Sequence[str], *, dimensions: int | None = None, too_long: TooLong = "split"
    ) -> EmbeddingBatch:
        if dimensions not in (None, DIMENSION):
            raise InvalidRequest(
                f"dimensions: {self.name} has {DIMENSION}, not {dimensions}",
                details={"dimensions": dimensions, "possible": [DIMENSION]},
            )
        import numpy as np

        with tracing.current().waiting():
            ids = await self._threads(self._tokenized, texts)
            parts, cut = _parts(texts, ids, too_long)
            flat = [part for of_text in parts for part in of_text]
            values = np.empty((len(flat), DIMENSION), np.float32)
            groups = list(of_similar_length(flat, TOKENS_A_RUN))
            for start in range(0, len(groups), RUNS):
                await self._threads(self._run, flat, groups[start : start + RUNS], values)
        lengths = [[len(part) for part in of_text] for of_text in parts]
        if len(flat) > len(texts):
            ends = np.cumsum([len(of_text) for of_text in lengths])
            means = [mean(values[end - len(one) : end], one) for one, end in zip(lengths, ends, strict=True)]
            values = np.array(means)
        return EmbeddingBatch(values, [sum(of_text) for of_text in lengths], cut)

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        return None

    def weight(self, text: str, tokens: int | None) -> float:
        return 0.1 if spelt(text, tokens or 0) else 0.7

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        raise no_tokens(self.name)

    async def words(self, question: str, texts: Sequence[str]) -> tuple[list[str], NDArray[np.float32]]:
        """The words of a question, and how near each comes to the nearest token of each text: an array of
        shape (texts, words).

        Tokens are compared as the model sees them in their sentences (late interaction: Khattab and Zaharia,
        ColBERT, 2020). Of long texts, only the beginning is read.
        """
        import numpy as np

        with tracing.current().waiting():
            words, pieces = await self._threads(self._words, question)
            ids = [[token for word in pieces for token in word], *await self._threads(self._tokenized, texts)]
            parts = [tuple(part) for [part] in _parts([question, *texts], ids, "truncate")[0]]
            # Each project has its own, or timing would tell who else has a text.
            project = tracing.current().caller.project
            found = self._states.get(project, parts)
            missing = [part for part in dict.fromkeys(parts) if part not in found]
            for group in of_similar_length(missing, TOKENS_A_RUN):
                found |= await self._threads(self._run_states, [missing[index] for index in group])
            self._states.keep(project, found)
        asked, *told = (found[part] for part in parts)
        near = np.zeros((len(texts), len(asked)), np.float32)
        for row, tokens in enumerate(told):
            if len(tokens):
                near[row] = (tokens @ asked.T).max(axis=0)
        ends = np.cumsum([len(word) for word in pieces])
        kept = [place for place, end in enumerate(ends) if end <= len(asked)]
        each = [near[:, ends[place] - len(pieces[place]) : ends[place]].mean(axis=1) for place in kept]
        return [words[place] for place in kept], np.array(each, np.float32).reshape(len(kept), len(texts)).T

    def _words(self, text: str) -> tuple[list[str], list[list[int]]]:
        """The words of a text in lower case, and for each the ids of its tokens."""
        tokenizer, _ = self._loaded()
        text = whole_characters(text)
        encoded = tokenizer.encode(text, add_special_tokens=False)
        pieces: dict[int, list[int]] = {}
        spans: dict[int, tuple[int, int]] = {}
        for word, token, (start, end) in zip(encoded.word_ids, encoded.ids, encoded.offsets, strict=True):
            pieces.setdefault(word, []).append(token)
            spans[word] = spans.get(word, (start, end))[0], end
        return [text[start:end].lower() for start, end in spans.values()], list(pieces.values())

    def _tokenized(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, without the markers at its ends."""
        tokenizer, _ = self._loaded()
        cut = [in_pieces(whole_characters(text)) for text in texts]
        batches = token_ids(tokenizer, [piece for of_text in cut for piece in of_text])
        each = (ids for batch in batches for ids in batch)
        return [list(chain.from_iterable(islice(each, len(of_text)))) for of_text in cut]

    def _run(self, parts: list[list[int]], groups: list[list[int]], values: NDArray[np.float32]) -> None:
        """Write the vectors of these groups of parts into `values`."""
        _, model = self._loaded()
        for group in groups:
            values[group] = unit(model.run([SUM], _given([parts[index] for index in group]))[0])

    def _run_states(self, parts: list[_Part]) -> dict[_Part, NDArray[np.float32]]:
        """The unit vectors of each part's tokens."""
        _, model = self._loaded()
        [values] = model.run([STATES], _given(parts))
        # A copy, which does not keep the padding in memory.
        return {
            part: unit(tokens[1 : 1 + len(part)].copy()) for part, tokens in zip(parts, values, strict=True)
        }

    def _loaded(self) -> tuple[Any, Any]:
        with self._loading:
            return self._model

    @cached_property
    def _model(self) -> tuple[Any, Any]:
        """The tokenizer and the session of ONNX Runtime."""
        self.require()
        model = session(self.path, self.name, states())
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_str(model.get_modelmeta().custom_metadata_map[TOKENIZER])
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer, model

    def require(self) -> None:
        """Raise BackendError if the weights are not installed."""
        if not self.path.is_file():
            raise BackendError(
                f"{self.name} is not here yet ({self.path.name}): run `llmbackend models pull` once",
                details={"backend": self.name, "path": str(self.path)},
            )

    async def close(self) -> None:
        pass


class _RecentStates:
    """The most recently used parts' vectors of tokens, by project. For one thread."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, _Part], NDArray[np.float32]] = OrderedDict()
        self._bytes = 0

    def get(self, project: str, parts: Sequence[_Part]) -> dict[_Part, NDArray[np.float32]]:
        """Those of these parts that are kept."""
        return {part: self._kept[project, part] for part in parts if (project, part) in self._kept}

    def keep(self, project: str, found: dict[_Part, NDArray[np.float32]]) -> None:
        for part, values in found.items():
            key = project, part
            if key not in self._kept:
                self._bytes += values.nbytes
            self._kept[key] = values
            self._kept.move_to_end(key)
        while self._bytes > STATES_KEPT:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes


_BEGIN, _END = 101, 102


def _given(parts: Sequence[Sequence[int]]) -> dict[str, NDArray[np.int64]]:
    """The model's inputs: the texts between start and end markers, padded to the longest."""
    import numpy as np

    ids, mask = np.zeros((2, len(parts), 2 + max(map(len, parts))), np.int64)
    for row, part in enumerate(parts):
        whole = [_BEGIN, *part, _END]
        ids[row, : len(whole)] = whole
        mask[row, : len(whole)] = 1
    return {"input_ids": ids, "attention_mask": mask}


def _parts(
    texts: Sequence[str], ids: list[list[int]], too_long: TooLong
) -> tuple[list[list[list[int]]], list[Cut]]:
    """The token ids to embed for each text, in as many parts as needed, and the texts that were too long.

    Raises TextRefused for these if `too_long` is "error".
    """
    most = TOKENS - 2
    parts, cut = [], []
    for index, (text, whole) in enumerate(zip(texts, ids, strict=True)):
        of_text = [whole[start : start + most] for start in range(0, len(whole), most)] or [[]]
        if len(of_text) > 1:
            if too_long == "error":
                raise TextRefused(
                    text,
                    f"the text has {len(whole)} tokens and {MINILM.model} takes {most}: shorten it, "
                    'or have it cut with too_long="split" or "truncate"',
                    {"tokens": len(whole), "limit": most},
                )
            if too_long == "truncate":
                of_text = of_text[:1]
            cut.append(Cut(index, len(whole), most, len(of_text)))
        parts.append(of_text)
    return parts, cut
