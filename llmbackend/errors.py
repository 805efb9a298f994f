"""The error tree is the SDK's (it must stand alone); the core raises the same classes, imported from here."""

from __future__ import annotations

import json
from itertools import takewhile
from typing import Any

from pydantic import ValidationError

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
)

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
]


def as_json(error: LLMBackendError) -> dict[str, Any]:
    """The error as replies and streams carry it, in one shape that both our SDK and OpenAI's clients read.

    To `{code, message, details, request_id}` come OpenAI's `type`, and the field that is wrong as `param`.
    """
    places = [item["loc"] for item in error.details.get("errors", ())]
    # Of several, what they are all part of.
    place = takewhile(lambda parts: len(set(parts)) == 1, zip(*places, strict=False))
    if isinstance(error, Overloaded):
        kind = "rate_limit_error"
    else:
        kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {**error.to_dict(), "type": kind, "param": ".".join(str(parts[0]) for parts in place) or None}


def invalid(error: ValidationError, what: str) -> InvalidRequest:
    """Pydantic's findings as an InvalidRequest that names each place. The input is not echoed: it may be private."""
    found = json.loads(error.json(include_url=False, include_context=False, include_input=False))
    for item in found:
        item["msg"] = _OF_OBJECTS.get(item["type"], item["msg"])
        item["loc"] = [part for part in item["loc"] if not _names_a_type(part)]
    # Where one of several types may stand, what is wrong inside says more than that it is none of the others.
    within = {tuple(item["loc"][:end]) for item in found for end in range(len(item["loc"]))}
    found = [it for it in found if not it["type"].endswith("_type") or tuple(it["loc"]) not in within]
    for item in found:
        if item["type"] == "string_pattern_mismatch" and "\\x00-\\x1f" in item["msg"]:
            item["msg"] = "String should have no control characters"
    places = [
        f"{'.'.join(map(str, item['loc'])) or 'body'}: {item['msg'].removeprefix('Value error, ')}"
        for item in found
    ]
    more = f" (and {len(places) - 5} more)" if len(places) > 5 else ""
    return InvalidRequest(f"{what}: {'; '.join(places[:5])}{more}", details={"errors": found[:50]})


# In pydantic's words, these speak of Python.
_OF_OBJECTS = {
    "model_type": "Input should be an object",
    "dict_type": "Input should be an object",
    "list_type": "Input should be a valid array",
}


def _names_a_type(part: str | int) -> bool:
    """Where a field takes one of several types, pydantic adds which it tried; that says nothing to a caller."""
    return isinstance(part, str) and (part in ("str", "Document", "ToolChoice") or "[" in part or "-" in part)
