"""OpenAI's responses, on both transports, by the embedded models."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest

import tests.open_responses as open_responses
from llmbackend import Conflict, InvalidRequest, LLMBackendClient, NotFound
from tests.open_responses import HEART, WEATHER, Case
from tests.responses import check, check_all, check_item, checked

FRANCE = "What is the capital of France?"
number = itertools.count(1)


def _text(response: Any) -> str:
    return "".join(
        part["text"] for item in response["output"] if item["type"] == "message" for part in item["content"]
    )


@pytest.fixture(autouse=True)
def _all_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each response, and each event, whatever the test is about."""

    def checking(of: Any) -> Any:
        return lambda *given, **fields: checked(of(*given, **fields))

    for name in ("respond", "get_response", "cancel_response"):
        monkeypatch.setattr(LLMBackendClient, name, checking(getattr(LLMBackendClient, name)))


@pytest.fixture
def handbook(client: LLMBackendClient) -> str:
    name = f"responses-{next(number)}"
    documents = [
        {"id": "vacation.md", "text": "Every employee has 28 days of paid vacation a year."},
        {"id": "illness.md", "text": "Sick leave is reported before nine."},
    ]
    client.rag_ingest(documents, collection=name)
    return name


def test_a_message_gets_a_response(client: LLMBackendClient) -> None:
    response = check(client.respond(FRANCE, temperature=0, metadata={"of": "a test"}))
    assert response["status"] == "completed"
    assert response["completed_at"] >= response["created_at"]
    assert "Paris" in _text(response)
    assert (response["model"], response["metadata"]) == ("SmolLM2-135M-Instruct", {"of": "a test"})
    assert response["usage"]["output_tokens"] > 1


def test_a_response_has_its_text(client: LLMBackendClient) -> None:
    response = client.respond(FRANCE)
    assert response.output_text == str(response) == response.output[-1].content[0].text
    assert client.get_response(response.id).output_text == response.output_text
    last = list(client.respond(FRANCE, stream=True))[-1]
    assert last.response.output_text == response.output_text


def test_a_response_comes_as_events(client: LLMBackendClient) -> None:
    events = list(client.respond(FRANCE, temperature=0, max_output_tokens=12, stream=True))
    response = check_all(events)
    deltas = [event["delta"] for event in events if event["type"] == "response.output_text.delta"]
    assert len(deltas) > 3
    assert "".join(deltas) == _text(response) == _text(client.get_response(response["id"]))
    assert events[-1]["type"] == "response.incomplete"


def test_what_is_cut_off_is_incomplete(client: LLMBackendClient) -> None:
    for response in (
        client.respond("Tell me a story.", max_output_tokens=4),
        check_all(list(client.respond("Tell me a story.", max_output_tokens=4, stream=True))),
    ):
        check(response)
        assert response["status"] == response["output"][0]["status"] == "incomplete"
        assert response["incomplete_details"] == {"reason": "max_output_tokens"}
        assert response["completed_at"] is None


def test_a_conversation_is_gone_on_with_by_id_or_by_its_items(client: LLMBackendClient) -> None:
    first = client.respond(FRANCE, temperature=0, max_output_tokens=10)
    by_id = client.respond(
        "And of Spain?", previous_response_id=first["id"], temperature=0, max_output_tokens=10
    )
    items = [
        {"role": "user", "content": FRANCE},
        *first["output"],
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "And of Spain?"}]},
    ]
    by_items = client.respond(items, temperature=0, max_output_tokens=10, store=False)
    reference = {"type": "item_reference", "id": first["output"][0]["id"]}
    by_reference = client.respond(
        [items[0], reference, items[-1]], temperature=0, max_output_tokens=10, store=False
    )
    assert _text(by_id) == _text(by_items) == _text(by_reference)
    assert by_id["usage"]["input_tokens"] == by_items["usage"]["input_tokens"]
    assert by_id["previous_response_id"] == first["id"]


def test_what_is_not_stored_is_not_there(client: LLMBackendClient) -> None:
    response = client.respond("Say hello.", store=False, max_output_tokens=3)
    for ask in (
        lambda: client.get_response(response["id"]),
        lambda: client.respond("Again", previous_response_id=response["id"]),
        lambda: client.respond([{"type": "item_reference", "id": response["output"][0]["id"]}]),
    ):
        with pytest.raises(NotFound):
            ask()


