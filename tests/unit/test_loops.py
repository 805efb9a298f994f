"""Replies that go round in circles."""

from __future__ import annotations

import pytest

from llmbackend.inference.loops import LOOP_LENGTH, is_loop

VERSE = "A place where the heart is free,\nA place where dreams are made.\n"


@pytest.mark.parametrize(
    "text",
    [
        "no " * 100,
        "？" * LOOP_LENGTH,
        "Once upon a time " + "there was a king and " * 10,
        "Well. " + VERSE * 4,
    ],
)
def test_the_same_over_and_over_is_a_loop(text: str) -> None:
    assert is_loop(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hello " * 20,
        VERSE * 2,
        "\n".join(f"{number}. item" for number in range(50)),
        "no " * 100 + "and then it went on differently.",
        "| " + "-" * 60 + " |",
    ],
)
def test_a_list_a_verse_and_a_rule_are_none(text: str) -> None:
    assert not is_loop(text)
