"""Translates a response's request into a chat request. Pure functions: nothing is looked up here.

Items are the JSON objects that inputs and outputs consist of: messages, function calls and their outputs, reasoning.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import slices
from ..answers import rag_model
from ..errors import InvalidRequest
from ..schemas import (
    HISTORY,
    CallersFunction,
    ChatRequest,
    InputItem,
    Message,
    RespondRequest,
    ResponseTool,
)

Item = dict[str, Any]

_SPEAKS_FIRST = ("system", "developer")
_SHARED = ("model", "temperature", "top_p", "presence_penalty", "frequency_penalty", "user")


def given(request: RespondRequest, response_id: str) -> list[Item]:
    """The items of a request's input with ids and all fields, as they are stored and listed."""
    if isinstance(request.input, str):
        items = [InputItem(role="user", content=request.input)]
    else:
        items = request.input
    return [_in_full(item, input_id(response_id, number)) for number, item in enumerate(items)]


def _in_full(item: InputItem, item_id: str) -> Item:
    told = item.model_dump(exclude_none=True)
    if item.type == "item_reference":
        return told
    told.setdefault("id", item_id)
    if item.type == "message":
        told.setdefault("status", "completed")
        told["content"] = [_part_in_full(part) for part in _parts(told["content"], item.role or "user")]
    elif item.type in ("function_call", "function_call_output"):
        told.setdefault("status", "completed")
    elif item.type == "reasoning":
        told.setdefault("summary", [])
    return told


def _parts(content: str | list[Item], role: str) -> list[Item]:
    kind = "output_text" if role == "assistant" else "input_text"
    return [{"type": kind, "text": content}] if isinstance(content, str) else content


def _part_in_full(part: Item) -> Item:
    beside: Item = {}
    if part["type"] == "output_text":
        beside = {"annotations": [], "logprobs": []}
    elif part["type"] == "input_image":
        beside = {"detail": "auto"}
    return {**beside, **part}


def input_id(response_id: str, number: int) -> str:
    """The id of an input item; it contains the response's id, by which the item is found."""
    return f"item_{response_id.removeprefix('resp_')}_i{number}"


def output_id(kind: str, response_id: str, number: int) -> str:
    """The id of an output item."""
    return f"{kind}_{response_id.removeprefix('resp_')}_{number}"


def approval_id(run_id: str, number: int) -> str:
    """The id of an approval request for an agent's tool call; it contains the run's id."""
    return f"mcpr_{run_id}_{number}"


def call_id(run_id: str, number: int) -> str:
    """The id of a run's call of the caller's function; it contains the run's id, so that the output finds the run."""
    return f"call_{run_id}_{number}"


_CALL_OF_RUN = re.compile(r"call_([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})_(\d{1,4})")


def words(items: Sequence[Item]) -> tuple[str, dict[int, Any]] | None:
    """The decisions for a run that waits, as the run's id and a decision for each call's number; None if
    there are none.

    A decision is True, the reason for a rejection, or for a function that the caller runs `{"output": text}`.
    Raises InvalidRequest.
    """
    told: dict[str, dict[int, Any]] = {}
    for item in items:
        if item["type"] == "mcp_approval_response":
            run_id, _, number = item["approval_request_id"].removeprefix("mcpr_").rpartition("_")
            told.setdefault(run_id, {})[int(number)] = True if item["approve"] else item.get("reason") or ""
    for item in reversed(items):
        if item["type"] == "message":
            break  # earlier outputs belong to earlier responses
        if item["type"] == "function_call_output" and (of := _CALL_OF_RUN.fullmatch(item["call_id"])):
            told.setdefault(of[1], {})[int(of[2])] = {"output": _text(_content(item["output"]))}
    if len(told) > 1:
        raise InvalidRequest(
            "input: approvals and outputs must be for one run: send those for other runs separately"
        )
    return next(iter(told.items()), None)


def response_of(item_id: str) -> str | None:
    """The id of the response that an item belongs to, by the item's id; None if the id is not ours."""
    parts = item_id.split("_")
    return f"resp_{parts[1]}" if len(parts) == 3 else None


