"""What a response is about, for whoever decides whether its caller may have it: models, collections, jobs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..access.caller import Right
from ..access.decision import Asks, Wanted, collections_in
from ..knowledge.answers import rag_model

AGENT = "agent/"
"""Before an agent's name, where it is asked for as a model."""


def wanted(fields: Mapping[str, Any]) -> Wanted:
    """By the fields of a RespondRequest, checked or as they came."""
    rights: list[Right] = []
    collections: list[str] = []
    models: list[tuple[Asks, str | None]] = []
    model = fields.get("model")
    if isinstance(model, str) and model.startswith(AGENT):
        rights.append("chat")
        models.append(("chat", None))  # an agent's own calls are decided on one by one
    elif isinstance(model, str) and model.startswith(rag_model.PREFIX):
        rights.append("read")
        collections.append(model.removeprefix(rag_model.PREFIX))
    else:
        rights.append("chat")
        models.append(("chat", model if isinstance(model, str) else None))
    tools = fields.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        about = _about(tool)
        if about.get("type") == "file_search":
            rights.append("read")
            collections += collections_in(about.get("vector_store_ids"))
    given = fields.get("input")
    decides = any(
        _about(item).get("type") == "mcp_approval_response"
        for item in (given if isinstance(given, list) else ())
    )
    if fields.get("background") or decides:
        rights.append("jobs")
    return Wanted(list(dict.fromkeys(rights)), list(dict.fromkeys(collections)), models)


def _about(thing: Any) -> dict[str, Any]:
    """Its fields; unchecked, it may be anything."""
    return thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
