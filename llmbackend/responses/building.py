"""Building a response: a chat's chunks go in, OpenAI's events come out, and the response object grows.

A model's thoughts become reasoning summaries, which clients of OpenAI and of Open Responses both understand.
"""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import LLMBackendError
from ..schemas import SERVER_LABEL
from .response_object import failed
from .translation import Item, approval_id, call_id, output_id

Event = dict[str, Any]

_CITATION = re.compile(r"\[(\d{1,9})\]")
_ENDED = {"length": "max_output_tokens", "content_filter": "content_filter"}


class Building:
    """Feed it a chat's chunks, then `finish` or `fail`. Each method yields the resulting events."""

    def __init__(self, response: dict[str, Any]) -> None:
        self.response = response
        self._number = 0
        self._reasoning: _Open | None = None
        self._message: _Open | None = None
        self._calls: dict[int, _Open] = {}
        self._reason: str | None = None
        self._asks = False
        self.sources: Sequence[Mapping[str, Any]] = ()
        """The passages that the text may cite; their numbers count from 1."""
        self.cited: Sequence[int] = ()
        self._kept: list[Item] = []
        """The output items of a response that is being replayed."""

    def begin(self) -> Iterator[Event]:
        """Begin the response."""
        yield self._about("created")
        if self.response["status"] == "queued":
            yield self._about("queued")
            self.response["status"] = "in_progress"
        yield self._about("in_progress")

    def searched(self, queries: list[str], results: list[dict[str, Any]] | None) -> Iterator[Event]:
        """Add a completed file search; `results` is None unless the request includes them."""
        item: Item = {
            "type": "file_search_call",
            "id": self._id("fs"),
            "status": "in_progress",
            "queries": queries,
            "results": None,
        }
        open_item = self._add(item)
        yield self._added(open_item)
        for step in ("in_progress", "searching", "completed"):
            yield self._event(f"response.file_search_call.{step}", open_item)
        item |= {"status": "completed", "results": results}
        yield self._done(open_item)

    def asks(self, run_id: str, pending: Sequence[Mapping[str, Any]]) -> Iterator[Event]:
        """Add calls that wait: an agent's for approval, the caller's functions for their output."""
        yield from self._end_reasoning()
        self._asks = True
        for number, call in enumerate(pending):
            arguments = json.dumps(call["arguments"], ensure_ascii=False)
            if call["function"]:
                function = {"name": call["tool"], "arguments": arguments}
                yield from self._call({"index": number, "id": call_id(run_id, number), "function": function})
                continue
            item: Item = {
                "type": "mcp_approval_request",
                "id": approval_id(run_id, number),
                "server_label": SERVER_LABEL,
                "name": call["tool"],
                "arguments": arguments,
            }
            open_item = self._add(item)
            yield self._added(open_item)
            yield self._done(open_item)

    def feed(self, chunk: Mapping[str, Any]) -> Iterator[Event]:
        """Add a chat.completion.chunk."""
        if isinstance(usage := chunk.get("usage"), dict) and usage:
            self.response["usage"] = _usage(usage)
        if chunk.get("model"):
            self.response["model"] = self.response["model"] or chunk["model"]
        for choice in (chunk.get("choices") or ())[:1]:
            self._reason = choice.get("finish_reason") or self._reason
            delta = choice.get("delta") or {}
            if (
                isinstance(thoughts := delta.get("reasoning_content") or delta.get("reasoning"), str)
                and thoughts
            ):
                yield from self._think(thoughts)
            refusal = delta.get("refusal")
            if isinstance(refusal, str) and refusal:
                yield from self._say(refusal, refuses=True)
            elif delta.get("content"):
                logprobs = (choice.get("logprobs") or {}).get("content") or []
                yield from self._say(delta["content"], logprobs=logprobs)
            for part in delta.get("tool_calls") or ():
                yield from self._call(part)

    def complete(self, completion: Mapping[str, Any]) -> Iterator[Event]:
        """Add a whole chat.completion."""
        [choice, *_] = completion["choices"]
        message = dict(choice["message"])
        calls = message.get("tool_calls") or ()
        message["tool_calls"] = [{**call, "index": index} for index, call in enumerate(calls)]
        yield from self.feed({**completion, "choices": [{**choice, "delta": message}]})

    def finish(self) -> Iterator[Event]:
        """End the chat: close all open items and the response."""
        if self._message is None and not self._calls and not self._asks:
            yield from self._say("")  # a reply without any text becomes an empty message
        reason = _ENDED.get(self._reason or "")
        yield from self._end_reasoning()
        yield from self._end_message("incomplete" if reason else "completed")
        for call in self._calls.values():
            yield from self._end_call(call, "incomplete" if reason else "completed")
        if reason:
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        else:
            self.response |= {"status": "completed", "completed_at": int(time.time())}
        yield self._about(self.response["status"])

    def fail(self, error: LLMBackendError) -> Iterator[Event]:
        """End with an error; what was said so far stays in the output as incomplete."""
        for item in self.response["output"]:
            if item.get("status") == "in_progress":
                item["status"] = "incomplete"
        self.response |= failed(error)
        yield self._about("failed")

    def error(self, told: Mapping[str, Any]) -> Event:
        """An error event, which OpenAI's clients raise as an exception."""
        beside = {name: told.get(name) for name in ("code", "message", "param")}
        return {"type": "error", "sequence_number": self._next(), **beside, "error": dict(told)}

    def replay(self, response: dict[str, Any]) -> Iterator[Event]:
        """Yield the events of a response that has ended, each text in one piece."""
        self._kept = response["output"]
        yield from self.begin()
        for item in self._kept:
            yield from self._replay_item(item)
        self.response = response
        ended = response["status"]
        yield self._about(ended if ended in ("completed", "failed") else "incomplete")

    def _replay_item(self, item: Item) -> Iterator[Event]:
        match item["type"]:
            case "reasoning":
                yield from self._think("".join(part["text"] for part in item["summary"]))
                yield from self._end_reasoning()
            case "message" if item["content"]:
                [part, *_] = item["content"]
                said = part.get("text") or part.get("refusal") or ""
                yield from self._say(said, refuses=part["type"] == "refusal")
                yield from self._end_message(item["status"], part.get("annotations") or [])
                self._message = None
            case "function_call":
                function = {"name": item["name"], "arguments": item["arguments"]}
                index = len(self._calls)
                yield from self._call({"index": index, "id": item["call_id"], "function": function})
                yield from self._end_call(self._calls[index], item["status"])
            case "file_search_call":
                yield from self.searched(item["queries"], item["results"])
            case _:
                other = self._add(item)
                yield self._added(other)
                yield self._done(other)

    # Events

    def _next(self) -> int:
        self._number += 1
        return self._number - 1

    def _about(self, what: str) -> Event:
        """An event with a copy of the response, because the original changes further."""
        output = [dict(item) for item in self.response["output"]]
        response = {**self.response, "output": output}
        return {"type": f"response.{what}", "sequence_number": self._next(), "response": response}

    def _event(self, kind: str, item: _Open, **fields: Any) -> Event:
        place = {"output_index": item.index, "item_id": item.item["id"]}
        return {"type": kind, "sequence_number": self._next(), **place, **fields}

    def _added(self, item: _Open) -> Event:
        return self._whole("response.output_item.added", item)

    def _done(self, item: _Open) -> Event:
        return self._whole("response.output_item.done", item)

    def _whole(self, kind: str, item: _Open) -> Event:
        number = self._next()
        return {
            "type": kind,
            "sequence_number": number,
            "output_index": item.index,
            "item": dict(item.item),
        }

    # Items

    def _id(self, kind: str) -> str:
        number = len(self.response["output"])
        return self._kept[number]["id"] if self._kept else output_id(kind, self.response["id"], number)

    def _add(self, item: Item) -> _Open:
        self.response["output"].append(item)
        return _Open(item, len(self.response["output"]) - 1)

    def _think(self, thoughts: str) -> Iterator[Event]:
        if self._reasoning is None or self._reasoning.ended:
            item = {"type": "reasoning", "id": self._id("rs"), "status": "in_progress", "summary": []}
            self._reasoning = self._add(item)
            yield self._added(self._reasoning)
            part = {"type": "summary_text", "text": ""}
            yield self._event(
                "response.reasoning_summary_part.added", self._reasoning, summary_index=0, part=part
            )
        self._reasoning.text += thoughts
        yield self._event(
            "response.reasoning_summary_text.delta", self._reasoning, summary_index=0, delta=thoughts
        )

    def _end_reasoning(self) -> Iterator[Event]:
        if (item := self._reasoning) is None or item.ended:
            return
        item.ended = True
        part = {"type": "summary_text", "text": item.text}
        item.item |= {"status": "completed", "summary": [part]}
        text = item.text
        yield self._event("response.reasoning_summary_text.done", item, summary_index=0, text=text)
        yield self._event("response.reasoning_summary_part.done", item, summary_index=0, part=part)
        yield self._done(item)

    def _say(
        self, text: str, *, refuses: bool = False, logprobs: Sequence[Mapping[str, Any]] = ()
    ) -> Iterator[Event]:
        yield from self._end_reasoning()
        if self._message is None:
            item = {
                "type": "message",
                "id": self._id("msg"),
                "status": "in_progress",
                "role": "assistant",
                "content": [],
            }
            self._message = self._add(item)
            self._message.refuses = refuses
            yield self._added(self._message)
            yield self._event(
                "response.content_part.added",
                self._message,
                content_index=0,
                part=self._message.part([]),
            )
        message = self._message
        message.text += text
        if not text:
            return
        kind = "response.refusal.delta" if message.refuses else "response.output_text.delta"
        beside: dict[str, Any] = {}
        if not message.refuses:
            beside["logprobs"] = [_logprob(one) for one in logprobs]
            message.logprobs += beside["logprobs"]
        yield self._event(kind, message, content_index=0, delta=text, **beside)

    def _end_message(self, status: str, annotations: list[dict[str, Any]] | None = None) -> Iterator[Event]:
        if (message := self._message) is None:
            return
        text = message.text
        if message.refuses:
            part = message.part([])
            yield self._event("response.refusal.done", message, content_index=0, refusal=text)
        else:
            annotations = list(self._annotations(text)) if annotations is None else annotations
            part = message.part(annotations)
            logprobs = message.logprobs
            yield self._event(
                "response.output_text.done", message, content_index=0, text=text, logprobs=logprobs
            )
            for number, annotation in enumerate(annotations):
                yield self._event(
                    "response.output_text.annotation.added",
                    message,
                    content_index=0,
                    annotation_index=number,
                    annotation=annotation,
                )
        yield self._event("response.content_part.done", message, content_index=0, part=part)
        message.item |= {"status": status, "content": [part]}
        yield self._done(message)

    def _annotations(self, text: str) -> Iterator[dict[str, Any]]:
        """The text's citations of passages, each with its position, document and verbatim quote."""
        for found in _CITATION.finditer(text):
            if (number := int(found[1])) not in self.cited or number > len(self.sources):
                continue
            source = self.sources[number - 1]
            yield {
                "type": "file_citation",
                "index": found.start(),
                "file_id": source["document_id"],
                "filename": filename(source),
                "quote": source["quote"],
                "collection": source["collection"],
                "chunk": source["chunk"],
            }

    def _call(self, part: Mapping[str, Any]) -> Iterator[Event]:
        yield from self._end_reasoning()
        index, function = part.get("index") or 0, part.get("function") or {}
        call = self._calls.get(index)
        if call is None:
            item = {
                "type": "function_call",
                "id": self._id("fc"),
                "status": "in_progress",
                "call_id": part.get("id") or f"call_{uuid.uuid4().hex[:24]}",
                "name": function.get("name") or "",
                "arguments": "",
            }
            call = self._calls[index] = self._add(item)
            yield self._added(call)
        if arguments := function.get("arguments"):
            call.text += arguments
            yield self._event("response.function_call_arguments.delta", call, delta=arguments)

    def _end_call(self, call: _Open, status: str) -> Iterator[Event]:
        arguments = call.text or "{}"
        if not call.text:
            yield self._event("response.function_call_arguments.delta", call, delta=arguments)
        call.item |= {"arguments": arguments, "status": status}
        yield self._event("response.function_call_arguments.done", call, arguments=arguments)
        yield self._done(call)


