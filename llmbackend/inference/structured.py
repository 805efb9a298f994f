"""Replies in the shape of a JSON Schema, by whichever chat model.

The model's server is told the schema (`response_format`), and what comes is checked all the same: few servers know all
of JSON Schema, and some take no notice of it. One that refuses it is asked in words instead. A reply that does not fit
is sent back once, with what is wrong. Of prose or a fence around an object or a list, only the JSON is kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NoReturn

from .. import threads
from ..errors import BackendError, BackendTimeout, InvalidRequest
from .chat import ChatModel, total


async def complete(chat: ChatModel, request: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """A chat.completion whose content is JSON that fits; its usage is that of all tries.

    Where the request has tools, a reply may call them instead: that is given as it is.

    Raises InvalidRequest for what is no JSON Schema, BackendError for a reply that was cut off or does not fit at the
    second try (details: its `text`, and the `problem`), and whatever the chat model raises.
    """
    shape = await threads.processor(_Shape, schema)  # large ones would hold up the loop
    deadline = await chat.deadline()

    async def ask(asked: dict[str, Any]) -> tuple[_Try, str | None]:
        reply = _Try(await chat.complete(asked, deadline))
        if request.get("tools") and reply.message.get("tool_calls"):
            return reply, None
        return reply, await threads.processor(shape.problem_of, reply)

    # Not `strict`: OpenAI refuses most schemas then, and the check is ours anyway.
    wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    asked = {**request, "response_format": wanted}
    try:
        first, problem = await ask(asked)
    except InvalidRequest as refusal:
        if "context" in refusal.details:  # it is the prompt that is too long
            raise
        asked = {**request, "messages": _adding(request["messages"], _in_words(schema))}
        first, problem = await ask(asked)
    if problem is None:
        return first.completion
    failure = first.failure(problem)
    if first.was_cut:
        raise failure
    said = {"role": "assistant", "content": first.text or "(nothing)"}
    correction = {"role": "user", "content": f"That does not fit: {problem}. {_in_words(schema)}"}
    try:
        second, problem = await ask({**asked, "messages": [*asked["messages"], said, correction]})
    except (InvalidRequest, BackendTimeout) as refusal:  # too long, with all that, or too late
        raise failure from refusal
    if problem is not None:
        raise second.failure(problem)
    second.completion["usage"] = total(first.completion.get("usage"), second.completion.get("usage"))
    return second.completion


class _NotJson(Exception):
    pass


class _Try:
    """A completion, and what of it matters here."""

    def __init__(self, completion: dict[str, Any]) -> None:
        self.completion = completion
        choice = completion["choices"][0]
        self.message: dict[str, Any] = choice.get("message") or {}
        said = self.message.get("content") or self.message.get("refusal")
        self.text = said if isinstance(said, str) else ""
        self.was_cut = choice.get("finish_reason") == "length"

    def json(self) -> Any:
        """The JSON in its text, of which nothing else is left in the message; raises _NotJson where there is none."""
        for text in (self.text, _bracketed(self.text)):
            try:
                found = json.loads(text, parse_constant=_no_json)
            except (ValueError, RecursionError):
                continue
            self.message["content"] = text.strip()
            return found
        raise _NotJson

    def failure(self, problem: str) -> BackendError:
        remedy = "try again, or use a larger model"
        if self.was_cut:
            problem, remedy = f"it was cut off at max_tokens, and {problem}", "raise max_tokens"
        name = self.completion.get("model") or "the chat model"
        return BackendError(
            f"{name} did not answer in the shape asked for ({problem}): {remedy}",
            details={"backend": "chat", "text": self.text, "problem": problem},
        )


class _Shape:
    """A JSON Schema, known to be one. Raises InvalidRequest."""

    def __init__(self, schema: dict[str, Any]) -> None:
        from jsonschema import Draft202012Validator
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.jsonschema import DRAFT202012

        registry: Registry[Any] = Registry()  # not the default, which fetches what a schema refers to
        root = DRAFT202012.create_resource(schema)
        try:
            with _about_the_schema():
                kind = validator_for(schema, default=Draft202012Validator)
                kind.check_schema(schema)
                _follow_references(root, registry.resolver_with_root(root))
                self._validator = kind(schema, registry=registry)
        except RecursionError:
            raise _no_schema(["schema"], "is nested too deeply") from None

    def problem_of(self, reply: _Try) -> str | None:
        """What is wrong with a reply, in a few words; None where it fits."""
        try:
            with _about_the_schema():
                found = islice(self._validator.iter_errors(reply.json()), 5)
                return "; ".join(f"{error.json_path}: {_short(error)}" for error in found) or None
        except _NotJson:
            return "it is not JSON"
        except RecursionError:
            return "it is nested too deeply"


def _follow_references(resource: Any, resolver: Any) -> None:
    """Raises referencing's Unresolvable for a $ref that leads nowhere."""
    resolver = resolver.in_subresource(resource)
    if isinstance(resource.contents, dict) and "$ref" in resource.contents:
        resolver.lookup(resource.contents["$ref"])
    for part in resource.subresources():
        _follow_references(part, resolver)


@contextmanager
def _about_the_schema() -> Iterator[None]:
    """Within this block, what jsonschema raises is about the caller's schema."""
    from jsonschema import SchemaError
    from referencing.exceptions import Unresolvable

    try:
        yield
    except (_NotJson, RecursionError):
        raise
    except SchemaError as error:
        raise _no_schema(["schema", *error.absolute_path], _short(error)) from error
    except Unresolvable as error:
        raise _no_schema(["schema"], f"the reference {error.ref!r} leads nowhere in it") from error
    except Exception as error:
        raise _no_schema(["schema"], f"cannot be used: {error}") from error


def _no_schema(place: list[str | int], reason: str) -> InvalidRequest:
    found = {"type": "json_schema", "loc": place, "msg": reason}
    return InvalidRequest(f"chat: {'.'.join(map(str, place))}: {reason}", details={"errors": [found]})


def _short(error: Any) -> str:
    return str(error.message)[:200]  # it quotes what it is about


def _bracketed(text: str) -> str:
    """From the first opening bracket to the last closing one."""
    start = min((text.find(bracket) for bracket in "{[" if bracket in text), default=0)
    return text[start : max(text.rfind("}"), text.rfind("]")) + 1]


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _in_words(schema: dict[str, Any]) -> str:
    return f"Answer with JSON only, that fits this JSON Schema: {json.dumps(schema, ensure_ascii=False)}"


def _adding(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    """The conversation with an instruction at its end: some models take no two messages of one role in a row."""
    last = messages[-1]
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": instruction}]
    said = last.get("content") or ""
    if isinstance(said, str):
        return [*messages[:-1], {**last, "content": f"{said}\n\n{instruction}"}]
    return [*messages[:-1], {**last, "content": [*said, {"type": "text", "text": instruction}]}]
