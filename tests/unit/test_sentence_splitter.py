"""Texts are split into the parts that LlamaIndex's own splitter makes of the same sentences."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from llama_index.core.node_parser import SentenceSplitter

from llmbackend.chunks import sentence_splitter
from llmbackend.chunks.sentence_splitter import split_text
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
    made: dict[str, int] = {}

    def divided(text: str) -> list[str]:
        """Each way of dividing is used once: LlamaIndex would divide what it had divided again and again."""
        ways = sentence_splitter._listed, sentence_splitter._sentences
        for number in range(made.get(text, 0), len(ways)):
            parts = ways[number](text, size)
            made.update(dict.fromkeys(parts, number + 1))
            if len(parts) > 1:
                return parts
        return [text]

    return SentenceSplitter(
        chunk_size=size,
        chunk_overlap=overlap,
        paragraph_separator="\n\n",
        chunking_tokenizer_fn=divided,
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


@pytest.mark.parametrize(
    "mark", ["a. ", "A. ", "1. ", "12. Mai ", "Dr. ", "(a.) ", '." A', "a.\n", "- a\n", ". "]
)
def test_marks_that_may_end_sentences_are_divided_in_linear_time(mark: str) -> None:
    """Once, each division found one more end of a sentence."""
    whole = mark * 7000
    began = time.process_time()
    parts = split_text(whole, 256, 0)
    assert time.process_time() - began < 5, "of tenths"
    assert "".join("".join(parts).split()) == "".join(whole.split())


@pytest.mark.parametrize("text", ["", " \n\n \t"])
def test_a_text_without_words_has_no_parts(text: str) -> None:
    assert split_text(text, 8, 2) == []