def test_a_response_is_forgotten_when_it_is_deleted(client: LLMBackendClient) -> None:
    first = client.respond("Say hello.", max_output_tokens=3)
    second = client.respond("Again", previous_response_id=first["id"], max_output_tokens=3)
    deleted = client.delete_response(first["id"])
    assert deleted == {"id": first["id"], "object": "response", "deleted": True}
    with pytest.raises(NotFound, match=first["id"]):
        client.delete_response(first["id"])
    with pytest.raises(NotFound, match=first["id"]):  # what it went on from is not there any more
        client.respond("And again", previous_response_id=second["id"])
    assert client.get_response(second["id"]) == second


def test_what_a_response_was_made_from_is_listed_by_pages(client: LLMBackendClient) -> None:
    items = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hello!"},
        {"role": "user", "content": "Bye"},
    ]
    response = client.respond(items, max_output_tokens=3)
    listed = client.list_input_items(response["id"], order="asc")
    assert [(item["role"], item["content"][0]["type"]) for item in listed] == [
        ("developer", "input_text"),
        ("user", "input_text"),
        ("assistant", "output_text"),
        ("user", "input_text"),
    ]
    assert client.list_input_items(response["id"]) == listed[::-1]
    page = client.list_input_items(response["id"], order="asc", limit=2, after=listed[0]["id"])
    assert page == listed[1:3]
    with pytest.raises(InvalidRequest, match="no item 'nothing'"):
        client.list_input_items(response["id"], after="nothing")


def test_a_response_is_made_in_the_background(client: LLMBackendClient) -> None:
    response = check(client.respond("What is the capital of France?", temperature=0, background=True))
    assert (response["status"], response["background"]) == ("queued", True)
    ended = check(_ended(client, response["id"]))
    assert ended["status"] == "completed"
    assert "Paris" in _text(ended)
    assert ended["created_at"] == response["created_at"]
    assert client.cancel_response(response["id"]) == ended
    follow = client.respond("Again", previous_response_id=response["id"], max_output_tokens=3)
    assert follow["previous_response_id"] == response["id"]


def _ended(client: LLMBackendClient, response_id: str) -> Any:
    deadline = time.monotonic() + 60
    while (response := client.get_response(response_id))["status"] in ("queued", "in_progress"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return response


def test_what_is_made_in_the_background_comes_as_events_and_again_from_any_of_them(
    client: LLMBackendClient,
) -> None:
    events = list(client.respond("Say hello.", max_output_tokens=5, background=True, stream=True))
    response = check_all(events)
    assert [event["type"] for event in events[:3]] == [
        "response.created",
        "response.queued",
        "response.in_progress",
    ]
    assert list(client.get_response(response["id"], stream=True)) == events
    assert list(client.get_response(response["id"], stream=True, starting_after=3)) == events[4:]


def test_what_is_made_in_the_background_can_be_cancelled(client: LLMBackendClient) -> None:
    response = client.respond("Tell me a long story.", background=True)
    cancelled = client.cancel_response(response["id"])
    assert cancelled["status"] == "cancelled"
    assert client.get_response(response["id"])["status"] == "cancelled"
    other = client.respond("Hello", max_output_tokens=3)
    with pytest.raises(InvalidRequest, match="not made in the background"):
        client.cancel_response(other["id"])


def test_a_response_that_is_not_over_cannot_be_gone_on_from(client: LLMBackendClient) -> None:
    response = client.respond("Tell me a long story.", background=True)
    with pytest.raises(Conflict, match="still being made"):
        client.respond("Again", previous_response_id=response["id"])
    client.delete_response(response["id"])
    with pytest.raises(NotFound):
        client.get_response(response["id"])


def test_a_collection_as_model_answers_with_citations(client: LLMBackendClient, handbook: str) -> None:
    response = check(client.respond("How many vacation days?", model=f"rag/{handbook}"))
    [item] = response["output"]
    [part] = item["content"]
    assert "28 days" in part["text"]
    assert [(one["type"], one["file_id"], one["collection"]) for one in part["annotations"]] == [
        ("file_citation", "vacation.md", handbook)
    ]
    place = part["annotations"][0]["index"]
    assert part["text"][place : place + 3] == "[1]"


@pytest.mark.parametrize("stream", [False, True])
def test_a_file_search_looks_into_collections(client: LLMBackendClient, handbook: str, stream: bool) -> None:
    tools = [{"type": "file_search", "vector_store_ids": [handbook], "max_num_results": 2}]
    asked: dict[str, Any] = {"tools": tools, "include": ["file_search_call.results"]}
    if stream:
        response = check_all(list(client.respond("How many vacation days?", **asked, stream=True)))
    else:
        response = check(client.respond("How many vacation days?", **asked))
    search, message = response["output"]
    assert search["queries"] == ["How many vacation days?"]
    assert {result["file_id"] for result in search["results"]} == {"vacation.md", "illness.md"}
    [annotation] = message["content"][0]["annotations"]
    assert annotation["quote"] == "Every employee has 28 days of paid vacation a year."
    with pytest.raises(NotFound):
        client.respond("x", tools=[{"type": "file_search", "vector_store_ids": ["no-such-collection"]}])


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"type": "eq", "key": "year", "value": 2024}, ["a"]),
        ({"type": "ne", "key": "year", "value": 2024}, ["b", "c"]),
        ({"type": "gt", "key": "year", "value": 2024}, ["b", "c"]),
        ({"type": "in", "key": "team", "value": ["hr", "it"]}, ["a", "b"]),
        ({"type": "nin", "key": "team", "value": ["hr", "it"]}, ["c"]),
        (
            {
                "type": "and",
                "filters": [
                    {"type": "gte", "key": "year", "value": 2025},
                    {
                        "type": "or",
                        "filters": [
                            {"type": "eq", "key": "team", "value": "hr"},
                            {"type": "eq", "key": "team", "value": "sea"},
                        ],
                    },
                ],
            },
            ["c"],
        ),
    ],
)
def test_a_file_search_takes_openai_s_filters(
    client: LLMBackendClient, collection: str, filters: dict[str, Any], found: list[str]
) -> None:
    response = _filtered(client, collection, filters)
    assert sorted(one["file_id"] for one in response["output"][0]["results"]) == found


