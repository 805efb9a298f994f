"""The seven cases by which Open Responses tests a server, written anew: what is asked, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.responses import check, check_all

HEART = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAABAAAAAQCAIAAACQkWg2AAAAKklEQVR4nGP8//8/AymAiSTVdNHAgsy5KyqP"
    "VZHy64d0dNKI1MA4DNISACkaCRvOeRzpAAAAAElFTkSuQmCC"
)
"""A picture in red and white."""
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "Get the current weather for a location",
    "parameters": {
        "type": "object",
        "properties": {
            "location": {"type": "string", "description": "A town and its country, as in Oslo, Norway"}
        },
        "required": ["location"],
    },
}


def _said(role: str, content: Any) -> dict[str, Any]:
    return {"type": "message", "role": role, "content": content}


@dataclass
class Case:
    name: str
    input: list[dict[str, Any]]
    stream: bool = False
    asked: dict[str, Any] = field(default_factory=dict)
    wants: str | None = None
    """The type of an item that has to be in the output; else the response has to be completed."""


CASES = [
    Case("text", [_said("user", "What is the capital of France?")]),
    Case("stream", [_said("user", "Name the capital of Italy.")], stream=True),
    Case("system", [_said("system", "Answer in one word."), _said("user", "What is the capital of Spain?")]),
    Case(
        "function",
        [_said("user", "What is the weather like in Oslo?")],
        asked={"tools": [WEATHER]},
        wants="function_call",
    ),
    Case(
        "function streamed",
        [_said("user", "What is the weather like in Oslo?")],
        stream=True,
        asked={"tools": [WEATHER]},
        wants="function_call",
    ),
    Case(
        "image",
        [
            _said(
                "user",
                [
                    {"type": "input_text", "text": "What is in this picture?"},
                    {"type": "input_image", "image_url": HEART},
                ],
            )
        ],
    ),
    Case(
        "turns",
        [
            _said("user", "What is the capital of France?"),
            _said("assistant", "It is Paris."),
            _said("user", "And what is the capital of Germany?"),
        ],
    ),
]


def verify(case: Case, ask: Callable[..., Any]) -> dict[str, Any]:
    """What comes of a case, asked by these keywords; an iterator of events where it is a stream."""
    told = ask(input=case.input, stream=case.stream, **case.asked)
    if case.stream:
        assert isinstance(told, Iterator)
        events = list(told)
        response = check_all(events)
        kinds = [event["type"] for event in events]
        if case.wants == "function_call":
            of_calls = [
                event["type"] for event in events if event.get("item", {}).get("type") == "function_call"
            ]
            assert of_calls == ["response.output_item.added", "response.output_item.done"]
            assert "response.function_call_arguments.delta" in kinds
            assert "response.function_call_arguments.done" in kinds
        else:
            assert kinds.count("response.output_text.delta") > 1
    else:
        response = check(told)
    assert response["output"]
    assert response["status"] == "completed"
    if case.wants is not None:
        assert case.wants in [item["type"] for item in response["output"]]
    return response
