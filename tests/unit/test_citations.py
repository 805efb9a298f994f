"""What a model writes, checked as it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from llmbackend.answers.citations import Checked, citing_nothing, mark
from llmbackend.answers.links import Inert


def _read(text: str, size: int, count: int = 2) -> tuple[str, bool]:
    """What is left of a text that comes in pieces of some letters, and whether it found anything."""

    async def pieces() -> AsyncIterator[str]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def run() -> tuple[str, bool]:
        checked = Checked(pieces(), count)
        shown = Inert("host")
        text = "".join([shown.feed(piece) async for piece in checked.pieces()])
        return text + shown.feed("", last=True), checked.found

    return asyncio.run(run())


sizes = pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])


@sizes
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("28 days [1]. Ask first [2].", "28 days [1]. Ask first [2]."),
        ("28 days [3]. Ask [0] first [12][1].", "28 days. Ask first[1]."),
        ("No, it is not [1].", "No, it is not [1]."),
        ("Not in the docks, but in the town [1].", "Not in the docks, but in the town [1]."),
        ("NOT", "NOT"),
        ("\n The answer.\n", "The answer."),
        ("an array a[i] and [", "an array a[i] and ["),
        ("[1", "[1"),
        ("28 days [1, 2].", "28 days [1][2]."),
        ("28 days [1,2][2]", "28 days [1][2][2]"),
        ("28 days [2; 1] or [1–2], [1-9] and [2 - 2].", "28 days [2][1] or [1][2], [1][2] and [2]."),
        ("28 days [1, 7]. More [7, 8].", "28 days [1]. More."),
        ("in [0, 1], [2-1] and [1, x], [1,", "in [ 0, 1], [ 2-1] and [1, x], [1,"),
        ("[[9]2, 1]", "[ 2, 1]"),
        ("[[9]2] [<b>2</b>] [9[9]]", "[ 2] [ 2] [ 9]"),
        ("28 days ［1］ [１]", "28 days ［1］ [ １]"),
        ("[1](http://evil.test/?q=1)", "[1] (evil.test)"),
        ("[99999999999999999999]", "[99999999999999999999]"),
    ],
)
def test_only_citations_of_sources_that_are_there_come_through(size: int, text: str, left: str) -> None:
    assert _read(text, size) == (left, True)


@sizes
@pytest.mark.parametrize(
    "text",
    [
        "NOT IN THE DOCUMENTS",
        "Not in the documents.",
        ' "Not in the documents" [1]',
        "\n**NOT IN THE DOCUMENTS**\n",
        "",
        "  ",
    ],
)
def test_a_model_that_finds_nothing_says_nothing(size: int, text: str) -> None:
    assert _read(text, size) == ("", False)


@sizes
@pytest.mark.parametrize(
    ("text", "left", "found"),
    [
        ("The passages are about fish.\nNOT IN THE DOCUMENTS", "The passages are about fish.", False),
        ("They do not tell: **NOT IN THE DOCUMENTS**. Sorry!", "They do not tell: Sorry!", False),
        ("In 1911 [1]. The cost: NOT IN THE DOCUMENTS.", "In 1911 [1]. The cost:", True),
        ("They do not tell [7]. NOT IN THE DOCUMENTS", "They do not tell.", False),
        (
            "It is not in the documents of 1911, but of 1912.",
            "It is not in the documents of 1911, but of 1912.",
            True,
        ),
        ("NOT IN THE DOCKS, BUT", "NOT IN THE DOCKS, BUT", True),
    ],
)
def test_a_model_may_say_so_after_some_words(size: int, text: str, left: str, found: bool) -> None:
    assert _read(text, size) == (left, found)


@sizes
def test_the_index_of_the_first_is_no_citation(size: int) -> None:
    assert _read("Take args[0] or f()[0][0], as in [1]. And [0]", size) == (
        "Take args[0] or f()[0][0], as in [1]. And",
        True,
    )


def test_a_source_is_cited_once() -> None:
    shown = Inert("host")
    shown.feed(f"Days {mark(2)}, weeks {mark(1)} and months {mark(2)}.", last=True)
    assert shown.cited == [2, 1]


def test_what_is_not_shown_is_not_cited() -> None:
    shown = Inert("host")
    assert shown.feed(f"Days ![chart {mark(2)}](http://evil.test/a.png)", last=True) == "Days "
    assert shown.cited == []


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("As shown [7].", "As shown (7)."),
        ("[1] says yes [1, 2] [^3] [4-6] [ 7 ]", "(1) says yes (1, 2) (^3) (4-6) ( 7 )"),
        ("［7］ 【8】 [７] [\u200b9]", "(7) (8) (７) (\u200b9)"),
        ("[see] [a1] [] [-] array", "[see] [a1] [] [-] array"),
        ("NOT IN THE DOCUMENTS. Not in\nthe documents", "NOT-IN-THE-DOCUMENTS. Not-in-the-documents"),
        (f"x{mark(1)}", "x1"),
        ("args[0], f()[0], a[0][0], [0], [ 0], b[1]", "args[0], f()[0], a[0][0], (0), ( 0), b(1)"),
    ],
)
def test_a_document_cites_nothing(text: str, left: str) -> None:
    assert citing_nothing(text) == left


@pytest.mark.parametrize(
    "unit", [" ", "[", "[1", "[1,", "1, ", "(", '"', "*", ".", "N", "NOT IN ", "\n", "[1]"]
)
def test_a_long_answer_is_read_in_linear_time(unit: str) -> None:
    text = unit * (40_000 // len(unit))
    began = time.monotonic()
    _read(text, 7)
    _read(text, 40_000)
    assert time.monotonic() - began < 10, "quadratic, it takes minutes"
