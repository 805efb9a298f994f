"""Translates LlamaIndex's metadata filters into ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from ..errors import InvalidRequest

_BOUNDS = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


def filters_of(given: MetadataFilters | Mapping[str, Any] | None) -> dict[str, Any] | None:
    """The filters in the form that `rag_search` takes; ours stay as they are. Raises InvalidRequest for an
    unknown operator."""
    if given is None or isinstance(given, Mapping):
        return dict(given) if given else None
    if not given.filters:
        return None
    parts = [
        _field(one) if isinstance(one, MetadataFilter) else filters_of(one) or {} for one in given.filters
    ]
    parts = [part for part in parts if part]
    match given.condition or FilterCondition.AND:
        case FilterCondition.OR:
            return {"or": parts}
        case FilterCondition.NOT:
            return {"and": [{"not": part} for part in parts]}
    return parts[0] if len(parts) == 1 else {"and": parts}


def _field(item: MetadataFilter) -> dict[str, Any]:
    key, value, operator = item.key, item.value, item.operator
    if key in ("and", "or", "not"):
        raise InvalidRequest(f"filters: a field cannot be called {key!r}, which combines filters")
    match operator:
        case FilterOperator.EQ | FilterOperator.CONTAINS:
            return {key: _one(item)}
        case FilterOperator.NE:
            return {key: {"not": _one(item)}}
        case FilterOperator.IN | FilterOperator.ANY:
            return {key: _several(item)}
        case FilterOperator.NIN:
            return {key: {"not": _several(item)}}
        case FilterOperator.ALL:
            return {"and": [{key: one} for one in _several(item)]}
        case FilterOperator.IS_EMPTY:
            return {key: {"exists": False}}
    if operator in _BOUNDS:
        return {key: {_BOUNDS[operator]: value}}
    raise InvalidRequest(
        f"filters: collections have no operator {operator.value!r} (of field {key!r}): search for the words instead",
        details={"field": key, "operator": operator.value},
    )


def _one(item: MetadataFilter) -> Any:
    if isinstance(item.value, list):
        raise InvalidRequest(
            f"filters: operator {item.operator.value!r} of field {item.key!r} takes one value: use 'in' for several",
            details={"field": item.key},
        )
    return item.value


def _several(item: MetadataFilter) -> list[Any]:
    if not isinstance(item.value, list) or not item.value:
        raise InvalidRequest(
            f"filters: operator {item.operator.value!r} of field {item.key!r} takes a list of values",
            details={"field": item.key},
        )
    return list(item.value)
