"""The tokens of chats, as servers tell them: also those of streams, and of streams that are left before their end."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from .. import json_writing
from ..tracing import Trace
from .batches import BYTES_A_TOKEN

_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_FIELD = re.compile(rb',?\s*"usage"\s*:\s*\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\}')
_NO_CHOICES = re.compile(rb'"choices"\s*:\s*\[\s*\]')
_SAYS = re.compile(rb'"(?:content|reasoning_content|reasoning|arguments|refusal)"\s*:\s*"[^"]')
_PIECES = ("content", "reasoning_content", "reasoning", "refusal", "tool_calls")


def asks(request: Mapping[str, Any]) -> bool:
    """Whether a request asks for the usage of its stream."""
    return bool((request.get("stream_options") or {}).get("include_usage"))


def asks_in_pieces(request: Mapping[str, Any], asked: Mapping[str, Any]) -> bool:
    """Whether the caller gets usage in each chunk of a stream: not if only we asked for that (see `asking`)."""
    all_along = "continuous_usage_stats"
    ours = (asked.get("stream_options") or {}).get(all_along)
    return asks(request) and not (ours and not (request.get("stream_options") or {}).get(all_along))


def asking(request: Mapping[str, Any], *, all_along: bool) -> dict[str, Any]:
    """The stream options that ask for the usage at the end, and with each chunk (`all_along`) if the server
    is vLLM."""
    options = {**(request.get("stream_options") or {}), "include_usage": True}
    return {**options, "continuous_usage_stats": True} if all_along else options


class StreamUsage:
    """Collects the usage of one stream. Call `note` when the stream ends, however it ends."""

    def __init__(self, request: Mapping[str, Any], trace: Trace) -> None:
        self._request = request
        self._trace = trace
        self._wanted = asks(request)
        self.in_pieces = self._wanted
        """Whether chunks are passed on with their usage: not if only we asked for it."""
        self._first = b""
        self._last: bytes | dict[str, Any] | None = None
        self._pieces = 0

    def feed(self, events: bytes) -> bytes:
        """Read some complete events; return them without the usage that the caller did not ask for."""
        self._first = self._first or events.partition(b"\n\n")[0]
        if _USAGE.search(events) is None:
            self._pieces += len(_SAYS.findall(events))
            return events
        kept = [self._one(one) for one in events.split(b"\n\n") if one]
        return b"".join(one + b"\n\n" for one in kept if one)

    def _one(self, event: bytes) -> bytes:
        self._pieces += _SAYS.search(event) is not None
        if _USAGE.search(event) is None:
            return event
        self._last = event
        if _NO_CHOICES.search(event) is not None:
            return event if self._wanted else b""
        self._trace.tells(True)
        return event if self.in_pieces else _FIELD.sub(b"", event)

    def read(self, chunk: dict[str, Any]) -> None:
        """Read a chunk, like `feed`, without changing it."""
        if chunk.get("usage"):
            self._last = chunk
            self._trace.tells(bool(chunk.get("choices")))
        choices = chunk.get("choices") or ()
        self._pieces += any((choice.get("delta") or {}).get(name) for choice in choices for name in _PIECES)

    def note(self) -> None:
        """Record the usage that the stream told last, or an estimate."""
        told = _json(self._last)
        if isinstance(told, dict) and isinstance(told.get("usage"), dict):
            self._trace.used(str(told.get("model") or ""), told["usage"])
            return
        estimate = {**prompt_estimate(self._request), "completion_tokens": self._pieces}
        model = self._request.get("model") or (_json(self._first) or {}).get("model") or ""
        self._trace.used(str(model), estimate, estimated=True)


def _json(event: bytes | dict[str, Any] | None) -> Any:
    if not isinstance(event, bytes):
        return event
    with suppress(ValueError):
        return json.loads(event.removeprefix(b"data:"))
    return None


def note_unanswered(request: Mapping[str, Any], trace: Trace) -> None:
    """Record what a server may have read of a request whose reply nobody waited for."""
    trace.used(str(request.get("model") or ""), prompt_estimate(request), estimated=True)


def prompt_estimate(request: Mapping[str, Any]) -> dict[str, int]:
    """The estimated usage of a prompt, for servers that tell none."""
    size = json_writing.size(request.get("messages"))
    return {"prompt_tokens": max(1, size // BYTES_A_TOKEN)}


def note(request: Mapping[str, Any], completion: Mapping[str, Any], trace: Trace) -> None:
    """Record the usage of a completion, estimated if the server does not tell it."""
    model = str(completion.get("model") or request.get("model") or "")
    if isinstance(usage := completion.get("usage"), dict) and usage:
        trace.used(model, usage)
        return
    written = json_writing.size(completion.get("choices")) // BYTES_A_TOKEN
    trace.used(model, {**prompt_estimate(request), "completion_tokens": written}, estimated=True)
