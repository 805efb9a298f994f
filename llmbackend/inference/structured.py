"""Replies in the shape of a JSON Schema, by whichever chat model.

The model's server is told the schema (`response_format`), and what comes is checked all the same: few servers know all
of JSON Schema, and some take no notice of it. One that refuses it is asked in words instead. A reply that does not fit
is sent back once, with what is wrong. Of prose or a fence around an object or a list, only the JSON is kept.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn, Protocol

from .. import threads
from ..errors import BackendError, BackendTimeout, InvalidRequest, where
from ..prompts import prompt
from . import misfit
from .chat import total
from .references import may_explode


class Completes(Protocol):
    """A chat model, as far as it is needed here."""

    async def deadline(self) -> float: ...
    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]: ...


async def complete(chat: Completes, request: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
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

    def failure(self, problem: str, remedy: str = "try again, or use a larger model") -> BackendError:
        if self.was_cut:
            problem, remedy = f"it was cut off at max_tokens, and {problem}", "raise max_tokens"
        name = self.completion.get("model") or "the chat model"
        return BackendError(
            f"{name} did not answer in the shape asked for ({problem}): {remedy}",
            details={"backend": "chat", "text": self.text, "problem": problem},
        )


class _Shape:
    """A JSON Schema, known to be one. Raises InvalidRequest.

    What a schema asks for is looked for in linear time, and nothing outside of it is read.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        import jsonschema_rs

        self._schema = schema
        # Where a part is applied through several references, checking may take for ever.
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
        """What is wrong with a reply, in a few words; None where it fits."""
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
            f"{said}, or one of more than it may be: patterns are matched in linear time, without look-around, "
            "back-references and repetitions of thousands; write it without those, or check that yourself"
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
    return InvalidRequest(f"chat: {where(place)}: {reason}", details={"errors": [found]})


def _short(error: Any) -> str:
    return str(error.message)[: misfit.ERROR_CHARACTERS]  # it quotes what it is about


def _bracketed(text: str) -> str:
    """From the first opening bracket to the last closing one."""
    start = min((text.find(bracket) for bracket in "{[" if bracket in text), default=0)
    return text[start : max(text.rfind("}"), text.rfind("]")) + 1]


def _no_json(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not JSON")


def _in_words(schema: dict[str, Any]) -> str:
    return prompt("schema").filled(schema=json.dumps(schema, ensure_ascii=False))


def _adding(messages: list[dict[str, Any]], instruction: str) -> list[dict[str, Any]]:
    """The conversation with an instruction at its end: some models take no two messages of one role in a row."""
    last = messages[-1]
    if last["role"] != "user":
        return [*messages, {"role": "user", "content": instruction}]
    said = last.get("content") or ""
    if isinstance(said, str):
        return [*messages[:-1], {**last, "content": f"{said}\n\n{instruction}"}]
    return [*messages[:-1], {**last, "content": [*said, {"type": "text", "text": instruction}]}]
