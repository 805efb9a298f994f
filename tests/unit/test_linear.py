"""Texts are split, and looked through, in time that grows with their length, whatever they say."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from llmbackend import llamaindex_import
from llmbackend.chunks import sentence_splitter
from llmbackend.chunks.chunking import split
from llmbackend.chunks.tokens import tokens_of
from llmbackend.chunks.windows import PART_CHARACTERS, windows
from llmbackend.schemas import Document
from llmbackend.text.delimiters import delimited
from llmbackend.text.sentences import sentences

SMALL = 1_000
TIMES = 4
ROOM = (
    4  # a fourfold text may take 16 times as long: what is quadratic takes that, and most here took far more
)

UNITS = [
    *("[!", "?!", "!)a", "qxzj!(k", "(", ". ", "a! ", "a", "aB", "\U0001f600", "e\u0301", "漢", "漢字。", "a\u200d", "\u200d"),
    *(" ", "\n", "\t", "\n ", "a\n\n", "a  ", "\"'", "QUJD+/9=", "1.2,", "http://a.b/c?d=e&f!(", "\U0001f600!)", "[!" * 40 + " "),
    *("> ", "- ", "* a\n", "1. a\n", "[a]: b\n", "# a\n", "```\n", "*a_", "[a](", "![", "<a>", "<!--", "|a", "a\n=\n", "\f", "---\n"),
]  # fmt: skip


def _seconds(work: Callable[[str], object], text: str) -> float:
    began = time.thread_time()  # others of this process may be at work
    work(text)
    return time.thread_time() - began


def _is_linear(work: Callable[[str], object], made: Callable[[int], str]) -> None:
    llamaindex_import.load()
    work(made(100))  # what else is loaded at first
    once = max(0.02, _seconds(work, made(SMALL)))
    assert _seconds(work, made(TIMES * SMALL)) < ROOM * TIMES * once


def _repeated(unit: str) -> Callable[[int], str]:
    return lambda length: (unit * (length // len(unit) + 1))[:length]


@pytest.mark.parametrize(("name", "size"), [("a.txt", 32), ("a.md", 256)])
@pytest.mark.parametrize("unit", UNITS)
def test_documents_are_split_in_linear_time(unit: str, name: str, size: int) -> None:
    _is_linear(lambda text: split(Document(id=name, text=text), "", size, 8), _repeated(unit))


@pytest.mark.parametrize("unit", UNITS)
def test_sentences_are_found_in_linear_time(unit: str) -> None:
    _is_linear(sentences, _repeated(unit))
    _is_linear(sentences, lambda length: "a\n" + (unit * length)[:length] + "b")


def test_our_tags_are_looked_for_in_linear_time() -> None:
    _is_linear(lambda text: delimited("passage", text), lambda length: "<" + " " * length + "x")
    _is_linear(lambda text: delimited("passage", text), _repeated("< / "))


def test_the_title_of_a_page_is_found_in_linear_time() -> None:
    def split_page(text: str) -> None:
        split(Document(id="a.md", text=f"---\ntitle: a{text}b\n---\nText."), "", 256, 32)

    _is_linear(split_page, lambda length: " " * length)
    [chunk] = split(Document(id="a.md", text="---\ntitle:  ' One  two' \n---\nText."), "", 256, 32)
    assert chunk.place["headings"] == ["One two"]


@pytest.mark.parametrize("unit", UNITS)
def test_nothing_is_lost_in_windows(unit: str) -> None:
    text = "Begin " + unit * (3 * PART_CHARACTERS // len(unit))
    parts = list(windows(text))
    assert "".join(parts) == text
    assert max(map(len, parts)) <= PART_CHARACTERS


def test_a_long_text_has_as_many_tokens_as_its_words() -> None:
    text = "What stands in a line, and what in the next one?\n" * 3000
    assert len(tokens_of(text)) == 3000 * len(tokens_of(text[: text.index("\n") + 1]))


def test_sentences_around_a_long_word_are_those_around_a_short_one() -> None:
    for word in ("http://a.b/" + "c" * 300, "short"):
        text = f"One is here. See {word}. Another is there! And more."
        parts = sentence_splitter._sentences(text, 100)
        assert parts == ["One is here. ", f"See {word}. ", "Another is there! ", "And more."]
