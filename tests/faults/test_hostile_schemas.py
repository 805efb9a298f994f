"""Schemas and replies that would take for ever to check: they are refused, or checked in good time."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from pydantic import BaseModel

from llmbackend import BackendError, InvalidRequest, LLMBackendClient
from tests.upstream.conftest import Connect, _http, _local, _settings, _upstream, connect, fails, upstream
from tests.upstream.fake import Upstream
from tests.upstream.test_schema import DEEP, FITS, PROMPT, SCHEMA

__all__ = ["_http", "_local", "_settings", "_upstream", "connect", "upstream"]


class Tree(BaseModel):
    name: str
    left: Tree | None
    right: Tree | None


TREE = '{"name": "a", "left": null, "right": {"name": "b", "left": null, "right": null}}'


@pytest.mark.parametrize(
    ("schema", "place", "reason"),
    [
        ({"properties": {"a": {"pattern": "^(?=.*[0-9]).+$"}}}, "schema.properties.a.pattern", "look-around"),
        ({"items": {"pattern": r"(a)\1"}}, "schema.items.pattern", "back-references"),
        ({"patternProperties": {"(?!a)": {}}}, "schema.patternProperties", "look-around"),
        ({"pattern": "((a{1000}){1000}){1000}"}, "schema.pattern", "repetitions"),
        ({"properties": {f"p{n}": {"pattern": f"^{n}"} for n in range(101)}}, "schema", "at most 100"),
        ({"enum": ["a" * 1000] * 300}, "schema", "too long: at most 262144"),
        ({"$ref": "file:///etc/passwd"}, "schema", "file:///etc/passwd"),
    ],
)
def test_a_schema_that_asks_too_much_is_told_what(
    client: LLMBackendClient, upstream: Upstream, schema: Any, place: str, reason: str
) -> None:
    with fails(InvalidRequest) as caught:
        client.chat(PROMPT, schema=schema)
    assert caught.value.message.startswith(f"chat: {place}")
    assert reason in caught.value.message
    assert upstream.seen == []


def _bomb(width: int, depth: int, keyword: str) -> dict[str, Any]:
    levels = {str(n): {keyword: [{"$ref": f"#/$defs/{n + 1}"}] * width} for n in range(depth)}
    return {"$defs": {**levels, str(depth): {"type": "object"}}, "$ref": "#/$defs/0"}


_EITHER: list[Any] = [{"properties": {"x": {"$ref": "#"}}, "required": [name]} for name in "nm"]
_NESTED: Any = "x"
for _ in range(60):
    _NESTED = {"x": _NESTED}


@pytest.mark.parametrize(
    ("schema", "reply"),
    [
        ({"items": {"type": "string", "pattern": "^(a+)+$"}}, ["a" * 40 + "!"]),
        ({"items": {"type": "string", "pattern": "(.*a){20}$"}}, ["a" * 20_000 + "!"]),
        ({"patternProperties": {"^(a|a)*$": {}}, "additionalProperties": False}, {"a" * 40 + "!": 1}),
        ({"uniqueItems": True, "maxItems": 1}, [{"a": n} for n in range(20_000)]),
        (_bomb(3, 60, "allOf"), []),
        (_bomb(3, 60, "anyOf"), []),
        ({"anyOf": _EITHER}, _NESTED),
        ({"items": {"multipleOf": 1e-300, "maximum": 1}}, [1e300, 10**400]),
    ],
)
def test_a_reply_is_checked_in_good_time(
    client: LLMBackendClient, upstream: Upstream, schema: Any, reply: Any
) -> None:
    upstream.replies = [json.dumps(reply)] * 2
    began = time.monotonic()
    with pytest.raises((BackendError, InvalidRequest)) as caught:
        client.chat(PROMPT, schema=schema)
    assert "$" in caught.value.message or "takes too long to check" in caught.value.message
    assert time.monotonic() - began < 20, "it takes a second, and a busy machine's time"
    if "takes too long to check" in caught.value.message:
        assert len(upstream.seen) == 1, "another reply is checked no faster"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": DEEP}}]}, "tools[0].function.parameters"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"enum": ["a" * 1000] * 300}}}]}, "tools"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": DEEP}}}, "response_format"),
        ({"structured_outputs": {"regex": "a" * 20_000}}, "structured_outputs.regex"),
        ({"structured_outputs": {"grammar": "a" * 300_000}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"choice": ["a" * 5000]}}, "structured_outputs.choice[0]"),
        ({"stop": "a" * 1001}, "stop"),
        ({"stop": ["a" * 1001]}, "stop"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_what_a_server_would_have_to_compile_has_limits(
    client: LLMBackendClient, upstream: Upstream, fields: dict[str, Any], place: str
) -> None:
    with fails(InvalidRequest) as caught:
        client._call("chat", messages=[{"role": "user", "content": PROMPT}], **fields)
    assert place in caught.value.message
    assert upstream.seen == []


@pytest.mark.parametrize(("schema", "reply"), [(SCHEMA, FITS), (Tree.model_json_schema(), TREE)])
def test_an_ordinary_schema_starts_no_process(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, schema: Any, reply: str
) -> None:
    started: list[Any] = []
    monkeypatch.setattr(subprocess, "Popen", lambda *args, **_: started.append(args))
    upstream.replies = ["[]", reply]
    assert connect().chat(PROMPT, schema=schema).parsed == json.loads(reply)
    assert len(upstream.seen) == 2
    assert started == []


def test_a_check_that_fails_is_no_misfit(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/python")
    upstream.replies = ["[]"]
    with fails(BackendError) as caught:
        connect().chat(PROMPT, schema={"anyOf": _EITHER})
    assert "process that checks replies" in caught.value.message
    assert len(upstream.seen) == 1