def messages(items: Iterable[Item], instructions: str | None = None) -> list[dict[str, Any]]:
    """Items as chat messages. Leading system messages are joined, because many chat templates take only one.

    Raises InvalidRequest for a function's output without its call.
    """
    system = [instructions] if instructions else []
    told: list[dict[str, Any]] = []
    called: set[str] = set()
    for item in items:
        slices.give_way()
        match item["type"]:
            case "message":
                role = "system" if item["role"] in _SPEAKS_FIRST else item["role"]
                content = _content(item["content"])
                if role == "system" and not told and isinstance(content, str):
                    system.append(content)
                else:
                    told.append({"role": role, "content": content})
            case "function_call":
                called.add(item["call_id"])
                call = {
                    "id": item["call_id"],
                    "type": "function",
                    "function": {"name": item["name"], "arguments": item["arguments"]},
                }
                if not told or told[-1]["role"] != "assistant":
                    told.append({"role": "assistant", "content": None})
                told[-1].setdefault("tool_calls", []).append(call)
            case "function_call_output":
                if item["call_id"] not in called:
                    raise InvalidRequest(
                        f"input: there is no function_call with the call_id {item['call_id']!r} before its output: "
                        "send the call too, or the previous_response_id of the response that has it",
                        details={"call_id": item["call_id"]},
                    )
                told.append(
                    {
                        "role": "tool",
                        "tool_call_id": item["call_id"],
                        "content": _content(item["output"]),
                    }
                )
    return [{"role": "system", "content": "\n\n".join(system)}, *told] if system else told


def _content(content: str | Sequence[Item]) -> str | list[dict[str, Any]]:
    """A message's content: a plain string if it is text only, else parts."""
    if isinstance(content, str):
        return content
    parts = [_part(part) for part in content]
    if all(part["type"] == "text" for part in parts):
        return "".join(part["text"] for part in parts)
    return parts


def _part(part: Item) -> dict[str, Any]:
    match part["type"]:
        case "input_image":
            image = {name: part[name] for name in ("detail",) if part.get(name) not in (None, "auto")}
            return {"type": "image_url", "image_url": {"url": part["image_url"], **image}}
        case "input_file":
            file = {name: part[name] for name in ("file_data", "filename") if part.get(name)}
            return {"type": "file", "file": file}
        case "refusal":
            return {"type": "text", "text": part["refusal"]}
        case _:
            return {"type": "text", "text": part["text"]}


def chat(request: RespondRequest, turns: list[dict[str, Any]]) -> dict[str, Any]:
    """The chat request for these messages, as OpenAI's API takes it."""
    asked: dict[str, Any] = {"messages": turns}
    for name in _SHARED:
        if (value := getattr(request, name)) is not None:
            asked[name] = value
    if request.max_output_tokens is not None:
        asked["max_tokens"] = request.max_output_tokens
    if request.reasoning is not None and request.reasoning.effort is not None:
        asked["reasoning_effort"] = request.reasoning.effort
    if tools := _tools(request):
        asked["tools"] = tools
        asked |= _choice(request, tools)
        if request.parallel_tool_calls is not None:
            asked["parallel_tool_calls"] = request.parallel_tool_calls
    if request.text is not None:
        if request.text.verbosity is not None:
            asked["verbosity"] = request.text.verbosity
        if (form := request.text.format) is not None and form.type == "json_schema":
            schema = form.model_dump(exclude_none=True, by_alias=True, exclude={"type"})
            asked["response_format"] = {
                "type": "json_schema",
                "json_schema": {"name": "response", **schema},
            }
        elif form is not None and form.type != "text":
            asked["response_format"] = {"type": form.type}
    if request.top_logprobs is not None or "message.output_text.logprobs" in (request.include or ()):
        asked["logprobs"] = True
        if request.top_logprobs:
            asked["top_logprobs"] = request.top_logprobs
    return asked


_OURS = {"background", "metadata", "previous_response_id", "stream", "stream_options"}


def passed_on(request: RespondRequest, items: Sequence[Item]) -> dict[str, Any]:
    """The request for a model server with a Responses API; it must store nothing, and does not know our items' ids."""
    asked = request.model_dump(
        exclude_unset=True, exclude_none=True, by_alias=True, exclude={*_OURS, "input", "store", "model"}
    )
    thoughtless = [item for item in items if item["type"] != "reasoning" or "encrypted_content" in item]
    told = [{name: value for name, value in item.items() if name != "id"} for item in thoughtless]
    return {**asked, "input": told, "store": False}


