"""How many choices a schema leaves at one place."""

from __future__ import annotations

from typing import Any

import pytest

from llmbackend.inference.choices import TOO_MANY, most_choices

FIELDS = {f"field{number}": {"type": "string"} for number in range(300)}
LEVELS = {f"{number}": {"anyOf": [{"$ref": f"#/$defs/{number + 1}"}] * 3} for number in range(60)}
CHAIN = {f"{number}": {"$ref": f"#/$defs/{number + 1}"} for number in range(300)}


@pytest.mark.parametrize(
    ("schema", "choices"),
    [
        (None, 1),
        ({}, 1),
        ({"type": ["string", "null"]}, 2),
        ({"enum": list(range(300))}, 300),
        ({"items": {"enum": list(range(300))}}, 300),
        ({"properties": FIELDS}, 301),
        ({"properties": FIELDS, "required": list(FIELDS)}, 1),
        ({"properties": {"enum": {}, "anyOf": {}}, "required": ["enum"]}, 2),
        ({"anyOf": [{"enum": [1, 2]}, {"$ref": "#/$defs/a~1b"}], "$defs": {"a/b": {"enum": [1, 2, 3]}}}, 5),
        ({"$ref": "#/$defs/0", "$defs": LEVELS}, 3**60),
        ({"$ref": "#/$defs/0", "$defs": CHAIN}, TOO_MANY),
        ({"properties": {"inside": {"$ref": "#"}}}, 2),
        ({"$ref": "#/nowhere"}, 1),
    ],
)
def test_choices_are_counted_where_there_are_most(schema: Any, choices: int) -> None:
    assert most_choices(schema) == choices
