"""Replies in the shape of a schema, by models that keep to it or do not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Annotated, Any, Literal

import pytest
from pydantic import AfterValidator, BaseModel, ConfigDict

from llmbackend import BackendError, InvalidRequest, LLMBackendClient, StreamInterrupted
from tests.upstream.conftest import ATTEMPTS, Connect, fails
from tests.upstream.fake import CONTEXT, SLOW, USAGE, Upstream

SCHEMA = {
    "type": "object",
    "properties": {"harbour": {"enum": ["Aldersea", "Brill"]}, "ships": {"type": "integer", "minimum": 0}},
    "required": ["harbour", "ships"],
    "additionalProperties": False,
}
FITS = '{"harbour": "Brill", "ships": 3}'
DATA = {"harbour": "Brill", "ships": 3}
MISFIT = '{"harbour": "Atlantis", "ships": -1}'
PROMPT = "How many ships are where?"


def test_the_server_is_told_the_schema(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [FITS]
    reply = client.chat(PROMPT, schema=SCHEMA, temperature=0.5)
    assert reply == FITS
    assert reply.parsed == DATA
    assert reply.parsed.ships == 3
    assert reply.usage == USAGE
    [sent] = upstream.seen
    assert sent == {
        "model": "ok",
        "messages": [{"role": "user", "content": PROMPT}],
        "temperature": 0.5,
        "response_format": {"type": "json_schema", "json_schema": {"name": "reply", "schema": SCHEMA}},
    }


def test_a_reply_may_have_fields_named_as_methods(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ['{"items": [{"keys": "a1"}], "total": 1}']
    parsed = client.chat(PROMPT, schema={"type": "object"}).parsed
    assert parsed["items"][0]["keys"] == "a1"
    assert (parsed.total, dict(parsed)) == (1, {"items": [{"keys": "a1"}], "total": 1})
    with pytest.raises(AttributeError, match=r"record\['items'\]"):
        list(parsed.items)


def test_a_schema_arrives_with_its_nulls(client: LLMBackendClient, upstream: Upstream) -> None:
    schema = {"properties": {"a": {"enum": [None, 1], "default": None}}}
    upstream.replies = ['{"a": null}']
    assert client.chat(PROMPT, schema=schema).parsed == {"a": None}
    assert upstream.seen[0]["response_format"]["json_schema"]["schema"] == schema


def test_a_reply_that_does_not_fit_is_sent_back_once(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [MISFIT, FITS]
    reply = client.chat(PROMPT, schema=SCHEMA)
    assert reply.parsed == DATA
    first, second = upstream.seen
    assert second["response_format"] == first["response_format"]
    question, wrong, correction = second["messages"]
    assert [question] == first["messages"]
    assert wrong == {"role": "assistant", "content": MISFIT}
    assert '$.harbour: "Atlantis" is not one of' in correction["content"]
    assert "$.ships: -1 is less than" in correction["content"]
    assert json.dumps(SCHEMA) in correction["content"]
    assert reply.usage == {name: 2 * count for name, count in USAGE.items()}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        (MISFIT, "$.harbour: "),
        ("There are three.", "not JSON"),
        ("", "not JSON"),
        ('{"ships": NaN}', "not JSON"),
    ],
)
def test_two_replies_that_do_not_fit_are_a_backend_error(
    client: LLMBackendClient, upstream: Upstream, wrong: str, problem: str
) -> None:
    upstream.replies = ["Let me see.", wrong]
    with fails(BackendError, text=wrong, backend="chat") as caught:
        client.chat(PROMPT, schema=SCHEMA)
    assert problem in caught.value.message
    assert problem in caught.value.details["problem"]
    assert len(upstream.seen) == 2


@pytest.mark.parametrize(
    "around",
    ["```json\n{}\n```", "Sure! Here it is:\n\n```\n{}\n```\nAnything else?", "It is {} (I think).", " {}\n"],
)
def test_what_is_around_the_json_is_left_out(
    client: LLMBackendClient, upstream: Upstream, around: str
) -> None:
    upstream.replies = [around.replace("{}", FITS)]
    reply = client.chat(PROMPT, schema=SCHEMA)
    assert (reply, reply.parsed, reply.message.content) == (FITS, DATA, FITS)
    assert len(upstream.seen) == 1


def test_the_second_try_has_what_the_first_left_of_the_time(connect: Connect, upstream: Upstream) -> None:
    upstream.replies, upstream.faults = ["first", "second"], ["slow", "slow"]
    with fails(BackendError, text="first", problem="it is not JSON"):
        connect(upstream_timeout=1.5 * SLOW).chat(PROMPT, schema=SCHEMA)


def test_a_reply_of_something_other_than_text_does_not_fit(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = [{"role": "assistant", "content": [{"type": "image", "data": FITS}]}] * 2
    with fails(BackendError, problem="it is not JSON"):
        client.chat(PROMPT, schema=SCHEMA)


def test_a_reply_that_was_cut_off_is_told_as_such(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [FITS[:-5]]
    with fails(BackendError, text=FITS[:-5]) as caught:
        client.chat(PROMPT, schema=SCHEMA, model="cut")
    assert "cut off" in caught.value.message
    assert "raise max_tokens" in caught.value.message
    assert len(upstream.seen) == 1, "a second try would be cut as well"


def test_a_reply_that_fits_was_not_cut_off(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [FITS]
    assert client.chat(PROMPT, schema=SCHEMA, model="cut").parsed == DATA


def test_a_reply_that_is_too_long_to_send_back_is_the_error(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    wrong = "ship " * CONTEXT
    upstream.replies = [wrong]
    with fails(BackendError, text=wrong, problem="it is not JSON"):
        client.chat(PROMPT, schema=SCHEMA)


@pytest.mark.parametrize(
    ("last", "asked"),
    [
        (
            {"role": "user", "content": PROMPT},
            lambda content: content.startswith(f"{PROMPT}\n\nAnswer with JSON"),
        ),
        (
            {"role": "user", "content": [{"type": "text", "text": PROMPT}]},
            lambda content: (
                content[0]["text"] == PROMPT and content[1]["text"].startswith("Answer with JSON")
            ),
        ),
        ({"role": "assistant", "content": "Well,"}, lambda content: content.startswith("Answer with JSON")),
    ],
    ids=["text", "parts", "another role"],
)
def test_a_server_that_refuses_the_schema_is_asked_in_words(
    client: LLMBackendClient, upstream: Upstream, last: dict[str, Any], asked: Callable[[Any], bool]
) -> None:
    upstream.replies = [MISFIT, FITS]
    reply = client.chat([last], schema=SCHEMA, model="plain")
    assert reply.parsed == DATA
    refused, in_words, corrected = upstream.seen
    assert "response_format" in refused
    assert "response_format" not in in_words
    assert "response_format" not in corrected
    assert in_words["messages"][-1]["role"] == "user"
    assert asked(in_words["messages"][-1]["content"])
    assert json.dumps(SCHEMA) in json.dumps(in_words).replace('\\"', '"')
    assert corrected["messages"][:-2] == in_words["messages"]


@pytest.mark.parametrize(
    ("model", "requests"), [("401", 1), ("404", 1), ("429", 1), ("500", ATTEMPTS), ("400", 2)]
)
def test_a_failing_model_fails_as_ever(
    client: LLMBackendClient, upstream: Upstream, model: str, requests: int
) -> None:
    with fails(_kind_without_schema(client, model), backend="the OpenAI-compatible server"):
        upstream.seen.clear()
        client.chat(PROMPT, schema=SCHEMA, model=model)
    assert len(upstream.seen) == requests


def _kind_without_schema(client: LLMBackendClient, model: str) -> Any:
    try:
        client.chat(PROMPT, model=model)
    except Exception as error:
        return type(error)
    raise AssertionError(f"{model} did not fail")


def test_a_prompt_beyond_the_context_is_sent_once(client: LLMBackendClient, upstream: Upstream) -> None:
    with fails(InvalidRequest, context=CONTEXT, tokens=5000):
        client.chat("word " * 5000, schema=SCHEMA)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize("before", [[], [MISFIT]], ids=["at once", "after a misfit"])
def test_tools_may_be_called_first(client: LLMBackendClient, upstream: Upstream, before: list[str]) -> None:
    tools = [{"type": "function", "function": {"name": "tide"}}]
    call = {"id": "1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    upstream.replies = [*before, {"role": "assistant", "content": None, "tool_calls": [call]}, FITS]
    reply = client.chat(PROMPT, schema=SCHEMA, tools=tools)
    assert (reply.tool_calls[0].name, reply.parsed) == ("tide", None)
    result = {"role": "tool", "tool_call_id": "1", "content": "high"}
    messages = [{"role": "user", "content": PROMPT}, reply.message, result]
    assert client.chat(messages, schema=SCHEMA, tools=tools).parsed == DATA
    assert len(upstream.seen) == len(before) + 2


# Pydantic


def _even(value: int) -> int:
    if value % 2:
        raise ValueError("ships come in pairs")
    return value


class Harbour(BaseModel):
    model_config = ConfigDict(strict=True)

    harbour: Literal["Aldersea", "Brill"]
    ships: Annotated[int, AfterValidator(_even)]
    colours: set[str] = set()


def test_a_pydantic_class_gives_an_instance(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ['{"harbour": "Brill", "ships": 4, "colours": ["red"]}']
    reply = client.chat(PROMPT, schema=Harbour)
    assert reply.parsed == Harbour(harbour="Brill", ships=4, colours={"red"})
    sent = upstream.seen[0]["response_format"]["json_schema"]["schema"]
    assert sent == Harbour.model_json_schema()


def test_what_only_the_class_refuses_is_a_backend_error(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [FITS]
    with fails(BackendError, text=FITS) as caught:
        client.chat(PROMPT, schema=Harbour)
    assert "ships come in pairs" in caught.value.message


def test_a_class_without_a_json_schema_is_refused(client: LLMBackendClient, upstream: Upstream) -> None:
    class Port(BaseModel):
        act: Callable[[], None]

    with fails(InvalidRequest) as caught:
        client.chat(PROMPT, schema=Port)
    assert "Port" in caught.value.message
    assert upstream.seen == []


# What is no schema

DEEP: dict[str, Any] = {}
for _ in range(80):
    DEEP = {"items": DEEP}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "strnig"}, "schema.type"),
        ({"properties": {"a": {"minimum": "one"}}}, "schema.properties.a.minimum"),
        ({"items": {"pattern": "("}}, "schema.items.pattern"),
        ({"properties": {"a": {"$ref": "#/$defs/none"}}}, "/$defs/none"),
        ({"$defs": {"a": {"items": {"$ref": "http://127.0.0.1:9/schema"}}}}, "http://127.0.0.1:9/schema"),
        ({"$schema": 5}, "schema"),
        ({"$id": "http://[half"}, "schema"),
        (DEEP, "nested too deeply"),
        ("type: object", "schema"),
        (5, "schema"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_schema_is_refused_and_asks_no_model(
    client: LLMBackendClient, upstream: Upstream, schema: Any, place: str
) -> None:
    with fails(InvalidRequest) as caught:
        client.chat(PROMPT, schema=schema)
    assert place in caught.value.message
    assert caught.value.details["errors"][0]["loc"][0] == "schema"
    assert upstream.seen == []


def test_a_schema_that_cannot_be_checked_is_a_typed_error(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = [FITS, FITS]
    with pytest.raises((InvalidRequest, BackendError)):
        client.chat(PROMPT, schema={"$dynamicRef": "#none"})


def test_a_schema_that_only_refers_to_itself_asks_for_nothing(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = [FITS]
    assert client.chat(PROMPT, schema={"$ref": "#"}).parsed == DATA


def test_formats_are_for_the_model_only(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ['["no date"]'] * 2
    for draft in ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#"):
        schema = {"$schema": draft, "items": {"type": "string", "format": "date"}}
        assert client.chat(PROMPT, schema=schema).parsed == ["no date"]


def test_half_a_character_does_not_fit(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ['["\\ud800"]'] * 2
    with fails(BackendError, problem="it has half a character in it (a lone surrogate)"):
        client.chat(PROMPT, schema={"items": {"maxLength": 0}})


def test_a_schema_is_not_streamed(client: LLMBackendClient, upstream: Upstream) -> None:
    with fails(InvalidRequest) as caught:
        client.chat(PROMPT, schema=SCHEMA, stream=True)  # type: ignore[call-overload]
    assert not isinstance(caught.value, StreamInterrupted)
    assert "stream" in caught.value.message
    assert upstream.seen == []


@pytest.mark.parametrize("field", [{"n": 2}, {"response_format": {"type": "text"}}])
def test_a_schema_is_for_one_reply_of_one_format(
    client: LLMBackendClient, upstream: Upstream, field: dict[str, Any]
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    with fails(InvalidRequest) as caught:
        client._call("chat", messages=messages, schema=SCHEMA, **field)
    assert next(iter(field)) in caught.value.message
    assert upstream.seen == []


def test_openais_own_field_is_passed_on_as_it_is(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [MISFIT]
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    messages = [{"role": "user", "content": PROMPT}]
    completion = client._call("chat", messages=messages, response_format=given)
    assert completion.choices[0].message.content == MISFIT
    assert upstream.seen[0]["response_format"] == given
