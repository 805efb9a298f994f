"""Replies in the shape of a JSON Schema, from any chat model.

The model's server is given the schema (`response_format`), but the reply is checked anyway: few servers know
all of JSON Schema, and some ignore it. A server that refuses the schema is asked in words instead. A reply
that does not fit is sent back once, with what is wrong. Prose or a code fence around the JSON is removed.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, Protocol

from .. import threads
from ..errors import BackendError, BackendTimeout, InvalidRequest, position
from ..prompts import prompt
from . import misfit
from .chat import total
from .references import may_explode


class Completes(Protocol):
    """The part of ChatModel that is needed here."""

    async def deadline(self) -> float: ...
    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]: ...


async def complete(chat: Completes, request: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """Return a chat.completion whose content is JSON that fits the schema; its usage is that of all tries.

    If the request has tools, the reply may call them instead, and is returned as it is.

    Raises InvalidRequest if `schema` is no JSON Schema, BackendError for a reply that was cut off or does not
    fit at the second try (its details have the `text` and the `problem`), and whatever the chat model raises.
    """
    shape = await threads.processor(_Shape, schema)  # in a thread: large schemas would block the loop
    deadline = await chat.deadline()

    async def ask(asked: dict[str, Any]) -> tuple[_Try, str | None]:
        reply = _Try(await chat.complete(asked, deadline))
        if request.get("tools") and reply.message.get("tool_calls"):
            return reply, None
        return reply, await threads.processor(shape.problem_of, reply)

    # Not `strict`: OpenAI would refuse most schemas, and the reply is checked anyway.
    wanted = {"type": "json_schema", "json_schema": {"name": "reply", "schema": schema}}
    asked = {**request, "response_format": wanted}
    try:
        first, problem = await ask(asked)
    except InvalidRequest as refusal:
        if "context" in refusal.details:  # the prompt is too long, which has nothing to do with the schema
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
    except (InvalidRequest, BackendTimeout) as refusal:  # the conversation is too long now, or time is up
        raise failure from refusal
    if problem is not None:
        raise second.failure(problem)
    second.completion["usage"] = total(first.completion.get("usage"), second.completion.get("usage"))
    return second.completion


class _NotJson(Exception):
    pass


class _Try:
    """A completion, and those parts of it that matter here."""

    def __init__(self, completion: dict[str, Any]) -> None:
        self.completion = completion
        choice = completion["choices"][0]
        self.message: dict[str, Any] = choice.get("message") or {}
        said = self.message.get("content") or self.message.get("refusal")
        self.text = said if isinstance(said, str) else ""
        self.was_cut = choice.get("finish_reason") == "length"

    def json(self) -> Any:
        """The JSON in the reply; the message is reduced to its text. Raises _NotJson if there is none."""
        for text in (self.text, _bracketed(self.text)):
            try:
                found = json.loads(text, parse_constant=_no_json)
            except (ValueError, RecursionError):
                continue
            self.message["content"] = text.strip()
            return found
        raise _NotJson

    def failure(self, problem: str, remedy: str = "try again, or use a larger model") -> BackendError:
        if self.was_cut:
            problem, remedy = f"it was cut off at max_tokens, and {problem}", "raise max_tokens"
        name = self.completion.get("model") or "the chat model"
        return BackendError(
            f"{name} did not answer in the shape asked for ({problem}): {remedy}",
            details={"backend": "chat", "text": self.text, "problem": problem},
        )


class _Shape:
    """A valid JSON Schema, to check replies with. Raises InvalidRequest if it is not valid.

    Matching takes linear time, and nothing outside of the schema is read.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        import jsonschema_rs

        self._schema = schema
        # If parts are applied through several references, checking might take for ever.
        self._apart = may_explode(schema)
        try:
            self._validator = misfit.validator(schema)
        except jsonschema_rs.ValidationError as error:
            raise _no_schema(["schema", *error.instance_path], _reason(error)) from error
        except jsonschema_rs.ReferencingError as error:
            raise _no_schema(["schema"], _nowhere(error)) from error
        except RecursionError:
            raise _no_schema(["schema"], "is nested too deeply") from None
        except Exception as error:
            raise _no_schema(
                ["schema"], f"cannot be used: {str(error)[: misfit.ERROR_CHARACTERS]}"
            ) from error

    def problem_of(self, reply: _Try) -> str | None:
        """What is wrong with a reply, in a few words; None if it fits."""
        try:
            found = reply.json()
            if not self._apart:
                if self._validator.is_valid(found):
                    return None
                if len(reply.text) <= misfit.SHORT:
                    return misfit.told(self._validator, found)
            return misfit.told_apart(self._schema, found)
        except TimeoutError:
            raise reply.failure(
                "$: it takes too long to check", "let the schema refer to its parts less often"
            ) from None
        except misfit.CheckFailed as error:
            raise BackendError(
                f"chat: the process that checks replies failed ({error}): try again",
                details={"backend": "chat", "text": reply.text},
            ) from error
        except _NotJson:
            return "it is not JSON"
        except UnicodeEncodeError:
            return "it has half a character in it (a lone surrogate)"
        except (RecursionError, ValueError):
            return "it is nested too deeply"


def _reason(error: Any) -> str:
    said = _short(error)
    if said.endswith('is not a "regex"'):
        return (
            f"{said}, or too large a one: patterns are matched in linear time, without look-around, back-references or "
            "repetitions of thousands; write it without these, or check it yourself"
        )
    if "retriev" in said or said.startswith("Pointer"):
        return _nowhere(error)
    return said


def _nowhere(error: Any) -> str:
    return (
        f"a reference leads nowhere in it: {str(getattr(error, 'message', error))[: misfit.ERROR_CHARACTERS]}"
    )


def _no_schema(place: list[str | int], reason: str) -> InvalidRequest:
    found = {"type": "json_schema", "loc": place, "msg": reason}
    return InvalidRequest(f"chat: {position(place)}: {reason}", details={"errors": [found]})


def _short(error: Any) -> str:
    return str(error.message)[: misfit.ERROR_CHARACTERS]  # the message quotes the value, which may be long


def _bracketed(text: str) -> str:
    """The part of a text from its first opening bracket to its last closing one."""
    start = min((text.find(bracket) for bracket in "{[" if bracket in text), default=0)
    return text[start : max(text.rfind("}"), text.rfind("]")) + 1]


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _in_words(schema: dict[str, Any]) -> str:
    return prompt("schema").filled(schema=json.dumps(schema, ensure_ascii=False))


def _adding(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    """The conversation with an instruction added to its end. If the last message is a user's, the instruction
    goes into it, since some models refuse two messages of one role in a row."""
    last = messages[-1]
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": instruction}]
    said = last.get("content") or ""
    if isinstance(said, str):
        return [*messages[:-1], {**last, "content": f"{said}\n\n{instruction}"}]
    return [*messages[:-1], {**last, "content": [*said, {"type": "text", "text": instruction}]}]
