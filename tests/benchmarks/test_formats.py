"""What becomes of the files in a folder given with --files, beside what is expected of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from llmbackend.files.parsed import Unreadable
from llmbackend.files.pool import Limits, ParsingPool

pytestmark = pytest.mark.benchmark


@pytest.fixture
def folder(request: pytest.FixtureRequest) -> Path:
    given: Path | None = request.config.getoption("--files", default=None)
    if given is None:
        pytest.skip("needs --files FOLDER")
    return given


def test_files_become_what_is_expected(folder: Path, table: Callable[..., None]) -> None:
    expected = [json.loads(line) for line in (folder / "expected.jsonl").read_text("utf-8").splitlines()]
    rows: list[tuple[object, ...]] = [("", "as expected", "outcome", "ms")]

    async def read() -> None:
        pool = ParsingPool(Limits())
        for one in expected:
            began = time.perf_counter()
            try:
                [(_, parsed)] = await pool.parse(one["file"], (folder / one["file"]).read_bytes())
                text = parsed.text
                fits, outcome = _fits(one, text), f"{len(text)} characters"
            except Unreadable as error:
                fits, outcome = one["expect"] in ("error", "empty", "text_or_error"), str(error)
            rows.append((one["file"], fits, outcome, 1000 * (time.perf_counter() - began)))
        await pool.close()

    anyio.run(read)
    good = sum(bool(row[1]) for row in rows[1:])
    table(f"files: {good} of {len(expected)} as expected", *rows)
    assert good == len(expected)


def _fits(expected: dict[str, Any], text: str) -> bool:
    return (
        expected["expect"] in ("text", "text_or_error")
        and all(part in text for part in expected["must_contain"])
        and not any(part in text for part in expected["must_not_contain"])
    )
