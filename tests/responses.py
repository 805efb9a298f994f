"""What OpenAI's clients and those of Open Responses expect of a response and of its events: facts of both schemas."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

# What Open Responses requires of the response object; the others may be left out.
STRINGS = {"id", "model", "status", "truncation", "service_tier"}
INTEGERS = {"created_at", "top_logprobs"}
NUMBERS = {"top_p", "presence_penalty", "frequency_penalty", "temperature"}
BOOLEANS = {"parallel_tool_calls", "store", "background"}
LISTS = {"output", "tools"}
OR_NULL: dict[str, tuple[type, ...]] = {
    "completed_at": (int,),
    "incomplete_details": (dict,),
    "previous_response_id": (str,),
    "instructions": (str,),
    "error": (dict,),
    "reasoning": (dict,),
    "usage": (dict,),
    "max_output_tokens": (int,),
    "max_tool_calls": (int,),
    "safety_identifier": (str,),
    "prompt_cache_key": (str,),
    "user": (str,),
}
OF_EVENTS: dict[str, tuple[str, ...]] = {
    "response.output_item.added": ("output_index", "item"),
    "response.output_item.done": ("output_index", "item"),
    "response.content_part.added": ("item_id", "output_index", "content_index", "part"),
    "response.content_part.done": ("item_id", "output_index", "content_index", "part"),
    "response.output_text.delta": ("item_id", "output_index", "content_index", "delta", "logprobs"),
    "response.output_text.done": ("item_id", "output_index", "content_index", "text", "logprobs"),
    "response.output_text.annotation.added": (
        *("item_id", "output_index", "content_index", "annotation_index", "annotation"),
    ),
    "response.refusal.delta": ("item_id", "output_index", "content_index", "delta"),
    "response.refusal.done": ("item_id", "output_index", "content_index", "refusal"),
    "response.function_call_arguments.delta": ("item_id", "output_index", "delta"),
    "response.function_call_arguments.done": ("item_id", "output_index", "arguments"),
    "response.reasoning_summary_part.added": ("item_id", "output_index", "summary_index", "part"),
    "response.reasoning_summary_part.done": ("item_id", "output_index", "summary_index", "part"),
    "response.reasoning_summary_text.delta": ("item_id", "output_index", "summary_index", "delta"),
    "response.reasoning_summary_text.done": ("item_id", "output_index", "summary_index", "text"),
    "response.file_search_call.in_progress": ("item_id", "output_index"),
    "response.file_search_call.searching": ("item_id", "output_index"),
    "response.file_search_call.completed": ("item_id", "output_index"),
    "error": ("error",),
}
OF_ITEMS: dict[str, tuple[str, ...]] = {
    "message": ("id", "status", "role", "content"),
    "function_call": ("id", "call_id", "name", "arguments", "status"),
    "function_call_output": ("id", "call_id", "output", "status"),
    "reasoning": ("id", "summary"),
    "file_search_call": ("id", "status", "queries", "results"),
    "mcp_approval_request": ("id", "server_label", "name", "arguments"),
}
OF_PARTS: dict[str, tuple[str, ...]] = {
    "output_text": ("text", "annotations", "logprobs"),
    "refusal": ("refusal",),
    "input_text": ("text",),
    "input_image": ("image_url", "detail"),
    "input_file": (),
    "summary_text": ("text",),
}
STATUSES = {
    "file_search_call": {"in_progress", "searching", "completed", "incomplete", "failed"},
    "reasoning": {None, "in_progress", "completed", "incomplete"},
    "mcp_approval_request": {None},
}
OF_TOOLS: dict[str, tuple[str, ...]] = {
    "function": ("name", "description", "parameters", "strict"),
    "file_search": ("vector_store_ids", "max_num_results", "ranking_options", "filters"),
    "mcp": ("server_label",),
}
OF_FORMATS: dict[str, tuple[str, ...]] = {
    "text": (),
    "json_object": (),
    "json_schema": ("name", "description", "schema", "strict"),
}
ABOUT = {
    f"response.{what}" for what in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
}
ENDS = {"response.completed", "response.incomplete", "response.failed"}


def check(response: dict[str, Any]) -> dict[str, Any]:
    """The response, if it is as both want it."""
    Response.model_validate(response)
    assert response["object"] == "response"
    for names, kinds in (
        (STRINGS, (str,)),
        (INTEGERS, (int,)),
        (NUMBERS, (int, float)),
        (BOOLEANS, (bool,)),
        (LISTS, (list,)),
        ({"text", "metadata"}, (dict,)),
        ({"tool_choice"}, (str, dict)),
    ):
        for name in names:
            assert isinstance(response[name], kinds), (name, response[name])
    for name, kinds in OR_NULL.items():
        assert response[name] is None or isinstance(response[name], kinds), (name, response[name])
    if (usage := response["usage"]) is not None:
        counts = [usage[name] for name in ("input_tokens", "output_tokens", "total_tokens")]
        counts += [usage["input_tokens_details"]["cached_tokens"]]
        counts += [usage["output_tokens_details"]["reasoning_tokens"]]
        assert all(isinstance(count, int) for count in counts)
        assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    if response["error"] is not None:
        assert response["error"]["code"]
        assert response["error"]["message"]
    assert response["truncation"] in ("auto", "disabled")
    if isinstance(response["tool_choice"], str):
        assert response["tool_choice"] in ("none", "auto", "required")
    elif response["tool_choice"]["type"] == "allowed_tools":
        assert {"tools", "mode"} <= response["tool_choice"].keys()
    if response["reasoning"] is not None:
        assert {"effort", "summary"} <= response["reasoning"].keys()
    form = response["text"]["format"]
    assert set(OF_FORMATS[form["type"]]) <= form.keys()
    if (details := response["incomplete_details"]) is not None:
        assert isinstance(details["reason"], str)
    assert (response["status"] == "incomplete") == (details is not None)
    assert (response["status"] == "completed") == (response["completed_at"] is not None)
    for item in response["output"]:
        check_item(item)
        if response["status"] == "completed":
            assert item.get("status") in (None, "completed")
    for tool in response["tools"]:
        assert set(OF_TOOLS[tool["type"]]) <= tool.keys()
        if tool["type"] == "file_search":
            assert isinstance(tool["max_num_results"], int)
            assert isinstance(tool["ranking_options"]["score_threshold"], int | float)
            assert isinstance(tool["ranking_options"]["ranker"], str)
    return response


def check_item(item: dict[str, Any]) -> None:
    kind = item["type"]
    assert set(OF_ITEMS[kind]) <= item.keys(), item
    assert item.get("status") in STATUSES.get(kind, {"in_progress", "completed", "incomplete"})
    for name in ("id", "call_id", "name", "arguments", "server_label"):
        assert isinstance(item.get(name, ""), str), item
    for part in [*(item.get("content") or ()), *(item.get("summary") or ())]:
        _check_part(part)
    for result in item.get("results") or ():
        assert {"file_id", "filename", "text", "attributes", "score", "vector_store_id"} <= result.keys()


def _check_part(part: dict[str, Any]) -> None:
    assert set(OF_PARTS[part["type"]]) <= part.keys(), part
    for annotation in part.get("annotations") or ():
        _check_annotation(annotation)
    for one in part.get("logprobs") or ():
        assert {"token", "logprob", "bytes", "top_logprobs"} <= one.keys()
        assert all({"token", "logprob", "bytes"} <= other.keys() for other in one["top_logprobs"])


def _check_annotation(annotation: dict[str, Any]) -> None:
    assert annotation["type"] == "file_citation"
    assert isinstance(annotation["index"], int)
    assert isinstance(annotation["file_id"], str)
    assert isinstance(annotation["filename"], str)


_PART_OF: dict[str, tuple[tuple[str, ...], str]] = {
    "response.content_part.added": (("",), "added"),
    "response.output_text.delta": (("added",), "added"),
    "response.refusal.delta": (("added",), "added"),
    "response.output_text.done": (("added",), "said"),
    "response.refusal.done": (("added",), "said"),
    "response.output_text.annotation.added": (("said",), "said"),
    "response.content_part.done": (("said",), "done"),
    "response.reasoning_summary_part.added": (("",), "added"),
    "response.reasoning_summary_text.delta": (("added",), "added"),
    "response.reasoning_summary_text.done": (("added",), "said"),
    "response.reasoning_summary_part.done": (("said",), "done"),
}
"""Events of a part: what it may have come to before, and what it comes to by them."""


@cache
def _events() -> TypeAdapter[Any]:
    return TypeAdapter(ResponseStreamEvent)


def check_all(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The last response of a stream, if all of its events are as both want them, and fit together."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts: dict[tuple[int, int], str] = {}
    arguments: dict[int, str] = {}
    added: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}
    ended: dict[str, Any] | None = None
    parts: dict[tuple[int, int], str] = {}
    for event in events:
        kind = event["type"]
        _events().validate_python(event)
        if kind in ABOUT:
            ended = check(event["response"])
            continue
        assert ended is not None
        assert kind == "error" or ended["status"] == "in_progress", event
        assert all(name in event for name in OF_EVENTS[kind]), event
        if "part" in event:
            _check_part(event["part"])
        if "annotation" in event:
            _check_annotation(event["annotation"])
        if "item" in event:
            check_item(event["item"])
        place = event.get("output_index", -1)
        if kind == "response.output_item.added":
            assert place == len(added)
            assert event["item"].get("status") in (None, "in_progress")
            added[place] = event["item"]["id"]
        elif "item_id" in event:
            assert added[place] == event["item_id"]
            assert place not in done
        part = place, event.get("content_index", event.get("summary_index", -1))
        if (said := _PART_OF.get(kind)) is not None:
            before, after = said
            assert parts.get(part, "") in before, (parts.get(part), event)
            parts[part] = after
        if kind in ("response.output_text.delta", "response.refusal.delta"):
            key = (place, event["content_index"])
            texts[key] = texts.get(key, "") + event["delta"]
        elif kind in ("response.output_text.done", "response.refusal.done"):
            told = event["text" if "text" in event else "refusal"]
            assert texts.get((place, event["content_index"]), "") == told
        elif kind == "response.function_call_arguments.delta":
            arguments[place] = arguments.get(place, "") + event["delta"]
        elif kind == "response.function_call_arguments.done":
            assert arguments[place] == event["arguments"]
        elif kind == "response.output_item.done":
            assert event["item"]["id"] == added[place]
            assert all(after == "done" for (index, _), after in parts.items() if index == place)
            done[place] = event["item"]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "response.created"
    assert kinds[1 : 3 if kinds[1] == "response.queued" else 2][-1] == "response.in_progress"
    assert [kind for kind in kinds if kind in ENDS] == [kinds[-2] if kinds[-1] == "error" else kinds[-1]]
    assert ended is not None
    if ended["status"] in ("completed", "incomplete"):
        assert [done[place] for place in sorted(added)] == ended["output"]
    return ended


def checked(told: Any) -> Any:
    """What a client's call gave, a response or its events from the first on: as it came, and checked."""
    if isinstance(told, dict):
        return check(told)

    def events() -> Iterator[dict[str, Any]]:
        seen = []
        for event in told:
            seen.append(event)
            yield event
        if seen and seen[0]["sequence_number"] == 0:
            check_all(seen)

    return events()
