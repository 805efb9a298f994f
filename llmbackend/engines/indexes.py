"""Indexes of metadata fields: which a filter needs, and where in a point a field lies."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal

from .filters import PLACE, Combination, Condition, FieldCondition, forms

FieldType = Literal["keyword", "integer", "float", "bool", "datetime"]
"""What an indexed field holds: texts, whole numbers, numbers, booleans, moments."""

Indexes = Mapping[str, FieldType]
"""By field."""

NO_INDEXES: Indexes = MappingProxyType({})

INDEX_PLACES = 90
"""Places in points that a collection's indexes may take. Qdrant Cloud allows 100, and ours take a few."""

EXACT = 2**53
"""The largest whole number up to which all are exact as float64."""

_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_PART = re.compile(r'"([^"]*)"|(\[\d*\])|([^."\[\]]+)')
_STEP = re.compile(r"(.+?)((?:\[\d*\])*)")


def places(field: str) -> list[str]:
    """Where in a point a field that a filter names may be, as paths of Qdrant's.

    `author.name` may be a field of that name, or the name of an author; `authors[].name` is that of one in a list.
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
    """A path in parts, for comparison: Qdrant returns paths with fewer quotes than it was given."""
    return tuple(quoted or inside or bare for quoted, inside, bare in _PART.findall(path))


def steps(path: str) -> list[str | int | None]:
    """A path's steps: a name, one of a list (its number), or each of it (None)."""
    found: list[str | int | None] = []
    for quoted, inside, bare in _PART.findall(path):
        if inside:
            found.append(int(inside[1:-1]) if inside[1:-1] else None)
        else:
            found.append(quoted or bare)
    return found


def selector(path: str) -> str:
    """The path of the outermost field of metadata, or of a place, that a path is in."""
    field, name, *_ = _PART.findall(path)
    return f"{field[2]}.{_quoted(name[0] or name[2])}"


def needed(conditions: Iterable[Condition]) -> dict[str, FieldType]:
    """The index that each field of a filter needs: that of the field's first condition."""
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
    """The type of index that a condition is looked up in; None if any will do.

    One of whole numbers would hide all others from a later range, so it is needed only for those that are not exact as
    float.
    """
    if condition.times is not None:
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
    """Whether an index of one type answers conditions that want another."""
    if wanted is None:
        return kind is not None
    return kind == wanted or (kind == "integer" and wanted == "float")


def in_points(indexes: Indexes) -> dict[str, FieldType]:
    """By the paths of the places that the fields may have."""
    return {path: kind for field, kind in indexes.items() for path in places(field)}
