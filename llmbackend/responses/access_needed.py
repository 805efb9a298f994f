"""The access that a response needs: rights, collections and models, for `access.decision` to check."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..access.caller import Right
from ..access.decision import AccessNeeded, Asks, collections_in
from ..answers import rag_model
from ..plugins import AGENT


def access_needed(fields: Mapping[str, Any]) -> AccessNeeded:
    """The access needed by the fields of a RespondRequest, validated or not."""
    rights: list[Right] = []
    collections: list[str] = []
    models: list[tuple[Asks, str | None]] = []
    model = fields.get("model")
    if isinstance(model, str) and model.startswith(AGENT):
        rights.append("chat")
        models.append(("chat", None))  # the agent's own calls are checked one by one
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
    kinds = [_about(item).get("type") for item in (given if isinstance(given, list) else ())]
    decides = "mcp_approval_response" in kinds or (
        # The output of a function that an agent has called: the agent's run is a job.
        "function_call_output" in kinds and isinstance(model, str) and model.startswith(AGENT)
    )
    if fields.get("background") or decides:
        rights.append("jobs")
    return AccessNeeded(list(dict.fromkeys(rights)), list(dict.fromkeys(collections)), models)


def _about(thing: Any) -> dict[str, Any]:
    """The fields of an object or dict; unvalidated input may be anything, and then has none."""
    return thing if isinstance(thing, dict) else getattr(thing, "__dict__", {})
