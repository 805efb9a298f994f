"""What a model writes, checked as it comes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from llmbackend.knowledge.answers.citations import Checked, cited


def _read(text: str, size: int, count: int = 2) -> tuple[str, bool]:
    """What is left of a text that comes in pieces of some letters, and whether it found anything."""

    async def pieces() -> AsyncIterator[str]:
        for start in range(0, len(text), size):
            yield text[start : start + size]

    async def run() -> tuple[str, bool]:
        checked = Checked(pieces(), count)
        return "".join([piece async for piece in checked.pieces()]), checked.found

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


def test_a_source_is_cited_once() -> None:
    assert cited("Days [2], weeks [1] and months [2].") == [2, 1]
