"""Indexes of metadata fields: which ones a filter needs, and which paths of a point a field may have."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from .filters import PLACE, Combination, Condition, FieldCondition, forms

FieldType = Literal["keyword", "integer", "float", "bool", "datetime"]
"""The type of an index, by what its field holds: text, integers, numbers, booleans, or times."""

Indexes = Mapping[str, FieldType]
"""Types of indexes by field."""

NO_INDEXES: Indexes = MappingProxyType({})

INDEX_PLACES = 90
"""Most paths that a collection's indexes may take. Qdrant Cloud allows 100, of which our own fields take a few."""

EXACT = 2**53
"""Integers up to this are exact as float64."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r'"([^"]*)"|(\[\d*\])|([^."\[\]]+)')
_STEP = re.compile(r"(.+?)((?:\[\d*\])*)")


def places(field: str) -> list[str]:
    """Return the paths (in Qdrant's syntax) at which a filter's field may be in a point.

    `author.name` may be a field of that name, or the field `name` in `author`; `authors[].name` is one in a list.
    """
    found: list[str] = []
    for form in forms(field):
        found.append(f"metadata.{_quoted(form)}")
        steps = [_STEP.fullmatch(step) for step in form.split(".")]
        path = ".".join(_quoted(step[1]) + step[2] for step in steps if step)
        if all(steps) and path != _quoted(form):
            found.append(f"metadata.{path}")
    if field in PLACE:
        found.append(f"place.{field}")
    if field == "headings":
        found.append("place.sections")
    return found


def _quoted(name: str) -> str:
    return name if _PLAIN.fullmatch(name) else f'"{name}"'


def parts(path: str) -> tuple[str, ...]:
    """Split a path into parts, for comparison: Qdrant returns paths with fewer quotes than it was given."""
    return tuple(quoted or inside or bare for quoted, inside, bare in _PART.findall(path))


def steps(path: str) -> list[str | int | None]:
    """Split a path into steps: a field's name, an item of a list (its number), or every item (None)."""
    found: list[str | int | None] = []
    for quoted, inside, bare in _PART.findall(path):
        if inside:
            found.append(int(inside[1:-1]) if inside[1:-1] else None)
        else:
            found.append(quoted or bare)
    return found


def selector(path: str) -> str:
    """Return the path of the outermost field, of metadata or of a place, that contains this path."""
    field, name, *_ = _PART.findall(path)
    return f"{field[2]}.{_quoted(name[0] or name[2])}"


def needed(conditions: Iterable[Condition]) -> dict[str, FieldType]:
    """Map each field of a filter to the type of index that its first condition needs."""
    found: dict[str, FieldType] = {}
    anything: set[str] = set()
    waiting = list(conditions)
    while waiting:
        one = waiting.pop()
        if isinstance(one, Combination):
            waiting += one.conditions
        elif (kind := type_of(one)) is None:
            anything.add(one.key)
        else:
            found.setdefault(one.key, kind)
    return found | {field: "keyword" for field in anything - found.keys()}


def type_of(condition: FieldCondition) -> FieldType | None:
    """Return the type of index that a condition needs; None if any will do.

    An integer index would hide other numbers from a later range, so it is only used for integers that are not exact as
    floats.
    """
    if condition.times is not None or condition.spans is not None:
        return "datetime"
    if condition.range is not None:
        return "float"
    values = condition.any_of if condition.any_of is not None else [condition.equals]
    if values[0] is None:
        return None
    if isinstance(values[0], bool):
        return "bool"
    if isinstance(values[0], str):
        return "keyword"
    return "integer" if any(isinstance(value, int) and abs(value) > EXACT for value in values) else "float"


def serves(kind: str | None, wanted: FieldType | None) -> bool:
    """Return whether an index of type `kind` answers a condition that needs type `wanted`."""
    if wanted is None:
        return kind is not None
    return kind == wanted or (kind == "integer" and wanted == "float")


def in_points(indexes: Indexes) -> dict[str, FieldType]:
    """Map every path that the fields may have to its type of index."""
    return {path: kind for field, kind in indexes.items() for path in places(field)}
