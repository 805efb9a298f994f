"""Damaged files, some of each kind; the benchmark of the same name tries thousands."""

from __future__ import annotations

from tests.damage import outcomes


def test_damaged_files_are_texts_or_reasons() -> None:
    told = outcomes(100, seed=1)
    assert told.total() >= 100
    assert len({one for one in told if one.endswith("text")}) > 5
    assert len({one for one in told if one.endswith("reason")}) > 5
