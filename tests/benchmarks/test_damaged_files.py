"""Thousands of damaged files: each becomes a text or a reason, and none a crash, a hang or an empty document."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.damage import outcomes

pytestmark = pytest.mark.benchmark

FILES = 2_000


@pytest.mark.timeout(1_800)
def test_damaged_files_are_texts_or_reasons(table: Callable[..., None]) -> None:
    began = time.perf_counter()
    told = outcomes(FILES, seed=int(time.time()))
    seconds = time.perf_counter() - began
    table(f"{FILES} damaged files: {1000 * seconds / FILES:.1f} ms each", *sorted(told.items()))
    assert told.total() >= FILES
