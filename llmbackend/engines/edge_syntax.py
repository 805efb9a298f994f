"""Conditions in Qdrant Edge's terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EdgeSyntax:
    def __init__(self) -> None:
        import qdrant_edge

        self._edge: Any = qdrant_edge

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._edge.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )

    def equals(self, key: str, value: str | int | bool) -> Any:
        import numpy as np

        # The binding takes Python's bool for the integer it is; numpy's it takes for a truth value.
        given: Any = np.bool_(value) if isinstance(value, bool) else value
        return self._edge.FieldCondition(key, match=self._edge.MatchValue(given))

    def any_of(self, key: str, values: list[str] | list[int]) -> Any:
        return self._edge.FieldCondition(key, match=self._edge.MatchAny(values))

    def range(self, key: str, bounds: dict[str, float]) -> Any:
        return self._edge.FieldCondition(key, range=self._edge.RangeFloat(**bounds))

    def times(self, key: str, bounds: dict[str, str]) -> Any:
        return self._edge.FieldCondition(key, range=self._edge.RangeDateTime(**bounds))

    def empty(self, key: str) -> Any:
        return self._edge.IsEmptyCondition(key)

    def among(self, ids: set[Any]) -> Any:
        return self._edge.HasIdCondition(ids)

    def slice(self, parts: int, number: int) -> Any:
        """One of so many parts of all points."""
        return self._edge.SliceCondition(parts, number)
