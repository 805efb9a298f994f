"""A model's reply in a shape, about a text and the task's images. Before, the model may call the tools that
the caller named."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from ..errors import InvalidRequest
from ..inference.wire import takes_no_tools
from ..prompts import Prompt
from .llm import _arguments, given
from .run_state import Running
from .tooling import called, description, offered, parameters, use

ROUNDS = 8
"""The most replies that call tools; after them, the model has to answer."""


async def shaped_reply(
    run: Running, system: Prompt, text: str, schema: dict[str, Any], name: str
) -> dict[str, Any]:
    """Return the reply's data, which fits the schema. Raises what the chat model raises."""
    images = [{"type": "image_url", "image_url": {"url": url}} for url in run.request.images or ()]
    turns: list[dict[str, Any]] = [
        {"role": "system", "content": run.instructed(system.text)},
        {"role": "user", "content": [{"type": "text", "text": text}, *images] if images else text},
    ]
    request = {"messages": turns, "temperature": 0.0}
    await _with_tools(run, request, name, system.label)
    said = await run.chat(request, schema=schema, name=name, prompt=system.label)
    told: dict[str, Any] = json.loads(said["message"]["content"])
    return told


async def _with_tools(run: Running, request: dict[str, Any], name: str, prompt: str) -> None:
    """Let the model call tools; the calls and their results are added to the request's messages.

    This comes before the shaped reply, because the models of many servers do not call tools while a schema
    constrains them.
    """
    parts = {called(one): part for one, part in offered(run, ()).items()}
    tools = [
        {
            "type": "function",
            "function": {"name": one, "description": description(part), "parameters": parameters(part)},
        }
        for one, part in parts.items()
    ]
    for _ in range(ROUNDS if tools else 0):
        try:
            asked = {**request, "messages": list(request["messages"]), "tools": tools}
            said = await run.chat(asked, name=name, prompt=prompt)
        except InvalidRequest as error:
            if not takes_no_tools(error):
                raise
            run.notes.append(f"the model's server takes no tools ({error.message}): none was called")
            return
        calls = said["message"].get("tool_calls")
        if not calls:
            return
        outcomes = await asyncio.gather(
            *(
                use(
                    run,
                    parts,
                    one["function"].get("name") or "",
                    given(_arguments(one["function"].get("arguments"))),
                    str(one.get("id") or ""),
                )
                for one in calls
            )
        )
        request["messages"] += [
            said["message"],
            *(
                {"role": "tool", "tool_call_id": one.get("id"), "content": outcome.text}
                for one, outcome in zip(calls, outcomes, strict=True)
            ),
        ]
