"""The response object of a new request, in OpenAI's fields."""

from __future__ import annotations

import time
import uuid
from typing import Any

from ..errors import InvalidRequest, LLMBackendError, Overloaded
from ..schemas import RespondRequest, ResponseTool
from .openai_filters import ours

FOUND = 5
"""Passages that a file search returns by default."""


def failed(error: LLMBackendError) -> dict[str, Any]:
    """The fields of a failed response, with the error code that OpenAI's clients know."""
    if isinstance(error, Overloaded):
        code = "rate_limit_exceeded"
    else:
        code = "invalid_prompt" if isinstance(error, InvalidRequest) else "server_error"
    return {"status": "failed", "error": {"code": code, "message": error.message}}


def new_id() -> str:
    return f"resp_{uuid.uuid4().hex}"


def begun(request: RespondRequest, response_id: str, model: str) -> dict[str, Any]:
    """The response object of a new request: everything that was requested, and no output yet."""
    text: dict[str, Any] = {"format": {"type": "text"}}
    if request.text is not None:
        if (form := request.text.format) is not None:
            text["format"] = {"type": form.type}
            if form.type == "json_schema":
                text["format"] |= {
                    "name": form.name or "response",
                    "description": form.description,
                    "schema": form.schema_,
                    "strict": bool(form.strict),
                }
        if request.text.verbosity is not None:
            text["verbosity"] = request.text.verbosity
    reasoning = request.reasoning
    return {
        "id": response_id,
        "object": "response",
        "created_at": int(time.time()),
        "completed_at": None,
        "status": "queued" if request.background else "in_progress",
        "incomplete_details": None,
        "model": model,
        "previous_response_id": request.previous_response_id,
        "instructions": request.instructions,
        "output": [],
        "error": None,
        "tools": [_tool(tool) for tool in request.tools or ()],
        "tool_choice": _choice(request),
        "truncation": request.truncation,
        "parallel_tool_calls": request.parallel_tool_calls is not False,
        "text": text,
        "top_p": 1.0 if request.top_p is None else request.top_p,
        "presence_penalty": request.presence_penalty or 0.0,
        "frequency_penalty": request.frequency_penalty or 0.0,
        "top_logprobs": request.top_logprobs or 0,
        "temperature": 1.0 if request.temperature is None else request.temperature,
        "reasoning": {
            "effort": reasoning.effort if reasoning else None,
            "summary": reasoning.summary if reasoning else None,
        },
        "usage": None,
        "max_output_tokens": request.max_output_tokens,
        "max_tool_calls": request.max_tool_calls,
        "store": request.store,
        "background": request.background,
        "service_tier": "default",
        "metadata": request.metadata or {},
        "safety_identifier": request.safety_identifier,
        "prompt_cache_key": request.prompt_cache_key,
        "user": request.user,
    }


def _tool(tool: ResponseTool) -> dict[str, Any]:
    if tool.type == "function":
        return {name: getattr(tool, name) for name in ("type", "name", "description", "parameters", "strict")}
    if tool.type == "mcp":
        told = {name: getattr(tool, name) for name in ("type", "server_label", "require_approval")}
        return {**told, "allowed_tools": tool.names}
    ranking = tool.ranking_options
    return {
        "type": "file_search",
        "vector_store_ids": tool.vector_store_ids,
        "max_num_results": tool.max_num_results or FOUND,
        "ranking_options": {
            "ranker": (ranking.ranker if ranking else None) or "auto",
            "score_threshold": (ranking.score_threshold if ranking else None) or 0.0,
        },
        # OpenAI's clients expect their own form, in which ours cannot always be written.
        "filters": tool.filters if tool.filters and ours(tool.filters) != tool.filters else None,
    }


def _choice(request: RespondRequest) -> Any:
    choice = request.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    told = choice.model_dump(exclude_none=True)
    return {**told, "mode": choice.mode or "auto"} if choice.type == "allowed_tools" else told
