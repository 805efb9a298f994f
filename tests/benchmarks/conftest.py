"""Benchmarks measure, so they run alone and only when asked for: `pytest tests/benchmarks -m benchmark -s`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="retrieval benchmark: corpus.jsonl ({id, text}) and queries.jsonl ({id, question, gold})",
    )
    parser.addoption(
        "--files",
        type=Path,
        metavar="FOLDER",
        help="files benchmark: files, and expected.jsonl ({file, expect: text|error|empty|text_or_error, "
        "must_contain, must_not_contain})",
    )
    parser.addoption(
        "--points",
        type=int,
        action="append",
        metavar="NUMBER",
        help="search benchmark: how many chunks (default: 10000 and 25000, the first without a graph; a million takes an hour and 6 GB of disk)",
    )
    parser.addoption(
        "--litellm",
        type=Path,
        metavar="EXECUTABLE",
        help="overhead benchmark: LiteLLM's proxy, to compare with",
    )
    parser.addoption(
        "--txtai",
        type=Path,
        metavar="PYTHON",
        help="ingest benchmark: a Python that has txtai and wordllama, to compare with",
    )


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """The folder given with --data."""
    folder: Path | None = request.config.getoption("--data", default=None)
    if folder is None:
        pytest.skip("needs --data FOLDER")
    return folder


@pytest.fixture
def txtai(request: pytest.FixtureRequest) -> Path | None:
    """The Python given with --txtai."""
    python: Path | None = request.config.getoption("--txtai", default=None)
    return python


@pytest.fixture
def table() -> Callable[..., None]:
    """Prints a title and rows of columns, as `pytest -s` shows them."""

    def show(title: str, *rows: tuple[object, ...]) -> None:
        texts = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
        widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
        print(f"\n\n{title}")
        for first, *others in texts:
            cells = [text.rjust(width) for text, width in zip(others, widths[1:], strict=True)]
            print("   ", first.ljust(widths[0]), *cells)

    return show
