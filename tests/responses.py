"""What OpenAI's clients and those of Open Responses expect of a response and of its events: facts of both schemas."""

from __future__ import annotations

from typing import Any

from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

_EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)

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
}
ABOUT = {
    f"response.{what}" for what in ("created", "queued", "in_progress", "completed", "incomplete", "failed")
}


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
    for item in response["output"]:
        _check_item(item)
    for tool in response["tools"]:
        wanted = {"name", "description", "parameters", "strict"} if tool["type"] == "function" else {"type"}
        assert wanted <= tool.keys()
    return response


def _check_item(item: dict[str, Any]) -> None:
    assert set(OF_ITEMS[item["type"]]) <= item.keys(), item
    for part in item.get("content") or ():
        assert part["type"] in ("output_text", "refusal", "input_text", "input_image", "input_file")
        if part["type"] == "output_text":
            assert isinstance(part["annotations"], list)
        if part["type"] == "input_image":
            assert {"image_url", "detail"} <= part.keys()


def check_all(events: list[dict[str, Any]]) -> dict[str, Any]:
    """The last response of a stream, if all of its events are as both want them, and fit together."""
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    texts: dict[tuple[int, int], str] = {}
    arguments: dict[int, str] = {}
    added: dict[int, str] = {}
    done: dict[int, dict[str, Any]] = {}
    ended: dict[str, Any] | None = None
    for event in events:
        kind = event["type"]
        _EVENTS.validate_python(event)
        if kind in ABOUT:
            ended = check(event["response"])
            continue
        assert all(name in event for name in OF_EVENTS[kind]), event
        if "item" in event:
            _check_item(event["item"])
        place = event.get("output_index", -1)
        if kind == "response.output_item.added":
            assert place == len(added)
            added[place] = event["item"]["id"]
        elif "item_id" in event:
            assert added[place] == event["item_id"]
            assert place not in done
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
            done[place] = event["item"]
    assert events[0]["type"] == "response.created"
    assert ended is not None
    if ended["status"] in ("completed", "incomplete"):
        assert [done[place] for place in sorted(added)] == ended["output"]
    return ended