class _Open:
    """An output item that is still growing."""

    def __init__(self, item: Item, index: int) -> None:
        self.item = item
        self.index = index
        self.text = ""
        self.logprobs: list[dict[str, Any]] = []
        self.refuses = self.ended = False

    def part(self, annotations: list[dict[str, Any]]) -> dict[str, Any]:
        """The item's content so far."""
        if self.refuses:
            return {"type": "refusal", "refusal": self.text}
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": annotations,
            "logprobs": self.logprobs,
        }


def filename(source: Mapping[str, Any]) -> str:
    told = source["metadata"].get("source")
    return told if isinstance(told, str) and told else str(source["document_id"])


def search_results(sources: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Passages as file search results."""
    return [
        {
            "file_id": source["document_id"],
            "filename": filename(source),
            "score": source["score"],
            "text": source["text"],
            "vector_store_id": source["collection"],
            "attributes": {
                name: value
                for name, value in source["metadata"].items()
                if isinstance(value, str | bool | int | float)
            },
        }
        for source in sources
    ]


def _usage(told: Mapping[str, Any]) -> dict[str, Any]:
    read, written = _count(told, "prompt_tokens"), _count(told, "completion_tokens")
    return {
        "input_tokens": read,
        "input_tokens_details": {
            "cached_tokens": _count(told.get("prompt_tokens_details") or {}, "cached_tokens"),
            "cache_write_tokens": 0,
        },
        "output_tokens": written,
        "output_tokens_details": {
            "reasoning_tokens": _count(told.get("completion_tokens_details") or {}, "reasoning_tokens")
        },
        "total_tokens": read + written,
    }


def _count(told: Mapping[str, Any], name: str) -> int:
    value = told.get(name)
    return value if isinstance(value, int) else 0


def _logprob(told: Mapping[str, Any]) -> dict[str, Any]:
    def one(said: Mapping[str, Any]) -> dict[str, Any]:
        token = said.get("token") or ""
        return {
            "token": token,
            "logprob": said.get("logprob") or 0.0,
            "bytes": said.get("bytes") or list(token.encode(errors="replace")),
        }

    return {**one(told), "top_logprobs": [one(other) for other in told.get("top_logprobs") or ()]}


def replayed(response: dict[str, Any]) -> Iterator[Event]:
    """The events of a response that has ended, from its beginning."""
    status = "queued" if response["background"] else "in_progress"
    before: dict[str, Any] = {"output": [], "status": status, "usage": None, "error": None}
    return Building({**response, **before, "completed_at": None, "incomplete_details": None}).replay(response)
