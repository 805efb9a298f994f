"""Tools: how they are described to a model, and how they are called."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, create_model

from ..errors import BackendTimeout, Forbidden, InvalidRequest, LLMBackendError, Unauthorized, position
from ..plugins import TOOLS, ToolPart
from ..text.delimiters import as_data
from . import approval
from .run_state import Running
from .steps import shown

MOST_OFFERED = 1000
"""The most functions of this process that are remembered, because a run that is a job may call them later."""


@dataclass(frozen=True)
class ToolResult:
    """A tool's result: a value for an agent's own code, and the text that a model reads."""

    value: Any
    text: str


@dataclass(frozen=True)
class Outcome:
    value: Any
    text: str
    """The text that a model reads."""
    error: str | None = None


def parameters(part: ToolPart) -> dict[str, Any]:
    """The JSON Schema of a tool's arguments."""
    if part.parameters is not None:
        return dict(part.parameters)
    return dict(_schema(part))


@lru_cache(MOST_OFFERED)
def _schema(part: ToolPart) -> dict[str, Any]:
    schema = arguments_of(part).model_json_schema()
    schema.pop("title", None)
    return schema


def description(part: ToolPart) -> str:
    return as_data(" ".join((inspect.getdoc(part.made) or part.name).split()))


@lru_cache(MOST_OFFERED)
def arguments_of(part: ToolPart) -> type[BaseModel]:
    """A pydantic class for a tool's arguments, made from its annotations."""
    known = typing.get_type_hints(part.made, include_extras=True) if not part.is_class else {}
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(part.made).parameters.items():
        if name == "run" or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (known.get(name, Any), default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(f"{part.name}_arguments", __config__=config, **fields)


def offered(running: Running, names: tuple[str, ...] | None) -> dict[str, ToolPart]:
    """The tools of a run: those asked for, or else the agent's; tools that write only if they are named.

    Raises InvalidRequest for an unknown name.
    """
    asked = running.request.tools if running.request.tools is not None else names
    if asked is not None:
        return with_functions(running, {name: find(name) for name in asked})
    own = {
        name: part
        for name, part in TOOLS.items()
        if not part.writes and part.made.__module__.startswith("llmbackend.")
    }
    return with_functions(running, own)


_CALLER = "the caller"
"""The module name that marks functions which the caller of a run runs."""


def with_functions(running: Running, tools: dict[str, ToolPart]) -> dict[str, ToolPart]:
    """Add the functions that the caller runs to the tools. Raises InvalidRequest if two have the same name."""
    told = dict(tools)
    for one in running.request.functions or ():

        def outside() -> None: ...

        outside.__module__, outside.__doc__ = _CALLER, one.description or one.name
        if one.name in told and told[one.name].made.__module__ != _CALLER:
            raise InvalidRequest(
                f"tools: {one.name!r} is a tool of the agent's own: give your function another name"
            )
        schema = one.parameters or {"type": "object", "properties": {}}
        told[one.name] = ToolPart("tool", one.name, outside, parameters=schema)
    return told


OFFERED: dict[str, ToolPart] = {}
"""Functions that callers in this process have passed as tools, by generated names."""


def find(name: str) -> ToolPart:
    return OFFERED.get(name) or TOOLS.named(name)


def called(name: str) -> str:
    """The name by which a model calls a tool."""
    part = OFFERED.get(name)
    return part.name if part is not None else name


async def use(
    running: Running, tools: Mapping[str, ToolPart], name: str, arguments: Any, call_id: str = ""
) -> Outcome:
    """Call a tool of a run. A failure is an outcome, too, for the model to read.

    Raises Unauthorized, and Forbidden for what the caller's key may not do.
    """
    await running.count()
    async with running._working(), running.step(name, "tool", given=arguments) as node:
        call_id = call_id or f"call-{node.number}"
        running.tell({"type": "tool_call", "id": call_id, "tool": name, "arguments": arguments})
        outcome = await _used(running, tools, name, arguments, node)
        node.told.output, node.told.error = running.shown(outcome.text), outcome.error
        running.tell(
            {
                "type": "tool_result",
                "id": call_id,
                "tool": name,
                "output": node.told.output,
                "failed": outcome.error,
                "seconds": round(time.monotonic() - node.began, 4),
            }
        )
    return outcome


async def _used(
    running: Running, tools: Mapping[str, ToolPart], name: str, arguments: Any, node: Any
) -> Outcome:
    part = tools.get(name)
    if part is None:
        return _wrong(f"there is no tool {name[:100]!r}: there are {', '.join(tools) or 'none'}")
    if not isinstance(arguments, Mapping):
        return _wrong(f"the arguments of {name} are not a JSON object: {shown(arguments)}")
    given = dict(arguments)
    if part.parameters is None:
        try:
            valid = arguments_of(part).model_validate(given)
            given = {field: getattr(valid, field) for field in valid.model_fields_set}
        except ValidationError as error:
            wrong = "; ".join(
                f"{position(one['loc']) or 'arguments'}: {one['msg']}"
                for one in error.errors(include_url=False, include_context=False)[:5]
            )
            return _wrong(f"the arguments of {name} do not fit: {wrong}")

    async def work(key: str) -> dict[str, Any]:
        if part.made.__module__ == _CALLER:
            gave = await approval.decision(running, key, name, arguments, function=True)
            if isinstance(gave, Mapping):
                given_back = _limited(running, name, gave["output"])
                return {"value": given_back.value, "text": given_back.text, "error": None}
            refused = f"this call was refused{f': {gave}' if gave else ''}"
            return {"value": None, "text": refused, "error": refused}
        if part.writes and running.request.approve == "writes":
            decision = await approval.decision(running, key, name, arguments)
            if decision is not True:
                refused = f"this call was refused{f': {decision}' if decision else ''}"
                return {"value": None, "text": refused, "error": refused}
        outcome = await _called(running, part, given)
        return {"value": outcome.value, "text": outcome.text, "error": outcome.error}

    result = await running.once(node, "tool", [name, dict(arguments)], work)
    return Outcome(result["value"], result["text"], result["error"])


async def _called(running: Running, part: ToolPart, given: dict[str, Any]) -> Outcome:
    seconds = min(running.limits.tool_seconds, max(0.001, running.seconds_left))
    try:
        if part.made.__module__.startswith("llmbackend."):
            async with asyncio.timeout(seconds):
                result = await part.made(running, **given)
        else:
            result = await part.call(seconds, _own, part, running, given)
    except (Unauthorized, Forbidden):
        raise
    except (TimeoutError, BackendTimeout):
        return _wrong(f"{part.name} took more than {seconds:g} s and was ended (AGENT_TOOL_SECONDS)")
    except LLMBackendError as error:
        return _wrong(f"{error.code}: {error.message}")
    except Exception as error:
        return _wrong(f"{part.name} failed: {type(error).__name__}: {error}")
    return _limited(running, part.name, result)


def _own(part: ToolPart, running: Running, given: dict[str, Any]) -> Any:
    """Call a project's own tool. This runs in a thread."""
    from .handle import Run

    if "run" in inspect.signature(part.made).parameters:
        given = {"run": Run(running), **given}
    return part.made(**given)


def _limited(running: Running, name: str, result: Any) -> Outcome:
    """A result as JSON, and as text, cut if it is too long."""
    if isinstance(result, ToolResult):
        value, text = result.value, result.text
    else:
        value = _plain(result)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        text = result_for_model(name, _cut(text, running.limits.tool_characters))
        return Outcome(_cut_value(value, running.limits.tool_characters), text)
    return Outcome(value, _cut(text, running.limits.tool_characters))


def result_for_model(tool: str, text: str) -> str:
    """A tool's result as data for a model: it cannot close the tags around it."""
    return f'<result tool="{tool}">\n{as_data(text)}\n</result>'


def _cut(text: str, most: int) -> str:
    if len(text) <= most:
        return text
    return f"{text[:most]}\n(cut: the first {most:,} of {len(text):,} characters, AGENT_TOOL_CHARACTERS)"


def _cut_value(value: Any, most: int) -> Any:
    if isinstance(value, str):
        return _cut(value, most)
    written = json.dumps(value, ensure_ascii=False, default=str)
    return json.loads(json.dumps(value, default=str)) if len(written) <= most else _cut(written, most)


def _plain(result: Any) -> Any:
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json")
    if isinstance(result, bytes | bytearray):
        return result.decode("utf-8", "replace")
    return result


def _wrong(reason: str) -> Outcome:
    return Outcome(None, as_data(f"ERROR: {reason}"), reason)


def offer(made: Any) -> str:
    """Register a function of a caller in this process as a tool; return its name. Raises InvalidRequest."""
    name = getattr(made, "__name__", "")
    if not callable(made) or not name.isidentifier():
        raise InvalidRequest(f"tools: {made!r} is neither a tool's name nor a function that has a name")
    handle = f"{name}@{id(made):x}"
    OFFERED[handle] = ToolPart("tool", name, made, writes=bool(getattr(made, "writes", False)))
    while len(OFFERED) > MOST_OFFERED:
        del OFFERED[next(iter(OFFERED))]
    return handle
