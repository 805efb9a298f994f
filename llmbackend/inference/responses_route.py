"""OpenAI's responses route on model servers, whose answers are turned into chat completions and their chunks."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any

from .. import json_reading, tracing
from ..errors import InvalidRequest, LLMBackendError, NotFound, StreamInterrupted
from .told_usage import StreamUsage, note
from .upstream import Upstream
from .wire import takes_no_tools

PATH = "/responses"
_TEXTS = {
    "response.output_text.delta": "content",
    "response.refusal.delta": "refusal",
    "response.reasoning_text.delta": "reasoning_content",
    "response.reasoning_summary_text.delta": "reasoning_content",
    "response.reasoning.delta": "reasoning_content",
}
_CUT = {"max_output_tokens": "length", "content_filter": "content_filter"}


async def has_route(upstream: Upstream, deadline: float) -> bool | None:
    """Whether a server has the route: sent an empty request, it says what is missing. None if it cannot be told."""
    try:
        await upstream.post(PATH, {}, deadline, retries=0)
    except InvalidRequest:
        return True
    except NotFound:
        return False
    except LLMBackendError as error:
        return False if error.details.get("status") in (405, 501) else None
    return True


async def takes_tools(upstream: Upstream, model: str, deadline: float) -> bool:
    """Whether a server's chats take functions. If it cannot be told, True."""
    function = {"name": "nothing", "parameters": {"type": "object", "properties": {}}}
    asked = {
        "model": model,
        "messages": [{"role": "user", "content": "Hello"}],
        "tools": [{"type": "function", "function": function}],
        "max_tokens": 1,
    }
    try:
        await upstream.post("/chat/completions", asked, deadline, retries=0)
    except InvalidRequest as error:
        return not takes_no_tools(error)
    except LLMBackendError:
        pass
    return True


async def complete(upstream: Upstream, asked: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Ask for a response, and return it as a chat.completion."""
    said = await upstream.forward(PATH, asked, deadline)
    with upstream.errors.translated():
        response = await json_reading.reply(said)
        if response.get("status") in ("failed", "cancelled"):
            raise upstream.errors.gave_up(response.get("error"))
        message: dict[str, Any] = {"role": "assistant", "content": None}
        for item in response["output"]:
            for delta in _whole(item, message.setdefault("tool_calls", [])):
                for name, text in delta.items():
                    message[name] = (message.get(name) or "") + text
        completion = {
            "model": response.get("model"),
            "choices": [{"index": 0, "message": message, "finish_reason": _reason(response)}],
            "usage": _usage(response),
        }
    note(asked, completion, tracing.current())
    return completion


async def stream(
    upstream: Upstream, asked: dict[str, Any], deadline: float
) -> AsyncGenerator[dict[str, Any], None]:
    """Ask for a response, and yield its events as chat.completion.chunk objects."""
    usage = StreamUsage({"messages": asked["input"], "model": asked["model"]}, tracing.current())
    telling = _Telling()
    try:
        async with aclosing(await upstream.stream(PATH, {**asked, "stream": True}, deadline)) as pieces:
            async for piece in pieces:
                for one in piece.split(b"\n\n"):
                    data = one.removeprefix(b"data: ")
                    if not data or data == b"[DONE]":
                        continue
                    with upstream.errors.translated():
                        event = json.loads(data)
                        if event.get("type") in ("error", "response.failed"):
                            error = event.get("error") or (event.get("response") or {}).get("error") or event
                            raise upstream.errors.gave_up(error)
                        chunks = list(telling.chunks(event))
                    for chunk in chunks:
                        usage.read(chunk)
                        yield chunk
    finally:
        usage.note()
    if not telling.ended:
        raise StreamInterrupted("the model's server ended its stream before the last event")


class _Telling:
    """Translates events to chunks. It knows what was told before: some servers send a call in pieces, others
    whole at its end."""

    def __init__(self) -> None:
        self.ended = False
        self._arguments: dict[int, str] = {}
        self._said = False

    def chunks(self, event: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        kind = event.get("type") or ""
        if name := _TEXTS.get(kind):
            self._said |= name in ("content", "refusal")
            yield _chunk({name: event["delta"]}, logprobs=event.get("logprobs"))
        elif kind == "response.output_item.added" and event["item"]["type"] == "function_call":
            yield self._begun(event["output_index"], event["item"])
        elif kind == "response.function_call_arguments.delta":
            index = event["output_index"]
            if index in self._arguments:
                self._arguments[index] += event["delta"]
                yield _calling(index, {"function": {"arguments": event["delta"]}})
        elif kind == "response.output_item.done" and event["item"]["type"] == "function_call":
            index, item = event["output_index"], event["item"]
            if index not in self._arguments:
                yield self._begun(index, item)
            if not self._arguments[index] and item["arguments"]:
                self._arguments[index] = item["arguments"]
                yield _calling(index, {"function": {"arguments": item["arguments"]}})
        elif kind in ("response.completed", "response.incomplete"):
            self.ended = True
            response = event["response"]
            if not self._said:
                for item in response.get("output") or ():
                    if item["type"] == "message":
                        for delta in _whole(item, []):
                            yield _chunk(delta)
            yield {
                "model": response.get("model"),
                "choices": [{"index": 0, "delta": {}, "finish_reason": _reason(response)}],
                "usage": _usage(response),
            }

    def _begun(self, index: int, item: Mapping[str, Any]) -> dict[str, Any]:
        self._arguments[index] = ""
        return _calling(index, {"id": item["call_id"], "function": {"name": item["name"], "arguments": ""}})


def _chunk(delta: dict[str, Any], logprobs: Any = None) -> dict[str, Any]:
    told = {"content": logprobs} if logprobs else None
    return {"choices": [{"index": 0, "delta": delta, "logprobs": told, "finish_reason": None}]}


def _calling(index: int, call: dict[str, Any]) -> dict[str, Any]:
    return _chunk({"tool_calls": [{"index": index, "type": "function", **call}]})


def _whole(item: Mapping[str, Any], calls: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
    """Yield the texts of an output item as deltas; a function call is added to `calls`."""
    if item["type"] == "message":
        for part in item["content"]:
            yield {"refusal": part["refusal"]} if part["type"] == "refusal" else {"content": part["text"]}
    elif item["type"] == "reasoning":
        for part in [*(item.get("summary") or ()), *(item.get("content") or ())]:
            yield {"reasoning_content": part["text"]}
    elif item["type"] == "function_call":
        function = {"name": item["name"], "arguments": item["arguments"]}
        calls.append({"id": item["call_id"], "type": "function", "function": function})


def _reason(response: Mapping[str, Any]) -> str:
    return _CUT.get((response.get("incomplete_details") or {}).get("reason") or "", "stop")


def _usage(response: Mapping[str, Any]) -> dict[str, Any] | None:
    if not isinstance(told := response.get("usage"), dict):
        return None
    return {
        "prompt_tokens": told.get("input_tokens"),
        "completion_tokens": told.get("output_tokens"),
        "total_tokens": told.get("total_tokens"),
        "prompt_tokens_details": told.get("input_tokens_details"),
        "completion_tokens_details": told.get("output_tokens_details"),
    }
