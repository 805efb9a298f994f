"""What the researcher calls a contradiction where no model judges."""

from __future__ import annotations

import pytest

from llmbackend.agents.researcher import AnswerEvent, contradictions


def _told(mine: str, theirs: str) -> list[str]:
    return contradictions(
        [
            AnswerEvent(number=0, question="?", collection="new", answer=mine, found=True),
            AnswerEvent(number=0, question="?", collection="old", answer=theirs, found=True),
        ]
    )


def test_both_sentences_are_quoted_with_their_sources() -> None:
    assert _told(
        "Post is fetched at nine. Guests keep a key for 12 hours at most. [1]",
        "Guests keep a key for 48 hours at most. [2]",
    ) == [
        "Contradiction: new says “Guests keep a key for 12 hours at most.” [1], "
        "old says “Guests keep a key for 48 hours at most.” [2]."
    ]


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ("Guests keep a key for 12 hours at most. [1]", "Guests keep a key for 12 hours at most. [2]"),
        ("Guests keep a key for 12 hours at most. [1]", "Guests keep a key for 2 days at most. [2]"),
        # Another matter, in the same unit.
        ("Repairs take 36 hours. Guests keep a key for 12 hours. [1]", "Guests keep a key for 12 hours. [2]"),
        ("A ticket is valid for 90 minutes. [1]", "The café closes 30 minutes before the last ferry. [2]"),
    ],
)
def test_what_is_alike_or_about_something_else_contradicts_nothing(mine: str, theirs: str) -> None:
    assert _told(mine, theirs) == []
