"""Rewrites replies as servers really send them into the form that OpenAI's clients understand.

Content in parts becomes text, and reasoning in it becomes `reasoning_content`; tool calls get an id and a
type, and arguments as text. Everything else stays as it came.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from ..errors import InvalidRequest, LLMBackendError
from .thoughts import Thoughts, told_apart


def message(said: dict[str, Any]) -> bool:
    """Rewrite a whole message in place; return whether anything had to be changed."""
    before = said.get("content")
    words, thoughts = _texts(before)
    if not words and isinstance(refusal := said.get("refusal"), str):
        words = refusal
    if isinstance(words, str):
        words, more = told_apart(words)
        thoughts += more
    changed = words != before
    if changed:
        said["content"] = words
    if thoughts:
        _think(said, thoughts)
    if calls := _calls(said):
        plain = [_call(call) for call in calls]
        if plain != said.get("tool_calls"):
            said["tool_calls"] = plain
            changed = True
    return changed


class Deltas:
    """Rewrites the chunks of one stream."""

    def __init__(self) -> None:
        self._choices: dict[int, _Choice] = {}
        self._last: dict[str, Any] = {}
        self.begun = self.settled = False
        """Whether any choice has come, and whether all of them began with words, so that there is no
        reasoning in them."""

    def read(self, chunk: dict[str, Any]) -> bool:
        """Rewrite a chunk in place; return whether it changed."""
        changed = False
        for choice in chunk.get("choices") or ():
            if not isinstance(choice, dict):
                continue
            if choice.get("delta") is None and isinstance(whole := choice.get("message"), dict):
                choice["delta"] = whole  # some servers send a message instead, when it comes in one piece
                changed = True
            delta = choice.get("delta")
            ends = bool(choice.get("finish_reason"))
            number = choice.get("index")
            mine = self._choices.setdefault(number if isinstance(number, int) else 0, _Choice())
            if isinstance(delta, dict):
                changed |= mine.read(delta, ends)
            elif delta is None and ends and (rest := mine.rest()):
                choice["delta"] = rest
                changed = True
        if self._choices:
            self._last, self.begun = chunk, True
            self.settled = all(choice.thoughts.none for choice in self._choices.values())
        return changed

    def rest(self) -> dict[str, Any] | None:
        """One more chunk, with what was held back, for a stream that ended without a finish_reason; None if
        nothing was."""
        choices = [
            {"index": number, "delta": rest, "finish_reason": None}
            for number, choice in self._choices.items()
            if (rest := choice.rest())
        ]
        about: dict[str, Any] = {name: self._last.get(name) for name in ("id", "object", "created", "model")}
        return {**about, "choices": choices} if choices else None


class _Choice:
    def __init__(self) -> None:
        self.thoughts = Thoughts()
        self._calls: list[_Calling] = []

    def read(self, delta: dict[str, Any], ends: bool) -> bool:
        before = delta.get("content")
        words, thoughts = _texts(before)
        if not words and isinstance(refusal := delta.get("refusal"), str):
            words = refusal
        if ends or words:
            words, more = self.thoughts.feed(words or "", last=ends)
            thoughts += more
        changed = words != before and bool(words or before is not None)
        if changed:
            delta["content"] = words
        if thoughts:
            _think(delta, thoughts)
            changed = True
        if parts := _calls(delta):
            plain = list(self._parts(parts))
            if plain != delta.get("tool_calls"):
                delta["tool_calls"] = plain
                changed = True
        return changed

    def rest(self) -> dict[str, Any] | None:
        words, thoughts = self.thoughts.feed("", last=True)
        rest = {"content": words, "reasoning_content": thoughts}
        return {name: text for name, text in rest.items() if text} or None

    def _parts(self, parts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        here: list[_Calling] = []  # the calls of this chunk
        for part in parts:
            yield self._part(part, here)

    def _part(self, part: dict[str, Any], here: list[_Calling]) -> dict[str, Any]:
        """A part of a tool call, with the number of its call. Only the first part has the call's id and name."""
        function = part.get("function")
        said = function if isinstance(function, dict) else {}
        name, arguments = said.get("name") or "", _arguments(said.get("arguments"))
        call = self._of(part, name, arguments, here)
        here.append(call)
        plain = {**part, "index": call.number}
        if call.begun:
            plain.pop("id", None)
        else:
            plain["id"] = call.id
            plain["type"] = part.get("type") or "function"
        if "function" in part:
            plain["function"] = {**said, "arguments": arguments} if "arguments" in said else dict(said)
            if call.begun and call.name:
                plain["function"].pop("name", None)
            elif not call.begun:
                plain["function"] = {"name": name, "arguments": arguments, **_others(said)}
        call.begun = True
        call.name = call.name or name
        call.arguments += arguments
        return plain

    def _of(self, part: dict[str, Any], name: str, arguments: str, here: list[_Calling]) -> _Calling:
        """The call that a part belongs to: by its id, or else by its index and by what has come so far."""
        index, id = part.get("index"), part.get("id") or ""
        calls = [call for call in self._calls if index is None or call.index == index]
        if not calls and not id and not name:
            calls = self._calls
        for call in reversed(calls):
            if id and call.theirs == id:
                return call
        if calls:
            latest = calls[-1]
            # The name comes with the first part, but some servers repeat it in every part.
            another = bool(name and latest.name) and (
                name != latest.name or latest in here or bool(arguments and latest.complete)
            )
            if not another and (not id or not latest.theirs):
                latest.theirs = latest.theirs or id
                return latest
        call = _Calling(len(self._calls), index, id)
        self._calls.append(call)
        return call


