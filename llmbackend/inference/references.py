"""Whether checking a value could take for ever because a JSON Schema refers to the same parts again and again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

SCHEMA_PARTS = 2_000
"""The most parts of a schema that may apply to one value, each counted as often as it is referred to."""

MOST_TARGETS = 200

# Keywords that contain schemas, and what these apply to: the value itself ("") or what is in it.
_SCHEMAS = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "not", "if", "then", "else"), ""),
    **dict.fromkeys(("items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"), "[]"),
    **dict.fromkeys(("additionalProperties", "unevaluatedProperties", "propertyNames"), "*"),
}
_NAMED_SCHEMAS = {"dependentSchemas": "", "dependencies": "", "patternProperties": "*", "properties": "."}


class _Reference(NamedTuple):
    target: str
    step: str
    """The first step into the value, on the way to what the target applies to; empty for the value itself."""


class _Unclear(Exception):
    """The schema has references that are not analysed here."""


def may_explode(schema: dict[str, Any]) -> bool:
    """Whether checking may take for ever; False only if the work is sure to grow with the value's length.

    Circular references are harmless if each step into the value is followed by at most one of them.
    """
    sizes: dict[str, int] = {}
    references: dict[str, list[_Reference]] = {}
    left = ["#"]
    try:
        while left:
            if (name := left.pop()) in sizes:
                continue
            found = list(_parts(_at(schema, name), ""))
            sizes[name] = len(found)
            references[name] = [one for one in found if one]
            left += (one.target for one in references[name])
            if len(sizes) > MOST_TARGETS:
                return True
    except _Unclear:
        return True
    reached = {name: _reached(name, references) for name in sizes}
    totals: dict[str, int] = {}
    # Those that refer to the fewest parts come first. Members of a circle reach the same parts; what leads
    # into it comes after it.
    for name in sorted(sizes, key=lambda name: (len(reached[name]), name not in reached[name])):
        if name in totals:
            continue
        circle = [other for other in reached[name] if name in reached[other]]
        total = sum(sizes[one] for one in circle or [name])
        for one in circle or [name]:
            within = [reference.step for reference in references[one] if reference.target in circle]
            if len(within) > 1 and (len(set(within)) < len(within) or not {"", "*"}.isdisjoint(within)):
                return True
            total += sum(
                totals[reference.target] for reference in references[one] if reference.target not in circle
            )
        if total > SCHEMA_PARTS:
            return True
        totals.update(dict.fromkeys(circle or [name], total))
    return False


def _reached(name: str, references: dict[str, list[_Reference]]) -> set[str]:
    found: set[str] = set()
    left = [one.target for one in references[name]]
    while left:
        if (target := left.pop()) not in found:
            found.add(target)
            left += (one.target for one in references[target])
    return found


def _parts(node: Any, step: str) -> Iterator[_Reference | None]:
    """Yield, for each part of a schema, its reference or None."""
    if not isinstance(node, dict):
        yield None
        return
    if not node.keys().isdisjoint(("$dynamicRef", "$recursiveRef", "$id", "id")):
        raise _Unclear
    yield _Reference(str(node["$ref"]), step) if "$ref" in node else None
    for keyword, value in node.items():
        if keyword in _SCHEMAS:
            for one in value if isinstance(value, list) else [value]:
                yield from _parts(one, step or _SCHEMAS[keyword])
        elif keyword in _NAMED_SCHEMAS and isinstance(value, dict):
            into = _NAMED_SCHEMAS[keyword]
            for name, one in value.items():
                yield from _parts(one, step or (into + name if into == "." else into))


def _at(schema: dict[str, Any], pointer: str) -> Any:
    node: Any = schema
    if (pointer != "#" and not pointer.startswith("#/")) or "%" in pointer or "~" in pointer:
        raise _Unclear
    for name in pointer.split("/")[1:]:
        if not isinstance(node, dict) or name not in node:
            raise _Unclear
        node = node[name]
    return node
