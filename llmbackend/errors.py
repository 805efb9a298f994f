"""The error tree is the SDK's (it must stand alone); the core raises the same classes, imported from here."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from itertools import takewhile
from typing import Any

from pydantic import BaseModel, ValidationError

from llm_client import (
    BackendError,
    BackendTimeout,
    Conflict,
    Forbidden,
    InsufficientStorage,
    InvalidRequest,
    JobExpired,
    LLMBackendError,
    MethodNotAllowed,
    NotFound,
    Overloaded,
    RequestTimeout,
    StreamInterrupted,
    TooLarge,
    TransportError,
    Unauthorized,
    position,
)

from .alike import alike, did_you_mean

__all__ = [
    "BackendError",
    "BackendTimeout",
    "Conflict",
    "Forbidden",
    "InsufficientStorage",
    "InvalidRequest",
    "JobExpired",
    "LLMBackendError",
    "MethodNotAllowed",
    "NotFound",
    "Overloaded",
    "RequestTimeout",
    "StreamInterrupted",
    "TooLarge",
    "TransportError",
    "Unauthorized",
    "as_json",
    "invalid",
    "position",
]


def as_json(error: LLMBackendError) -> dict[str, Any]:
    """Return an error as replies and streams carry it, readable by our SDK and by OpenAI's clients.

    Besides `{code, message, details, request_id}` it has OpenAI's `type`, and the wrong field as `param`.
    """
    places = [item["loc"] for item in error.details.get("errors", ())]
    # With several errors, their common prefix.
    place = takewhile(lambda parts: len(set(parts)) == 1, zip(*places, strict=False))
    if isinstance(error, Overloaded):
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {**error.to_dict(), "type": kind, "param": position([parts[0] for parts in place]) or None}


def invalid(error: ValidationError, what: str, fields: Iterable[str] = ()) -> InvalidRequest:
    """Turn pydantic's errors into an InvalidRequest that names each place. The input, which may be private, is not shown.

    `fields` are the names that the outermost object takes; a misspelt one is told which was meant.
    """
    found = json.loads(error.json(include_url=False, include_input=False))
    for item in found:
        item["msg"] = in_words(item["type"], item["msg"], item.pop("ctx", {}))
        *within, last = item["loc"] or [""]
        given = item["type"] == "extra_forbidden"  # then the place is the caller's own name
        item["loc"] = [part for part in within if not _names_a_type(part)]
        named = _names_a_type(last) or item["type"] in (f"{last}_type", f"{last}_parsing")
        item["loc"] += [last] if given or (last != "" and not named) else []
    # For a union, an error inside one type says more than that the input is not one of the others.
    within = {tuple(item["loc"][:end]) for item in found for end in range(len(item["loc"]))}
    within |= {tuple(item["loc"]) for item in found if item["type"] in ("value_error", "too_short")}
    found = [it for it in found if not it["type"].endswith("_type") or tuple(it["loc"]) not in within]
    found = _one_each(found)
    missing = [item["loc"] for item in found if item["type"] == "missing"]
    for item in found:
        if item["type"] == "extra_forbidden":
            *parent, name = item["loc"]
            taken = [str(one[-1]) for one in missing if one[:-1] == parent]
            near = alike(str(name), [*taken, *(() if parent else fields)])
            item["msg"] += f": {did_you_mean(near)}" if near else ""
    places = [
        f"{position(item['loc']) or 'body'}: {item['msg'].removeprefix('Value error, ')}" for item in found
    ]
    more = f" (and {len(places) - 5} more)" if len(places) > 5 else ""
    return InvalidRequest(f"{what}: {'; '.join(places[:5])}{more}", details={"errors": found[:50]})


def names_in(model: type[BaseModel]) -> list[str]:
    """The names of a model's fields, as they are sent."""
    return [field.alias or name for name, field in model.model_fields.items()]


_SHOULD = "Input should be "


def _one_each(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Join what each type of a union says of one value: it should be this or that."""
    first: dict[tuple[str | int, ...], dict[str, Any]] = {}
    kept = []
    for item in found:
        same = first.setdefault(tuple(item["loc"]), item)
        if same is item or not (same["msg"].startswith(_SHOULD) and item["msg"].startswith(_SHOULD)):
            kept.append(item)
        elif (other := item["msg"].removeprefix(_SHOULD)) not in same["msg"]:
            same["msg"] += f" or {other}"
    return kept


FORMS: dict[str, str] = {}
"""For each pattern that texts have to match, what such a text is, in words."""


def in_words(kind: str, message: str, context: Mapping[str, Any]) -> str:
    """What pydantic says of a value, in plainer words."""
    if kind == "string_pattern_mismatch":
        return f"should be {FORMS.get(context['pattern'], 'of another form')}"
    if kind in ("string_too_short", "too_short"):
        if context["min_length"] == 1:
            return "is empty"
        counted = "items" if context.get("field_type") in _COUNTED else "characters"
        return f"should have at least {context['min_length']} {counted}"
    return _IN_WORDS.get(kind, message)


_COUNTED = ("List", "Set", "Tuple", "Dictionary")
# Pydantic's own messages for these mention Python types, or do not say that the field can be left out.
_IN_WORDS = {
    "missing": "is missing, or None",
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
}


def _names_a_type(part: str | int) -> bool:
    """Return whether a part of a place is the name of a union's member, which pydantic adds and no caller knows."""
    return isinstance(part, str) and (part in ("str", "Document", "ToolChoice") or "[" in part or "-" in part)
