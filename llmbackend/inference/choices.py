"""Counts the choices that a JSON Schema leaves to the model that writes a reply to it."""

from __future__ import annotations

from typing import Any

from .. import slices

DEEPEST = 200
"""Most levels of `$ref`, `anyOf`, `oneOf` and `allOf` that are followed; deeper ones count as TOO_MANY."""

TOO_MANY = 2**31


def most_choices(schema: Any) -> int:
    """Return the number of choices at the place of the reply that has most of them.

    Values of an `enum`, optional fields and parts of an `anyOf` are choices. A schema that is referred to several times
    counts each time.
    """
    known: dict[int, int] = {}

    def at_beginning(node: Any, depth: int) -> int:
        if not isinstance(node, dict):
            return 1
        if depth > DEEPEST:
            return TOO_MANY
        if id(node) in known:
            return known[id(node)]
        known[id(node)] = 1  # a schema that begins with itself
        count = 1
        for name in ("enum", "type"):
            if isinstance(values := node.get(name), list):
                count = max(count, len(values))
        if isinstance(fields := node.get("properties"), dict):
            required = node.get("required")
            needed = len(fields.keys() & set(map(str, required))) if isinstance(required, list) else 0
            count = max(count, len(fields) - needed + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            if isinstance(parts := node.get(name), list):
                count = max(count, sum(at_beginning(part, depth + 1) for part in parts))
        if isinstance(reference := node.get("$ref"), str):
            count = max(count, at_beginning(_found(schema, reference), depth + 1))
        known[id(node)] = count
        return count

    most, left = 1, [schema]
    while left:
        slices.give_way()
        node = left.pop()
        if isinstance(node, dict):
            most = max(most, at_beginning(node, 0))
            left += node.values()
        elif isinstance(node, list):
            left += node
    return most


def _found(schema: Any, reference: str) -> Any:
    """What a reference within the schema leads to; None if it leads nowhere."""
    for name in reference.removeprefix("#").split("/")[1:]:
        schema = schema.get(name.replace("~1", "/").replace("~0", "~")) if isinstance(schema, dict) else None
    return schema
