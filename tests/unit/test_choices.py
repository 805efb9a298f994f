"""How many choices a schema leaves at one place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InvalidRequest
from llmbackend.inference.choices import TOO_MANY, most_choices
from llmbackend.inference.local_chat import LocalChat

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


@pytest.mark.parametrize("part", ["schema", "parameters of find"])
def test_a_model_that_is_taught_tools_takes_few_choices_there_too(tmp_path: Path, part: str) -> None:
    (tmp_path / "own.gguf").write_bytes(b"GGUF")
    schema = {"type": "object", "properties": FIELDS}
    shapes: dict[str, dict[str, Any]] = {
        "schema": {
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}
        },
        "parameters of find": {
            "tools": [{"type": "function", "function": {"name": "find", "parameters": schema}}]
        },
    }
    request = {"messages": [{"role": "user", "content": "hello"}], **shapes[part]}
    with pytest.raises(InvalidRequest, match=f"{part}: it leaves 301 choices .* own takes 256"):
        asyncio.run(LocalChat(tmp_path, str(tmp_path / "own.gguf"), 2048).complete(request))
