"""JSON Schemas sent by callers, limited so that checking them is quick."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, JsonValue

MOST_CHARACTERS = 2**18
MOST_LEVELS = 64
MOST_PATTERNS = 100


def _measured(schema: dict[str, Any]) -> dict[str, Any]:
    size = patterns = 0
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        node, depth = left.pop()
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested too deeply: at most {MOST_LEVELS} levels")
        if isinstance(node, dict):
            inside = node.get("patternProperties")
            patterns += ("pattern" in node) + (len(inside) if isinstance(inside, dict) else 0)
            size += sum(len(name) + 4 for name in node)
            left += [(one, depth + 1) for one in node.values()]
        elif isinstance(node, list):
            left += [(one, depth + 1) for one in node]
        size += len(node) + 4 if isinstance(node, str) else 4
        if size > MOST_CHARACTERS:
            raise ValueError(f"it is too long: at most {MOST_CHARACTERS} characters")
    if patterns > MOST_PATTERNS:
        raise ValueError(f"it has {patterns} patterns: at most {MOST_PATTERNS}")
    return schema


JsonSchemaObject = Annotated[dict[str, JsonValue], AfterValidator(_measured)]
"""A JSON object that may be a JSON Schema; not checked yet."""