class _Calling:
    """A tool call that comes in parts."""

    def __init__(self, number: int, index: Any, id: str) -> None:
        self.number = number
        self.index = index
        """The server's number for it, which may be the same for all calls, or None."""
        self.theirs = id
        self.id = id or _new_id()
        self.name = self.arguments = ""
        self.begun = False

    @property
    def complete(self) -> bool:
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False


def _calls(said: dict[str, Any]) -> list[dict[str, Any]]:
    """The tool calls in a message or delta: a list, a single call, or a `function_call` as before there were
    tools."""
    calls = said.get("tool_calls")
    if not calls and isinstance(function := said.pop("function_call", None), dict):
        calls = {"index": 0, "function": function}
    return [call for call in (calls if isinstance(calls, list) else [calls]) if isinstance(call, dict)]


def _call(call: dict[str, Any]) -> dict[str, Any]:
    """A complete tool call, rewritten."""
    function = call.get("function")
    plain = {**call, "id": call.get("id") or _new_id()}
    if isinstance(function, dict):
        plain["type"] = call.get("type") or "function"
        arguments = _arguments(function.get("arguments"))
        if arguments.startswith('"'):
            with suppress(ValueError, RecursionError):  # some servers encode the arguments as JSON twice
                inner = json.loads(arguments)
                if isinstance(inner, str) and isinstance(json.loads(inner), dict):
                    arguments = inner
        plain["function"] = {**function, "arguments": arguments}
    return plain


def _arguments(given: Any) -> str:
    return given if isinstance(given, str) else "" if given is None else json.dumps(given)


def _others(function: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in function.items() if name not in ("name", "arguments")}


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"


def _think(said: dict[str, Any], thoughts: str) -> None:
    name = "reasoning" if said.get("reasoning") else "reasoning_content"
    before = said.get(name)
    said[name] = (before if isinstance(before, str) else "") + thoughts


def _texts(content: Any) -> tuple[str | None, str]:
    """The words and the reasoning in content, which may be in parts; the words are None if there is no content."""
    if content is None or isinstance(content, str):
        return content, ""
    words, thoughts = "", ""
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str):
            words += part
        elif isinstance(part, list):
            more, inner = _texts(part)
            words, thoughts = words + (more or ""), thoughts + inner
        elif isinstance(part, dict):
            kind = part.get("type")
            if kind in ("thinking", "reasoning"):
                thought = part.get(kind) or part.get("text") or part.get("summary")
                more, inner = _texts(thought)
                thoughts += (more or "") + inner
            else:
                text = part.get("text") or part.get("refusal")
                if isinstance(text, dict):
                    text = text.get("value")
                words += text if isinstance(text, str) else ""
    return words, thoughts


_TAKES_NO_TOOLS = re.compile(
    r"(?=.*(?:tool|function)).*"
    r"(?:support|requires --|tool-call-parser|not (?:permitted|allowed|enabled|available)|disabled|unrecognized"
    r"|(?:unknown|unexpected) (?:field|argument|parameter|keyword|name))",
    re.IGNORECASE | re.DOTALL,
)


def takes_no_tools(error: InvalidRequest) -> bool:
    """Whether a server refuses tools altogether, and not just one of them."""
    return "context" not in error.details and bool(_TAKES_NO_TOOLS.search(error.message))


_TAKES_NO_IMAGES = re.compile(
    r"not a multimodal|at most 0 image|unknown variant \W?image_url"
    r"|image.{0,60}(?:not support|unsupported|not enabled|only supported)"
    r"|(?:not|n't) (?:support|accept|process|take).{0,60}(?:image|vision|multimodal)",
    re.IGNORECASE | re.DOTALL,
)


def takes_no_images(error: LLMBackendError) -> bool:
    """Whether a server refuses a request because its model takes no images; some do that with status 500."""
    return bool(_TAKES_NO_IMAGES.search(error.message))
