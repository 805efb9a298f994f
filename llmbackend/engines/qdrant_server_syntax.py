"""Filters of qdrant-client (see `Syntax` in qdrant_filters.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .qdrant_server import QdrantServerIndex


class ServerSyntax:
    """Makes filters of qdrant-client's models. Lists of values are divided to fit the limits of a strict mode."""

    def __init__(self, index: QdrantServerIndex) -> None:
        from qdrant_client import models

        self._models: Any = models
        self._index = index

    @property
    def unindexed(self) -> bool:
        return self._index.unindexed

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any:
        return self._models.Filter(
            must=list(must) or None, should=list(should) or None, must_not=list(must_not) or None
        )

    def equals(self, key: str, value: str | int | bool) -> Any:
        return self._models.FieldCondition(key=key, match=self._models.MatchValue(value=value))

    def any_of(self, key: str, values: list[str] | list[int]) -> Any:
        most = self._index.most_values or len(values)
        parts = [
            self._models.FieldCondition(
                key=key, match=self._models.MatchAny(any=values[start : start + most])
            )
            for start in range(0, len(values), most)
        ]
        return parts[0] if len(parts) == 1 else self.group(should=parts)

    def range(self, key: str, bounds: dict[str, float]) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.Range(**bounds))

    def times(self, key: str, bounds: dict[str, str]) -> Any:
        return self._models.FieldCondition(key=key, range=self._models.DatetimeRange.model_validate(bounds))

    def empty(self, key: str) -> Any:
        return self._models.IsEmptyCondition(is_empty=self._models.PayloadField(key=key))
