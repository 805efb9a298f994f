"""Which schemas are checked in this process: those whose work is sure to grow with the reply's length."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel

from llmbackend.inference.references import may_explode


class Address(BaseModel):
    street: str


class Person(BaseModel):
    home: Address
    work: Address | None
    others: list[Address]
    named: dict[str, Address]


class Tree(BaseModel):
    children: list[Tree]


class Node(BaseModel):
    left: Node | None
    right: Node | None
    address: Address


class Add(BaseModel):
    kind: Literal["add"]
    left: int | Add | Negate


class Negate(BaseModel):
    kind: Literal["negate"]
    left: int | Add | Negate


def _bomb(width: int, depth: int, keyword: str) -> dict[str, Any]:
    levels = {str(n): {keyword: [{"$ref": f"#/$defs/{n + 1}"}] * width} for n in range(depth)}
    return {"$defs": {**levels, str(depth): {"type": "object"}}, "$ref": "#/$defs/0"}


@pytest.mark.parametrize("model", [Address, Person, Tree, Node])
def test_those_of_ordinary_classes_are(model: type[BaseModel]) -> None:
    assert not may_explode(model.model_json_schema())


EITHER: list[Any] = [{"properties": {"x": {"$ref": "#"}}, "required": [name]} for name in "nm"]
BOTH = {"allOf": [{"properties": {"x": {"$ref": "#/$defs/b"}}}, {"properties": {"x": {"$ref": "#/$defs/c"}}}]}
BACK = {"properties": {"x": {"$ref": "#/$defs/a"}}}


@pytest.mark.parametrize(
    "schema",
    [
        Add.model_json_schema(),
        _bomb(3, 60, "allOf"),
        _bomb(3, 60, "anyOf"),
        {"anyOf": EITHER},
        {"$defs": {"a": BOTH, "b": BACK, "c": BACK}, "$ref": "#/$defs/a"},
        {"properties": {"x": {"$ref": "#"}}, "patternProperties": {"x": {"$ref": "#"}}},
        {"properties": {"x": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}},
        {"prefixItems": [{"$ref": "#"}], "contains": {"$ref": "#"}},
        {"$defs": {"a": {"$id": "http://a/"}}, "$ref": "http://a/"},
        {"items": {"$dynamicRef": "#"}},
        {"dependentSchemas": {"a": {"items": {"$ref": "#"}}}, "items": {"$ref": "#"}},
    ],
    ids=lambda schema: str(schema)[:40],
)
def test_others_are_not(schema: dict[str, Any]) -> None:
    assert may_explode(schema)


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {}, {"items": {"$ref": "#"}}, _bomb(2, 5, "allOf")])
def test_small_ones_are(schema: dict[str, Any]) -> None:
    assert not may_explode(schema)