@pytest.mark.parametrize(
    ("filters", "found"),
    [({"year": 2025}, ["b"]), ({"type": "eq"}, []), ({"type": "and", "year": 2025}, [])],
    ids=["a field", "one named type", "two"],
)
def test_a_file_search_takes_our_filters(
    client: LLMBackendClient, collection: str, filters: dict[str, Any], found: list[str]
) -> None:
    response = _filtered(client, collection, filters)
    assert sorted(one["file_id"] for one in response["output"][0]["results"] or ()) == found


def _filtered(client: LLMBackendClient, collection: str, filters: dict[str, Any]) -> Any:
    documents = [
        {"id": "a", "text": "Vacation in 2024.", "metadata": {"year": 2024, "team": "hr"}},
        {"id": "b", "text": "Vacation in 2025.", "metadata": {"year": 2025, "team": "it"}},
        {"id": "c", "text": "Vacation in 2026.", "metadata": {"year": 2026, "team": "sea"}},
    ]
    client.rag_ingest(documents, collection)
    tools = [{"type": "file_search", "vector_store_ids": [collection], "filters": filters}]
    response = client.respond("Vacation?", tools=tools, include=["file_search_call.results"])
    theirs = filters.keys() & {"key", "filters"}
    assert response["tools"][0]["filters"] == (filters if theirs else None)
    return response


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (
            {
                "tools": [
                    {
                        "type": "file_search",
                        "vector_store_ids": ["x"],
                        "filters": {"type": "like", "key": "year", "value": 1},
                    }
                ]
            },
            "filters: type is one of eq, ne, gt, gte, lt, lte, in, nin, and, or; not 'like'",
        ),
        ({"tools": [{"type": "web_search"}]}, r"tools\[0\]\.type"),
        ({"tools": [{"type": "function"}]}, "name is missing"),
        ({"tools": [{"type": "file_search"}]}, "vector_store_ids is missing"),
        ({"input": [{"type": "function_call_output", "call_id": "c", "output": "x"}]}, "no function_call"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "image_url is missing"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "f"}]}]}, "file_id"),
        ({"input": [{"role": "user"}]}, "content is missing"),
        ({"background": True, "store": False}, "background needs store"),
        ({"text": {"format": {"type": "json_schema"}}}, "schema is missing"),
        ({"metadata": {str(key): "" for key in range(17)}}, "metadata"),
        ({"conversation": "conv_1"}, "previous_response_id"),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_what_is_wrong_is_refused_by_name(client: LLMBackendClient, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidRequest, match=told):
        client._call("respond", **{"input": "Hello", **wrong})


def test_a_json_schema_is_kept_to(client: LLMBackendClient) -> None:
    shape = {"type": "object", "properties": {"town": {"enum": ["Paris", "Rome"]}}, "required": ["town"]}
    form = {"type": "json_schema", "name": "town", "schema": shape}
    response = check(client.respond(FRANCE, text={"format": form}, temperature=0))
    assert response["text"]["format"]["schema"] == shape
    assert json.loads(_text(response))["town"] in ("Paris", "Rome")


