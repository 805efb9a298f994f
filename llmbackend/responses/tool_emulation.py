"""Tool calling for models that cannot do it: the embedded one, and those whose servers take no tools.

First the function that fits is chosen, then the model writes its arguments as JSON that fits its schema. If no function
fits, the model answers as if there were none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from typing import Any

from ..errors import BackendError, InvalidRequest
from ..inference import structured
from ..inference.chat import ChatModel, total
from ..inference.judge import Judge
from ..prompts import prompt
from ..text.delimiters import as_data

FITS = 0.3
"""The cosine, by the judge, from which on a function fits a question; unrelated ones stay below 0.27."""

ARGUMENTS_TOKENS = 400
"""Limit on the embedded model's arguments, because it may not stop by itself."""

Turn = dict[str, Any]


async def emulated(
    chat: ChatModel, judge: Judge, asked: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The request without its tools, and a completion to return instead of asking: a tool call, or a tool's
    result.

    The completion is None if the model should answer the request without tools.
    """
    tools = {tool["function"]["name"]: tool["function"] for tool in asked["tools"]}
    choice = asked.get("tool_choice") or "auto"
    plain = {
        name: value
        for name, value in asked.items()
        if name not in ("tools", "tool_choice", "parallel_tool_calls")
    }
    plain["messages"] = _in_words(asked["messages"])
    if choice == "none":
        return plain, None
    call = _Call(chat, judge, asked, tools, must=choice != "auto")
    if isinstance(choice, dict):
        return plain, await call.to(choice["function"]["name"])
    name = await call.fitting()
    if name is not None and (completion := await call.to(name)) is not None:
        return plain, completion
    in_text = asked.get("response_format", {}).get("type", "text") == "text"
    if not chat.abstracts and in_text and (given := _given(asked["messages"])):
        # In its own words, the embedded model would invent something.
        return plain, saying("\n\n".join(given))
    return plain, None


class _Call:
    def __init__(
        self,
        chat: ChatModel,
        judge: Judge,
        asked: dict[str, Any],
        tools: dict[str, dict[str, Any]],
        *,
        must: bool,
    ) -> None:
        self._chat, self._judge, self._asked, self._tools, self._must = chat, judge, asked, tools, must
        self._turns: list[Turn] = asked["messages"]
        self._question = _said_last(self._turns)
        self._made = _made(self._turns)
        self._usage: dict[str, int] = {}

    async def fitting(self) -> str | None:
        """The name of the function to call, or None. Raises what the model raises."""
        if self._must and len(self._tools) == 1:
            return next(iter(self._tools))
        return await (self._chosen() if self._chat.abstracts else self._nearest())

    async def _nearest(self) -> str | None:
        """The function nearest to the question. Each is called once only, because the embedded model cannot
        tell when to stop."""
        called = {name for name, _ in self._made}
        names = [name for name in self._tools if name not in called]
        if self._must and not names:
            names = list(self._tools)
        if not names or not self._question or not self._judge.here:
            if self._must:
                raise InvalidRequest(
                    "tool_choice: the model that chooses a function is not installed: run `llmbackend models pull`, "
                    "or name the function"
                )
            return None
        cosines = await self._judge.cosines(self._question, [_about(self._tools[name]) for name in names])
        best = int(cosines.argmax())
        return names[best] if self._must or cosines[best] >= FITS else None

    async def _chosen(self) -> str | None:
        """The function that the model chooses."""
        names: list[str | None] = [*self._tools, *([] if self._must else [None])]
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in self._tools.values())
        turns = [*_in_words(self._turns), _user(prompt("functions").filled(functions=listed))]
        shape = {
            "type": "object",
            "properties": {"function": {"enum": names}},
            "required": ["function"],
            "additionalProperties": False,
        }
        found = await self._structured(turns, shape)
        name = found["function"] if found is not None else None
        return name if isinstance(name, str) else None

    async def to(self, name: str) -> dict[str, Any] | None:
        """A completion that calls the function; None if the same call was made already, or no arguments fit."""
        function = self._tools[name]
        schema = function["parameters"]
        arguments: Any = {}
        if schema.get("properties"):
            about = f"{name} ({function.get('description') or 'a function'})"
            if self._chat.abstracts:
                turns = [*_in_words(self._turns), _user(prompt("arguments").filled(function=about))]
            else:
                turns = _form(self._question, schema)
            arguments = await self._structured(turns, schema)
        if arguments is None or (not self._must and (name, arguments) in self._made):
            return None
        told = {"name": name, "arguments": json.dumps(arguments, ensure_ascii=False)}
        call = {"id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": told}
        return _completion({"content": None, "tool_calls": [call]}, "tool_calls", self._usage)

    async def _structured(self, turns: Sequence[Turn], shape: dict[str, Any]) -> Any:
        request = {"messages": list(turns), "temperature": 0.0}
        if self._asked.get("model"):
            request["model"] = self._asked["model"]
        if not self._chat.abstracts:
            request["max_tokens"] = ARGUMENTS_TOKENS
        try:
            said = await structured.complete(self._chat, request, shape)
        except BackendError as error:
            if self._must or "problem" not in error.details:
                raise
            return None  # a call is not required
        self._usage = total(self._usage, said.get("usage"))
        return json.loads(said["choices"][0]["message"]["content"])


def saying(text: str) -> dict[str, Any]:
    """A completion with a fixed text."""
    return _completion({"content": text}, "stop", {})


def _completion(message: dict[str, Any], reason: str, used: dict[str, int]) -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": reason}
    usage = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, **used}
    return {"choices": [choice], "usage": usage}


def _about(function: dict[str, Any]) -> str:
    return f"{function['name'].replace('_', ' ')}: {function.get('description') or ''}"


def _form(text: str, schema: dict[str, Any]) -> list[Turn]:
    """A conversation that asks for a filled-in form. Without an example, SmolLM2 fills in anything."""
    fields = ", ".join(f"{name} ({_kind(field)})" for name, field in schema["properties"].items())
    return [
        {"role": "system", "content": "You fill in forms in JSON with words of the text."},
        _user("Text: I want to fly from Paris to Rome.\nForm: destination (string)"),
        {"role": "assistant", "content": '{"destination": "Rome"}'},
        _user(f"Text: {text}\nForm: {fields}"),
    ]


def _kind(field: Any) -> str:
    if isinstance(field, dict):
        if isinstance(values := field.get("enum"), list):
            return f"one of {', '.join(map(str, values))}"
        if isinstance(kind := field.get("type"), str):
            return kind
    return "string"


def _user(text: str) -> Turn:
    return {"role": "user", "content": text}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _said_last(turns: Sequence[Turn]) -> str:
    return next((_text(turn["content"]) for turn in reversed(turns) if turn["role"] == "user"), "")


def _since(turns: Sequence[Turn]) -> Sequence[Turn]:
    """The messages after the user's last one."""
    last = max((place for place, turn in enumerate(turns) if turn["role"] == "user"), default=-1)
    return turns[last + 1 :]


def _made(turns: Sequence[Turn]) -> list[tuple[str, Any]]:
    """The calls since the user's last message."""
    return [
        (call["function"]["name"], _parsed(call["function"]["arguments"]))
        for turn in _since(turns)
        for call in turn.get("tool_calls") or ()
    ]


def _parsed(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments


def _given(turns: Sequence[Turn]) -> list[str]:
    """The functions' results since the user's last message."""
    return [text for turn in _since(turns) if turn["role"] == "tool" and (text := _text(turn["content"]))]


def _in_words(turns: Sequence[Turn]) -> list[Turn]:
    """The conversation with calls and results as text, for chat templates without tools."""
    told: list[Turn] = []
    names: dict[str, str] = {}
    results = False
    for turn in turns:
        if turn["role"] == "tool":
            name = names.get(turn["tool_call_id"], "")
            text = f'<result function="{as_data(name)}">\n{as_data(_text(turn["content"]))}\n</result>'
            if results:
                told[-1]["content"] += f"\n{text}"
            else:
                told.append(_user(text))
            results = True
            continue
        results = False
        if calls := turn.get("tool_calls"):
            names |= {call["id"]: call["function"]["name"] for call in calls}
            said = [f"{call['function']['name']}({call['function']['arguments']})" for call in calls]
            told.append(
                {"role": "assistant", "content": "\n".join([*filter(None, [_text(turn["content"])]), *said])}
            )
        else:
            told.append(turn)
    return told
