"""Benchmarks measure, so they run alone and only when asked for: `pytest tests/benchmarks -m benchmark -s`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--data",
        type=Path,
        metavar="FOLDER",
        help="retrieval benchmark: corpus.jsonl ({id, text}) and queries.jsonl ({id, question, gold})",
    )
    parser.addoption(
        "--litellm",
        type=Path,
        metavar="EXECUTABLE",
        help="overhead benchmark: LiteLLM's proxy, to compare with",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark every test of this folder, and leave them all out unless `-m` speaks of benchmarks."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker("benchmark")
    if "benchmark" not in config.getoption("-m"):
        config.hook.pytest_deselected(items=ours)
        items[:] = [item for item in items if item not in ours]


@pytest.fixture(scope="session")
def data(request: pytest.FixtureRequest) -> Path:
    """The folder given with --data."""
    folder: Path | None = request.config.getoption("--data", default=None)
    if folder is None:
        pytest.skip("needs --data FOLDER")
    return folder


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
