"""Whatever an operation fails with in these tests, the OpenAPI document tells."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from llmbackend import operations
from llmbackend.errors import LLMBackendError
from llmbackend.tracing import Trace


@pytest.fixture(autouse=True)
def _documented(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """In process, for what goes over HTTP does so by the same functions."""
    untold: set[tuple[str, str]] = set()
    ours = operations._ours

    def noted(trace: Trace, error: Exception) -> LLMBackendError:
        found = ours(trace, error)
        if type(found) not in operations.OPERATIONS[trace.operation].errors:
            untold.add((trace.operation, type(found).__name__))
        return found

    monkeypatch.setattr(operations, "_ours", noted)
    yield
    assert untold == set()
