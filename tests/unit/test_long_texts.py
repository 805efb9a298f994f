"""Long texts are embedded in pieces, whose tokens are those of the whole."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Encoding, Tokenizer

from llmbackend.inference.cross_encoder import PAIRS_AT_ONCE, READ, CrossEncoder
from llmbackend.inference.long_texts import PIECE, in_pieces, token_ids
from llmbackend.inference.minilm import MiniLM
from llmbackend.inference.static_vectors import WORDLLAMA, StaticEmbedder


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(WORDLLAMA.folder / "tokenizer.json"))


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False).ids  # type: ignore[no-any-return]


@pytest.mark.parametrize("letters", ["ab  ", "Ab,é. \n", " \t日本a ", "a " * 5 + "  "])
def test_pieces_have_the_tokens_of_the_whole(tokenizer: Tokenizer, letters: str) -> None:
    given = random.Random(letters)
    checked = 0
    for _ in range(300):
        text = "".join(given.choices(letters, k=given.randint(0, 120)))
        pieces = in_pieces(text, 30)
        assert max(map(len, pieces)) <= 30
        if " ".join(pieces) == text:  # it had a space wherever it was cut
            assert [token for piece in pieces for token in _ids(tokenizer, piece)] == _ids(tokenizer, text)
            checked += len(pieces) > 1
    assert checked > 100


@pytest.mark.parametrize(
    "text", ["", " ", "a", "a" * 100, " " * 100, "a" + " " * 100, " " * 100 + "a", "aa " * 40]
)
def test_nothing_of_a_text_is_left_out(text: str) -> None:
    pieces = in_pieces(text, 30)
    assert "".join(pieces).replace(" ", "") == text.replace(" ", "")
    assert len("".join(pieces)) >= len(text) - (len(pieces) - 1)


def test_many_long_pieces_are_not_looked_up_at_once(tokenizer: Tokenizer) -> None:
    pieces = ["word " * (PIECE // 5)] * 200
    batches = list(token_ids(tokenizer, pieces))
    assert sum(map(len, batches)) == len(pieces)
    assert max(map(len, batches)) <= 40


def test_a_long_text_takes_little_memory() -> None:
    """All of its tokens' vectors at once would take a kilobyte a token."""
    embedder = StaticEmbedder()
    embedder._embed(["word"], None)  # the table is loaded
    tracemalloc.start()
    vectors = embedder._embed(["one", "word " * 100_000, "", "two"], None)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * 2**20
    assert vectors.tokens == [1, 100_001, 0, 1]
    each = [embedder._embed([text], None).values[0] for text in ("one", "word", "", "two")]
    assert np.allclose(vectors.values, each, atol=1e-3)


def test_so_it_is_with_minilm(models_dir: Path) -> None:
    text = "The harbour was dredged in 1911. " * 1000
    tokenizer, _ = MiniLM(models_dir)._loaded()
    assert MiniLM(models_dir)._tokenized(["one", text, "", "two"]) == [
        _ids(tokenizer, one) for one in ("one", text, "", "two")
    ]


def test_a_reranker_looks_at_the_beginning_of_long_texts(tokenizer: Tokenizer) -> None:
    looked_up: list[int] = []

    class Counting:
        def encode_batch(self, pairs: list[tuple[str, str]]) -> list[Encoding]:
            looked_up.append(sum(len(query) + len(text) for query, text in pairs))
            return tokenizer.encode_batch(pairs)  # type: ignore[no-any-return]

    encoder = CrossEncoder("counting", Path())
    vars(encoder)["_model"] = Counting(), None
    encoded = encoder._encoded("word", ["long " * 1_000_000, *["short"] * 200])
    assert max(looked_up) <= READ + 10 * PAIRS_AT_ONCE
    assert len(looked_up) == 4
    assert len(encoded) == 201
    assert {len(one.ids) == len(one.kinds) for one in encoded} == {True}
