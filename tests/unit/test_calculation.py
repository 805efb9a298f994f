"""What the calculator of agents gives: exact where there is an exact value, and bounded."""

from __future__ import annotations

import pytest

from llmbackend import InvalidRequest
from llmbackend.agents.calculation import calculated


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("0.1 * 24", "2.4"),
        ("0.8 * 3", "2.4"),
        ("1.10 + 2.20", "3.3"),
        ("3000 * 0.19 / 12", "47.5"),
        ("1 / 3", "0.333333333333333"),
        ("1 / 3 * 3", "1"),
        ("12345678901234567890.5 * 2", "24691357802469135781"),
        ("round(2.675, 2)", "2.68"),
        ("log(1000, 10)", "3"),
        ("sin(pi / 6)", "0.5"),
        ("2 ^ 10", "1024"),
        ("2 ** -3", "0.125"),
        ("sqrt(2)", "1.4142135623731"),
        ("-7 // 2 + -7 % 3", "-2"),
        ("0.3 % 0.1", "0"),
        ("floor(2.7) + ceil(2.1) + abs(-3)", "8"),
        ("max(1, 0.5) + min(1, 0.5) + sum(1, 2, 3.5)", "8"),
        ("1 + " * 249 + "1", "250"),
        ("1e30 / 7", "1.42857142857143E+29"),
    ],
)
def test_a_value_is_exact_as_far_as_there_is_one(expression: str, value: str) -> None:
    assert calculated(expression) == value


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("9**9**9**9", "more than 400 digits"),
        ("1.5**5000", "more than 400 digits"),
        ("1e999999999", "more than 400 digits"),
        ("1e-999999999", "more than 400 digits"),
        ("exp(1000)", "range"),
        ("sqrt(-1)", "domain|nonnegative"),
        ("(-8)**(1/3)", "no real number"),
        ("1 / 0", "divides by zero"),
        ("0 ** -1", "divides by zero"),
        ("().__class__", "is not understood"),
        ("True", "is not understood"),
        ("print(1)", "is not understood"),
        ("round(1, digits=2)", "is not understood"),
        ("1 +", "syntax"),
        ("-" * 60 + "1", "nested too deeply"),
        ("log(1, 1)", "divides by zero"),
    ],
)
def test_what_is_no_calculation_is_refused(expression: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=f"(?s){reason}"):
        calculated(expression)
