"""Translates conditions on metadata into filters of the Qdrant engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
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

    @property
    def unindexed(self) -> bool:
        """Whether the engine also looks into fields whose index is of another type, or that have none."""

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


def groups_of(syntax: Syntax, indexed: Indexed, conditions: Sequence[Condition]) -> dict[str, list[Any]]:
    """Translate conditions that must all hold into an engine's `must`, `should` and `must_not`.

    They are nested as little as possible: Qdrant checks every point again that an index finds by a nested condition.
    """
    found: dict[str, list[Any]] = {"must": [], "should": [], "must_not": []}
    for one in conditions:
        if isinstance(one, Combination) and one.of == "all":
            inside = groups_of(syntax, indexed, one.conditions)
            found["must"] += inside["must"]
            found["must_not"] += inside["must_not"]
            some = inside["should"]
        elif isinstance(one, Combination):
            some = list(_alternatives(syntax, indexed, one.conditions))
            if one.of == "none":
                found["must_not"] += some
                continue
        else:
            some = [_field(syntax, indexed, path, one) for path in places(one.key)]
        if len(some) == 1:
            found["must"] += some
        elif found["should"]:
            found["must"] += [syntax.group(should=some)] if some else []
        else:
            found["should"] = some
    return found


def _alternatives(syntax: Syntax, indexed: Indexed, conditions: Sequence[Condition]) -> Iterator[Any]:
    for one in conditions:
        groups = groups_of(syntax, indexed, [one])
        if groups["must"] or groups["must_not"]:
            yield _group(syntax, groups)
        else:
            yield from groups["should"]


def _group(syntax: Syntax, groups: dict[str, list[Any]]) -> Any:
    if len(groups["must"]) == 1 and not groups["should"] and not groups["must_not"]:
        return groups["must"][0]
    return syntax.group(**groups)


def condition_of(syntax: Syntax, indexed: Indexed, condition: Condition) -> Any:
    """Translate a condition into an engine's filter."""
    return _group(syntax, groups_of(syntax, indexed, [condition]))


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
    if condition.spans is not None:
        return _texts_or_times(syntax, key, condition, kind)
    values: Any = condition.any_of if condition.any_of is not None else [condition.equals]
    if values[0] is None:
        return syntax.group(must_not=[syntax.empty(key)])
    if isinstance(values[0], int | float) and not isinstance(values[0], bool):
        return _numbers(syntax, key, values, kind)
    if condition.any_of is not None:
        return syntax.any_of(key, values)
    return syntax.equals(key, values[0])


def _texts_or_times(syntax: Syntax, key: str, condition: FieldCondition, kind: str | None) -> Any:
    """Match texts that are times, or any text for one of these times: as far as the field's index finds them."""
    found = []
    if condition.spans and (kind in (None, "datetime") or (kind == "keyword" and syntax.unindexed)):
        found.append(_within_one(condition.spans, partial(syntax.times, key), syntax))
    if condition.any_of and kind != "datetime":
        found.append(syntax.any_of(key, [str(text) for text in condition.any_of]))
    return found[0] if len(found) == 1 else syntax.group(should=found)


def _numbers(syntax: Syntax, key: str, values: Sequence[float], kind: str | None) -> Any:
    """Match any of these numbers, stored as integer or float; Qdrant's own match takes integers only."""
    if kind == "integer":  # such an index finds integers only
        whole = [int(value) for value in values if float(value).is_integer() and abs(value) < 2**63]
    else:  # no float equals these
        whole = [value for value in values if isinstance(value, int) and abs(value) > EXACT]
    found = [syntax.any_of(key, whole)] if whole else []
    if others := sorted({float(value) for value in values if value not in set(whole)}):
        found.append(
            _within_one([{"gte": one, "lte": one} for one in others], partial(syntax.range, key), syntax)
        )
    return found[0] if len(found) == 1 else syntax.group(should=found)


def _within_one(
    spans: Sequence[dict[str, Any]], within: Callable[[dict[str, Any]], Any], syntax: Syntax
) -> Any:
    """Make a tree of ranges of sorted spans, so that a thousand of them take only a few dozen comparisons."""
    bounds = {"gte": spans[0]["gte"], "lte": spans[-1]["lte"]}
    if len(spans) == 1:
        return within(bounds)
    size = max(1, -(-len(spans) // BRANCHES))
    inside = [
        _within_one(spans[start : start + size], within, syntax) for start in range(0, len(spans), size)
    ]
    either = syntax.group(should=inside)
    return syntax.group(must=[within(bounds), either]) if size > 1 else either
