"""Translates conditions on metadata into filters of the Qdrant engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..errors import InvalidRequest
from .filters import Combination, Condition, FieldCondition
from .indexes import EXACT, parts, places, serves, type_of

BRANCHES = 8
"""Children of each node in a tree of ranges."""

Indexed = Mapping[tuple[str, ...], str]
"""The type of index that each path of a point has."""


class Syntax(Protocol):
    """Makes an engine's filters. Each method returns a condition in the engine's own type."""

    def group(
        self, *, must: Sequence[Any] = (), should: Sequence[Any] = (), must_not: Sequence[Any] = ()
    ) -> Any: ...

    def equals(self, key: str, value: str | int | bool) -> Any: ...

    def any_of(self, key: str, values: list[str] | list[int]) -> Any: ...

    def range(self, key: str, bounds: dict[str, float]) -> Any: ...

    def times(self, key: str, bounds: dict[str, str]) -> Any:
        """Bounds of a field that holds a date, or a date and time, as text (RFC 3339)."""

    def empty(self, key: str) -> Any:
        """The field does not exist, is null, or is an empty list."""


def are_indexed(indexed: Indexed, conditions: Sequence[Condition]) -> bool:
    """Return whether an index answers each condition."""
    return all(
        are_indexed(indexed, one.conditions)
        if isinstance(one, Combination)
        else all(serves(indexed.get(parts(path)), type_of(one)) for path in places(one.key))
        for one in conditions
    )


def condition_of(syntax: Syntax, indexed: Indexed, condition: Condition) -> Any:
    """Translate a condition into an engine's filter."""
    if isinstance(condition, Combination):
        inside = [condition_of(syntax, indexed, one) for one in condition.conditions]
        group = {"all": "must", "any": "should", "none": "must_not"}[condition.of]
        return syntax.group(**{group: inside})
    return syntax.group(should=[_field(syntax, indexed, path, condition) for path in places(condition.key)])


def _field(syntax: Syntax, indexed: Indexed, key: str, condition: FieldCondition) -> Any:
    kind = indexed.get(parts(key))
    hidden = {"datetime": "numbers"} if condition.range else {"float": "times", "integer": "times"}
    if kind in hidden and (condition.range or condition.times):
        wanted = type_of(condition)
        raise InvalidRequest(
            f"filters: {condition.key!r} is indexed as {kind}, so a filter by {hidden[kind]} finds nothing: "
            f"change the index by set_indexes(collection, {{{condition.key!r}: {wanted!r}}})",
            details={"field": condition.key},
        )
    if condition.times is not None:
        return syntax.times(key, condition.times)
    if condition.range is not None:
        return syntax.range(key, condition.range)
    values: Any = condition.any_of if condition.any_of is not None else [condition.equals]
    if values[0] is None:
        return syntax.group(must_not=[syntax.empty(key)])
    if isinstance(values[0], int | float) and not isinstance(values[0], bool):
        return _numbers(syntax, key, values, kind)
    if condition.any_of is not None:
        return syntax.any_of(key, values)
    return syntax.equals(key, values[0])


def _numbers(syntax: Syntax, key: str, values: Sequence[float], kind: str | None) -> Any:
    """Match any of these numbers, stored as integer or float; Qdrant's own match takes integers only."""
    if kind == "integer":  # such an index finds integers only
        whole = [int(value) for value in values if float(value).is_integer() and abs(value) < 2**63]
    else:  # no float equals these
        whole = [value for value in values if isinstance(value, int) and abs(value) > EXACT]
    found = [syntax.any_of(key, whole)] if whole else []
    if others := sorted({float(value) for value in values if value not in set(whole)}):
        found.append(_ranges(syntax, key, others))
    return found[0] if len(found) == 1 else syntax.group(should=found)


def _ranges(syntax: Syntax, key: str, values: Sequence[float]) -> Any:
    """Make a tree of ranges, so that a thousand values take only a few dozen comparisons."""
    bounds = {"gte": values[0], "lte": values[-1]}
    if len(values) == 1:
        return syntax.range(key, bounds)
    size = max(1, -(-len(values) // BRANCHES))
    inside = [_ranges(syntax, key, values[start : start + size]) for start in range(0, len(values), size)]
    either = syntax.group(should=inside)
    return syntax.group(must=[syntax.range(key, bounds), either]) if size > 1 else either
