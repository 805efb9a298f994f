"""OpenAI's filters of a file search, as ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import InvalidRequest

_BOUNDS = ("gt", "gte", "lt", "lte")
_COMPARING = ("eq", "ne", *_BOUNDS, "in", "nin")


def ours(filters: Mapping[str, Any]) -> dict[str, Any]:
    """Translate `{"type": "eq", "key": …, "value": …}` and `{"type": "and", "filters": […]}`; return others unchanged.

    Raises InvalidRequest for an unknown `type` of a comparison.
    """
    match filters:
        case {"type": "and" | "or" as how, "filters": [*parts], **rest} if not rest:
            return {how: [ours(part) if isinstance(part, dict) else part for part in parts]}
        case {"type": how, "key": str() as key, "value": value, **rest} if not rest:
            return {key: _comparison(how, value)}
    return dict(filters)


def _comparison(how: Any, value: Any) -> Any:
    match how:
        case "eq" | "in":
            return value
        case "ne" | "nin":
            return {"not": value}
        case bound if bound in _BOUNDS:
            return {bound: value}
    raise InvalidRequest(f"filters: type is one of {', '.join(_COMPARING)}, and, or; not {how!r}")
