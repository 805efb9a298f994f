"""OpenAI's client: `responses` with all that it has."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from pydantic import BaseModel

from tests.live.responses.conftest import Served

pytestmark = [pytest.mark.live, pytest.mark.timeout(3000)]

FRANCE = "What is the capital of France?"
TIDE: Any = {
    "type": "function",
    "name": "high_tide",
    "description": "When the tide is high",
    "parameters": {
        "type": "object",
        "properties": {"harbour": {"type": "string", "maxLength": 40}},
        "required": ["harbour"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Town(BaseModel):
    name: Literal["Paris", "Rome"]
    large: bool


@pytest.fixture
def official() -> Iterator[openai.OpenAI]:
    with openai.OpenAI(max_retries=0, timeout=600) as client:
        yield client


@pytest.fixture
def short(served: Served) -> dict[str, Any]:
    return {"model": served.model, "temperature": 0, "max_output_tokens": 24}


def test_create(official: openai.OpenAI, short: dict[str, Any], served: Served) -> None:
    response = official.responses.create(
        input=FRANCE, instructions="Be short.", metadata={"of": "a test"}, **short
    )
    assert response.output_text
    assert response.status in ("completed", "incomplete")
    assert (response.metadata, response.instructions) == ({"of": "a test"}, "Be short.")
    assert response.usage is not None
    assert response.usage.output_tokens <= 24
    if served.embedded:
        assert "Paris" in response.output_text


def test_stream(official: openai.OpenAI, short: dict[str, Any]) -> None:
    asked: dict[str, Any] = {**short, "max_output_tokens": None}  # it wants to see the end
    with official.responses.stream(input=FRANCE, **asked) as stream:
        texts = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert len(texts) > 1
    assert "".join(texts) == final.output_text
    events = list(official.responses.create(input=FRANCE, stream=True, **short))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].type in ("response.completed", "response.incomplete")


def test_parse(official: openai.OpenAI, served: Served) -> None:
    asked: dict[str, Any] = {"model": served.model, "temperature": 0, "input": FRANCE, "text_format": Town}
    town = official.responses.parse(**asked).output_parsed
    assert isinstance(town, Town)
    with official.responses.stream(**asked) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_response().output_parsed, Town)


def test_a_conversation(official: openai.OpenAI, short: dict[str, Any]) -> None:
    first = official.responses.create(input=FRANCE, **short)
    second = official.responses.create(input="And of Italy?", previous_response_id=first.id, **short)
    assert second.previous_response_id == first.id
    assert official.responses.retrieve(second.id).output == second.output
    items = official.responses.input_items.list(second.id).data
    assert [item.type for item in items] == ["message"]
    again = [{"role": "user", "content": FRANCE}, *first.output, {"role": "user", "content": "And?"}]
    assert official.responses.create(input=again, store=False, **short).output_text  # type: ignore[arg-type]
    official.responses.delete(first.id)
    for wanted in (
        lambda: official.responses.retrieve(first.id),
        lambda: official.responses.create(input="And?", previous_response_id=second.id, **short),
    ):
        with pytest.raises(openai.NotFoundError, match=first.id):
            wanted()


def test_in_the_background(official: openai.OpenAI, short: dict[str, Any]) -> None:
    response = official.responses.create(input=FRANCE, background=True, **short)
    assert response.status == "queued"
    deadline = time.monotonic() + 600
    while (now := official.responses.retrieve(response.id)).status in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert now.output_text
    events = list(official.responses.retrieve(response.id, stream=True, starting_after=1))
    assert events[-1].type in ("response.completed", "response.incomplete")
    long = official.responses.create(input="Tell me a long story.", model=short["model"], background=True)
    assert official.responses.cancel(long.id).status == "cancelled"


def test_a_function(official: openai.OpenAI, short: dict[str, Any], served: Served) -> None:
    asked: dict[str, Any] = {**short, "tools": [TIDE], "max_output_tokens": 200}
    turns: list[Any] = [{"role": "user", "content": "When is high tide in Aldersea?"}]
    first = official.responses.create(input=turns, tool_choice="required", **asked)
    [call] = [item for item in first.output if item.type == "function_call"]
    assert call.name == "high_tide"
    assert list(json.loads(call.arguments)) == ["harbour"]
    turns += [*first.output, {"type": "function_call_output", "call_id": call.call_id, "output": "At nine."}]
    second = official.responses.create(input=turns, **{**asked, "max_output_tokens": 24})
    assert second.output
    if served.embedded:
        assert second.output_text == "At nine."
    with official.responses.stream(input=turns[:1], tool_choice="required", **asked) as stream:
        kinds = [event.type for event in stream]
    assert "response.function_call_arguments.done" in kinds


def test_a_search(official: openai.OpenAI, served: Served) -> None:
    response = official.responses.create(
        model=served.model,
        input="How many days of vacation are there?",
        tools=[{"type": "file_search", "vector_store_ids": ["handbook"]}],
        include=["file_search_call.results"],
        temperature=0,
        max_output_tokens=60,
    )
    search = response.output[0]
    assert search.type == "file_search_call"
    assert [result.file_id for result in search.results or ()] == ["vacation.md"]
    if served.embedded:
        message: Any = response.output[-1]
        assert message.content[0].annotations[0].file_id == "vacation.md"


def test_an_agent(official: openai.OpenAI, served: Served) -> None:
    response = official.responses.create(
        model="agent/researcher",
        input="How many days of vacation are there?",
        tools=[{"type": "file_search", "vector_store_ids": ["handbook"]}],
    )
    assert response.status in ("completed", "incomplete")
    if served.embedded:
        assert "28 days" in response.output_text


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"temperature": 5}, "temperature"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"truncation": "some"}, "truncation"),
        ({"include": ["everything"]}, "include"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text"),
        ({"metadata": {"a": "x" * 600}}, "metadata"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
    ],
)
def test_what_is_wrong_is_named(
    official: openai.OpenAI, short: dict[str, Any], wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        official.responses.create(input="Hello", **{**short, **wrong})
    assert raised.value.type == "invalid_request_error"
    assert (raised.value.param or "").startswith(param)
