"""Which texts repeat another."""

from __future__ import annotations

import random
import time

import pytest

from llmbackend.knowledge.retrieval.duplicates import originals

LONG = random.Random(1).sample([f"word{number}" for number in range(100)], 100)


def _text(words: list[str]) -> str:
    return " ".join(words)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("A text.", "A text.", True),
        ("A text.", "a  TEXT.\n", True),
        ("", " ", True),
        ("夜は短い。", "夜は短い。", True),
        ("A pays B.", "B pays A.", False),
        ("Never open the door.", "open the door.", False),
        (_text(LONG), _text(LONG[:95]), True),
        (_text(LONG), _text(LONG[3:98]), True),
        (_text(LONG), _text([*LONG[6:], "and", "so", "on"]), True),
        (_text(LONG), _text(LONG[:80]), False),
        (_text(LONG), _text([*LONG[:50], "not", *LONG[50:]]), False),
        (_text(["Ann", *LONG]), _text(["Bob", *LONG]), False),
        (_text([*LONG, "in", "1911"]), _text([*LONG, "in", "1912"]), False),
    ],
)
def test_two_texts_are_the_same(one: str, other: str, same: bool) -> None:
    assert originals([one, other]) == ([0, 0] if same else [0, 1])
    assert originals([other, one]) == ([0, 0] if same else [0, 1])


def test_the_first_is_the_original() -> None:
    assert originals(["a", "b", "A", "c", "b ", "a"]) == [0, 1, 0, 3, 1, 0]
    assert originals([]) == []


def test_texts_that_are_made_to_be_compared_for_long_are_not() -> None:
    def made(place: int, length: int) -> str:
        words = ["a"] * length
        words[length // 2] = words[length // 2 + place] = "b"
        return " ".join(words)

    def seconds(length: int) -> float:
        began = time.process_time()
        assert originals([made(place, length) for place in range(1, 31)]) == [*range(30)]
        return time.process_time() - began

    # What is quadratic takes sixteen times as long, and took 13 seconds.
    assert seconds(4_000) < 8 * max(0.1, seconds(1_000))
