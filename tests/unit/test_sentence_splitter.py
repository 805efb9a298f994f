"""Texts are split into the parts that LlamaIndex's own splitter makes of the same sentences."""

from __future__ import annotations

import random
from functools import partial
from pathlib import Path

import pytest
from llama_index.core.node_parser import SentenceSplitter

from llmbackend.chunks import sentence_splitter
from llmbackend.chunks.sentence_splitter import split_text, units
from llmbackend.chunks.tokens import tokens_of

DEMO = Path(__file__).parents[2] / "llmbackend" / "demo" / "documents"
TEXTS = [file.read_text() for file in sorted(DEMO.glob("**/*.*")) if file.suffix in (".md", ".txt")]

PIECES = [
    *["\n\n", "\n\n", "\n", "\n\n\n\n", "  ", " "],
    *[
        "word",
        "Word",
        "end.",
        "so?",
        "A. B.",
        "3.14",
        "12.",
        "e.g.",
        "...",
        "!",
        ";",
        "，",
        "。",
        "(that)",
        '"he said."',
    ],
    *["- item", "1. first", "x" * 300, "東京は大きい", "🙂", "https://a.example/b?c=d"],
]


def _theirs(text: str, size: int, overlap: int) -> list[str]:
    return SentenceSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=partial(units, size=size),
        secondary_chunking_regex=sentence_splitter._PHRASES,
        tokenizer=tokens_of,
    ).split_text(text)


@pytest.mark.parametrize("size", [8, 40, 256])
def test_the_parts_are_those_of_llamaindex_s_splitter(size: int) -> None:
    chance = random.Random(size)
    for _ in range(80):
        text = "".join(
            chance.choice(PIECES) + chance.choice(["", " ", " ", " "])
            for _ in range(chance.randrange(1, 120))
        )
        overlap = chance.randrange(size)
        ours = split_text(text, size, overlap)
        assert ours == _theirs(text, size, overlap), (text, overlap)
        assert all(len(tokens_of(part)) <= size + 1 for part in ours)  # joined texts may have a token more


@pytest.mark.parametrize("overlap", [0, 32])
@pytest.mark.parametrize("text", TEXTS)
def test_so_are_those_of_documents(text: str, overlap: int) -> None:
    for size in (64, 256):
        assert split_text(text, size, overlap) == _theirs(text, size, overlap)


def test_a_character_of_more_tokens_than_fit_is_a_part_by_itself() -> None:
    assert split_text("a 🪿 b", 1, 0) == ["a", "🪿", "b"]


@pytest.mark.parametrize("text", ["", " \n\n \t"])
def test_a_text_without_words_has_no_parts(text: str) -> None:
    assert split_text(text, 8, 2) == []