@pytest.mark.parametrize("case", open_responses.CASES, ids=lambda case: case.name)
def test_the_cases_of_open_responses_pass(client: LLMBackendClient, case: Case) -> None:
    def ask(*, stream: bool, **fields: Any) -> Any:
        return client.respond(fields.pop("input"), stream=stream, **fields)

    open_responses.verify(case, ask)


def test_the_embedded_model_calls_what_fits_and_tells_what_that_gave(client: LLMBackendClient) -> None:
    tide = {
        "type": "function",
        "name": "high_tide",
        "description": "When the tide is high",
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}},
    }
    tools = [WEATHER, tide]
    first = client.respond("When is high tide in Aldersea?", tools=tools)
    [called] = first["output"]
    assert (called["name"], json.loads(called["arguments"])) == ("high_tide", {"harbour": "Aldersea"})
    gave = [{"type": "function_call_output", "call_id": called["call_id"], "output": "At nine in Aldersea."}]
    second = check(client.respond(gave, previous_response_id=first["id"], tools=tools))
    assert _text(second) == "At nine in Aldersea."
    for item in client.list_input_items(second["id"]):
        check_item(item)
    neither = check(client.respond(FRANCE, tools=tools, temperature=0))
    assert "Paris" in _text(neither)
    named = {"type": "function", "name": "get_weather"}
    [called] = client.respond("When is high tide in Oslo?", tools=tools, tool_choice=named)["output"]
    assert (called["name"], json.loads(called["arguments"])) == ("get_weather", {"location": "Oslo"})
    [said] = client.respond(FRANCE, tools=tools, tool_choice="none", max_output_tokens=3)["output"]
    assert said["type"] == "message"


@pytest.mark.parametrize("function", [{"name": "stop"}, {"name": "stop", "parameters": {"type": "object"}}])
def test_a_function_without_arguments_is_called_with_none(client: LLMBackendClient, function: Any) -> None:
    tools = [{"type": "function", "description": "Stop everything", **function}]
    [called] = client.respond("Stop it all!", tools=tools, tool_choice="required")["output"]
    assert (called["name"], called["arguments"]) == ("stop", "{}")


def test_what_a_picture_shows_is_not_made_up(client: LLMBackendClient, handbook: str) -> None:
    def seen(url: str) -> list[dict[str, Any]]:
        parts = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url}]
        return [{"role": "user", "content": parts}]

    told = _text(check(client.respond(seen(HEART))))
    assert "reads text only" in told
    assert "PNG, 16 by 16 pixels" in told
    assert "not fetched" in _text(client.respond(seen("https://pictures.example/1.png")))
    with pytest.raises(InvalidRequest, match="not an image"):
        client.respond(seen("data:image/png;base64,AAAA"))
    for model in (f"rag/{handbook}", "agent/researcher"):
        with pytest.raises(InvalidRequest, match="text only"):
            client.respond(seen(HEART), model=model)


def test_an_agent_answers_as_a_model(client: LLMBackendClient, handbook: str) -> None:
    asked: dict[str, Any] = {
        "model": "agent/researcher",
        "tools": [{"type": "file_search", "vector_store_ids": [handbook]}],
    }
    response = check_all(list(client.respond("How many vacation days?", **asked, stream=True)))
    message = response["output"][-1]
    assert (response["model"], response["status"]) == ("agent/researcher", "completed")
    assert "28 days" in message["content"][0]["text"]
    assert message["content"][0]["annotations"][0]["file_id"] == "vacation.md"
    with pytest.raises((InvalidRequest, NotFound)):
        client.respond("hello", model="agent/nobody")
    shape = {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}}
    for wrong, reason in (({"text": shape}, "text.format"), ({"tool_choice": "required"}, "tool_choice")):
        with pytest.raises(InvalidRequest, match=reason):
            client.respond("How many vacation days?", **{**asked, **wrong})


def test_a_function_that_fits_is_called_before_the_agent_is_asked(
    client: LLMBackendClient, handbook: str
) -> None:
    search = {"type": "file_search", "vector_store_ids": [handbook]}
    asked: dict[str, Any] = {"model": "agent/researcher", "tools": [search, WEATHER]}
    response = check(client.respond("How many vacation days are there?", **asked))
    assert "28 days" in response["output"][-1]["content"][0]["text"]
    first = check(client.respond("What is the weather like in Oslo?", **asked))
    [call] = first["output"]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    gave = {"type": "function_call_output", "call_id": call["call_id"], "output": "It snows."}
    second = check(client.respond([gave], previous_response_id=first["id"], **asked))
    assert second["output"][-1]["content"][0]["text"] == "It snows."
