"""JSON Schemas sent by callers, limited so that checking them is quick."""

from typing import Annotated, Any

from pydantic import AfterValidator

from .. import slices
from .base import Json

MOST_CHARACTERS = 2**18
MOST_LEVELS = 64
MOST_PATTERNS = 100
MOST_IN_PATTERNS = 2**15
"""Characters: they are compiled with the interpreter's lock held, 3,000 of them in a millisecond."""


def _measured(schema: dict[str, Any]) -> dict[str, Any]:
    size = 0
    patterns: list[str] = []
    left: list[tuple[Any, int]] = [(schema, 1)]
    while left:
        slices.give_way()
        node, depth = left.pop()
        if depth > MOST_LEVELS:
            raise ValueError(f"it is nested too deeply: at most {MOST_LEVELS} levels")
        if isinstance(node, dict):
            inside = node.get("patternProperties")
            patterns += inside if isinstance(inside, dict) else ()
            patterns += (node["pattern"],) if isinstance(node.get("pattern"), str) else ()
            size += sum(len(name) + 4 for name in node)
            left += [(one, depth + 1) for one in node.values()]
        elif isinstance(node, list):
            left += [(one, depth + 1) for one in node]
        size += len(node) + 4 if isinstance(node, str) else 4
        if size > MOST_CHARACTERS:
            raise ValueError(f"it is too long: at most {MOST_CHARACTERS} characters")
    if len(patterns) > MOST_PATTERNS:
        raise ValueError(f"it has {len(patterns)} patterns: at most {MOST_PATTERNS}")
    if sum(map(len, patterns)) > MOST_IN_PATTERNS:
        raise ValueError(f"its patterns are too long: at most {MOST_IN_PATTERNS} characters together")
    return schema


JsonSchemaObject = Annotated[dict[str, Json], AfterValidator(_measured)]
"""A JSON object that may be a JSON Schema; not checked yet."""
