"""Long texts are scanned in parts, with the results of scanning the whole."""

from __future__ import annotations

import random
import re

import pytest

from llmbackend.analysis import extract
from llmbackend.analysis.check import Checked
from llmbackend.text import scanning, sentences

LETTERS = ["ab. \n", "a|#\n ", "word one. Two\n\n- 1", "。!a \n\t", "\n|-=#a", "  \n\n-. "]


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "PART", 40)


def _texts() -> list[str]:
    given = random.Random(5)
    return ["".join(given.choices(given.choice(LETTERS), k=given.randint(0, 400))) for _ in range(500)]


@pytest.mark.parametrize("pattern", [sentences._BOUNDARY, re.compile(r"\w+"), re.compile(r"\s+")])
def test_matches_are_those_of_the_whole(pattern: re.Pattern[str]) -> None:
    for text in _texts():
        found = [match.span() for match in scanning.matches(pattern, text) if match[0]]
        assert found == [match.span() for match in pattern.finditer(text) if match[0]]


def test_lines_are_those_of_the_whole() -> None:
    for text in _texts():
        found = [match.span() for match in scanning.lines(sentences._BLOCK_LINE, text)]
        assert found == [match.span() for match in sentences._BLOCK_LINE.finditer(text)]


def test_words_are_those_of_the_whole() -> None:
    for text in _texts():
        assert "".join(scanning.parts(text)) == text
        assert scanning.single_spaced(text) == " ".join(text.split())


def test_no_regular_expression_is_given_a_long_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would hold the interpreter's lock until it finds something."""
    given: list[int] = []

    class Counting:
        def finditer(self, text: str, begin: int, end: int) -> list[re.Match[str]]:
            given.append(end - begin)
            return []

    assert list(scanning.matches(Counting(), "word " * 1000)) == []  # type: ignore[arg-type]
    assert max(given) <= scanning.PART + scanning.AHEAD + 5
    assert len(given) > 100


def test_many_sentences_that_are_one_are_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it is a heading was asked of all that had been joined, with each sentence again: hours for 5 MB."""
    lengths: list[int] = []
    monkeypatch.setattr(extract, "is_heading", lambda said: lengths.append(len(said)))
    text = "no capital begins this one. " * 1000
    [only] = extract.split(text)
    assert only.text == text.strip()
    assert max(lengths) < 100
    assert len(lengths) <= 1000


def test_a_claim_is_found_in_a_long_text() -> None:
    text = (
        "The sum was\n 40. " + "Nothing else is said here. " * 100 + 'He called it "a  fair\nprice" of seven.'
    )
    assert extract.find("a fair price", text) == (text.index("a  fair"), text.index('" of'))
    assert extract.find("a fair prize", text) is None
    assert extract.find("", text) is None
    assert Checked(text).missing('40 and 7, "a fair price", 41') == ["41"]
