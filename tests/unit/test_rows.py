"""Rows of tables that a question names."""

from __future__ import annotations

import pytest

from llmbackend.answers.rows import named
from llmbackend.answers.units import units

TABLE = """Hours of the offices:

| No. | Office | Opens | Closes |
|---|---|---|---|
| 1 | Harbour | 8:00 | 16:00 |
| 2 | Harbour north | 9:00 | 17:00 |
| 3 | Market | 7:00 | 12:00 |
"""
LINES = "Office: Harbour\nOpens: 8:00\n\nOffice: Market hall\nOpens: 7:00\n\nNote: all are closed on Sundays."


@pytest.mark.parametrize(
    ("text", "question", "expected"),
    [
        (TABLE, "When opens the office Market?", {"| 3 | Market | 7:00 | 12:00 |": True}),
        (TABLE, "Who leads the harbour?", {"| 1 | Harbour | 8:00 | 16:00 |": False}),
        (TABLE, "Who leads Harbour north?", {"| 2 | Harbour north | 9:00 | 17:00 |": False}),
        (TABLE, "Who is in office 2?", {"| 2 | Harbour north | 9:00 | 17:00 |": False}),
        (TABLE, "Which office closes first?", {}),
        (LINES, "When opens the market hall?", {"Office: Market hall\nOpens: 7:00": True}),
        (LINES, "When opens the market?", {}),
        ("From: Ben\nTo: Clara\n\nThe boats are late.", "What does Ben want?", {}),
        (LINES, "What is closed on Sundays?", {}),
    ],
)
def test_the_rows_whose_label_a_question_has(text: str, question: str, expected: dict[str, bool]) -> None:
    parts = units(text)
    found = named(question, text, parts)
    assert {text[parts[place].start : parts[place].end]: sure for place, sure in found.items()} == expected
