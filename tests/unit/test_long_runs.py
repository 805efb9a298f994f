"""Texts made of one run: a pattern that tried each place of it anew would hold the interpreter for hours."""

from __future__ import annotations

import pytest

from llmbackend.agents.researcher import AnswerEvent, contradictions, parts_of
from llmbackend.analysis import contracts, extract
from llmbackend.answers.links import inert

LENGTH = 2**17
RUNS = [" ", "\n", "1.", "1", "_", " ,", "and ", "? "]

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("run", RUNS)
def test_a_task_is_divided(run: str) -> None:
    assert parts_of(f"What costs it{run * (LENGTH // len(run))}x")


def test_a_task_has_so_many_parts_at_most_in_order() -> None:
    assert parts_of("What is A and where is B; who? , and   when was C?") == [
        "What is A",
        "where is B;",
        "who?",
        "when was C?",
    ]
    assert parts_of(" ".join(f"Who is {n}?" for n in range(20))) == [f"Who is {n}?" for n in range(8)]
    assert parts_of(" ?") == [" ?"]


@pytest.mark.parametrize("run", RUNS)
def test_a_contracts_facts_are_looked_for(run: str) -> None:
    text = f"This Agreement is made between Alpha Inc. (the “Buyer”) and others.{run * (LENGTH // len(run))}x"
    contracts.facts(text, extract.split(text))


def test_numbers_of_answers_are_compared() -> None:
    one = AnswerEvent(number=0, question="?", collection="a", answer="1" * 20_000 + " [1].", found=True)
    other = AnswerEvent(number=0, question="?", collection="b", answer="2 years [2].", found=True)
    assert contradictions([one, other]) == []


def test_what_follows_an_address_is_kept() -> None:
    assert inert("See https://example.org/a?!_*. Then", "host").endswith("?!_*. Then")
