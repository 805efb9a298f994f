"""Filters of Qdrant Edge (see `Syntax` in qdrant_filters.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class EdgeSyntax:
    unindexed = True

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

        # The binding converts Python's bool, a subclass of int, to an integer, but numpy's to a boolean.
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
        """Part `number`, from 0, of all points divided into so many parts."""
        return self._edge.SliceCondition(parts, number)
