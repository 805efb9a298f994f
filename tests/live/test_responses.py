"""OpenAI's responses before a real model server: the cases of Open Responses, as far as its model is able to."""

from __future__ import annotations

import json
from typing import Any

import pytest

import tests.open_responses as open_responses
from llmbackend import InvalidRequest, LLMBackendClient
from tests.open_responses import WEATHER, Case
from tests.responses import check, check_all

pytestmark = [pytest.mark.live, pytest.mark.timeout(3000)]


@pytest.mark.parametrize("case", open_responses.CASES, ids=lambda case: case.name)
def test_the_cases_of_open_responses(client: LLMBackendClient, case: Case) -> None:
    def ask(*, stream: bool, **fields: Any) -> Any:
        fields["temperature"] = 0
        if case.wants is not None:
            fields["tool_choice"] = "required"  # a tiny model may answer without
        if stream:
            return client._told(client._stream("respond", **fields))
        return client._call("respond", **fields)

    try:
        open_responses.verify(case, ask)
    except InvalidRequest as error:
        if case.name != "image" or "multimodal" not in error.message:
            raise  # models that read text only are not to blame for that


def test_what_may_be_called(client: LLMBackendClient) -> None:
    asked: dict[str, Any] = {"tools": [WEATHER], "max_output_tokens": 60, "temperature": 0}
    response = check(client.respond("What is the weather like in Oslo?", **asked))
    kinds = {item["type"] for item in response["output"]}
    assert kinds <= {"message", "function_call", "reasoning"}
    for item in response["output"]:
        if item["type"] == "function_call":
            assert item["name"] == "get_weather"


def test_a_shape(client: LLMBackendClient) -> None:
    shape = {
        "type": "object",
        "properties": {"town": {"enum": ["Paris", "Rome"]}},
        "required": ["town"],
        "additionalProperties": False,
    }
    form = {"format": {"type": "json_schema", "name": "town", "schema": shape, "strict": True}}
    events = list(client.respond("What is the capital of France?", text=form, temperature=0, stream=True))
    [message] = check_all(events)["output"]
    assert json.loads(message["content"][0]["text"])["town"] in ("Paris", "Rome")