def functions(request: RespondRequest) -> list[CallersFunction]:
    """The functions that an agent may call. Raises InvalidRequest if one must be called, since an agent
    decides that itself."""
    choice = request.tool_choice
    named = choice if choice is None or isinstance(choice, str) else choice.mode or choice.type
    if named in ("required", "function"):
        raise InvalidRequest("tool_choice: an agent decides itself which function it calls: use auto or none")
    if named == "none":
        return []
    return [
        CallersFunction(
            name=tool["function"]["name"],
            description=tool["function"].get("description"),
            parameters=tool["function"]["parameters"],
        )
        for tool in _tools(request)
    ]


def _tools(request: RespondRequest) -> list[dict[str, Any]]:
    """The functions as chat tools. allowed_tools is applied here, so it works with every model."""
    functions = [tool for tool in request.tools or () if tool.type == "function"]
    choice = request.tool_choice
    if choice is not None and not isinstance(choice, str) and choice.type == "allowed_tools":
        allowed = {tool.name for tool in choice.tools or ()}
        functions = [tool for tool in functions if tool.name in allowed]
    return [_function(tool) for tool in functions]


def _function(tool: ResponseTool) -> dict[str, Any]:
    about = {"name": tool.name, "description": tool.description, "strict": tool.strict}
    told = {name: value for name, value in about.items() if value is not None}
    return {"type": "function", "function": {**told, "parameters": tool.parameters or _NOTHING}}


_NOTHING = {"type": "object", "properties": {}}


def _choice(request: RespondRequest, tools: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return {"tool_choice": choice} if choice else {}
    if choice.type == "allowed_tools":
        return {"tool_choice": choice.mode or "auto"}
    if choice.type == "file_search":
        return {}
    if choice.name not in [tool["function"]["name"] for tool in tools]:
        raise InvalidRequest(f"tool_choice: there is no function {choice.name!r} among the tools")
    return {"tool_choice": {"type": "function", "function": {"name": choice.name}}}


def may_call(request: RespondRequest) -> bool:
    """Whether the model may, or must, call a function."""
    return request.tool_choice != "none" and bool(_tools(request))


def searches(request: RespondRequest) -> list[ResponseTool]:
    """The file searches to run: all, unless `tool_choice` excludes them."""
    choice = request.tool_choice
    if choice == "none" or (not isinstance(choice, str | None) and choice.type == "function"):
        return []
    if not isinstance(choice, str | None) and choice.type == "allowed_tools":
        allowed = any(tool.type == "file_search" for tool in choice.tools or ())
        return request.file_searches if allowed and choice.mode != "none" else []
    return request.file_searches


def system(turns: Sequence[Mapping[str, Any]]) -> str | None:
    """The text of all system messages, joined; None if there are none."""
    return "\n\n".join(_text(turn["content"]) for turn in turns if turn["role"] == "system") or None


def conversation(
    turns: Sequence[Mapping[str, Any]], what: str, *, sees: bool = False
) -> tuple[str, list[Message]]:
    """The user's last question, and the messages before it.

    Raises InvalidRequest if there is no question or, unless `sees`, if it has images or files.
    """
    told = [turn for turn in turns if turn["role"] in ("user", "assistant") and turn["content"]]
    while told and told[-1]["role"] != "user":
        told.pop()
    asked = told[-1]["content"] if told else ""
    if not sees and not isinstance(asked, str):
        raise InvalidRequest(f"input: {what} reads text only: leave images and files out")
    question = _text(asked)
    if not question.strip():
        raise InvalidRequest(f"input: {what} answers the user's last message, and there is none")
    return question, [
        Message(role=turn["role"], content=_text(turn["content"])) for turn in told[:-1][-HISTORY:]
    ]


def _text(content: str | Sequence[Mapping[str, Any]]) -> str:
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def as_chat(request: RespondRequest, turns: list[dict[str, Any]]) -> ChatRequest:
    """The request in the form of the chat route, for a collection as model.

    Raises InvalidRequest for functions and shapes, because a collection answers in words and quotes.
    """
    question, history = conversation(turns, request.model or "")
    shape = "text.format" if "response_format" in chat(request, []) else None
    instead = "ask a chat model, with file_search"
    rag_model.require_words(request.model or "", calls=may_call(request), shape=shape, instead=instead)
    said = system(turns)
    first = [Message(role="system", content=said)] if said else []
    return ChatRequest(
        model=request.model, messages=[*first, *history, Message(role="user", content=question)]
    )
