"""Assembling a model's replies within a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Any

from ..inference.chat import ChatModel, total

Say = Callable[[str, bool], None]
"""Takes a piece of the text, and whether it is the last."""


async def streamed(chat: ChatModel, asked: dict[str, Any], say: Say) -> dict[str, Any]:
    """Stream a reply; return `{message, model, usage, finish_reason}`, and pass each piece of text to `say`.

    Raises StreamInterrupted if it breaks off.
    """
    text, model, reason = "", "", None
    calls: dict[int, dict[str, Any]] = {}
    beside: dict[str, str] = {}
    usage: dict[str, int] = {}
    wanted = {**asked, "stream_options": {"include_usage": True}}
    async with aclosing(chat.stream(wanted)) as chunks:
        async for chunk in chunks:
            model = chunk.get("model") or model
            usage = total(chunk.get("usage")) or usage
            for choice in chunk.get("choices") or ():
                reason = choice.get("finish_reason") or reason
                delta = choice.get("delta") or {}
                if piece := delta.get("content"):
                    text += piece
                    say(piece, False)
                if thought := delta.get("reasoning_content"):
                    beside["reasoning_content"] = beside.get("reasoning_content", "") + thought
                for part in delta.get("tool_calls") or ():
                    call = calls.setdefault(
                        part.get("index") or 0,
                        {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
                    )
                    function = part.get("function") or {}
                    call["id"] = str(part.get("id") or call["id"])
                    call["function"]["name"] = str(function.get("name") or call["function"]["name"])
                    call["function"]["arguments"] += function.get("arguments") or ""
    say("", True)
    message: dict[str, Any] = {"role": "assistant", "content": text, **beside}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    return {"message": message, "model": model, "usage": usage, "finish_reason": reason}


def reply(said: dict[str, Any]) -> dict[str, Any]:
    choice = said["choices"][0]
    return {
        "message": choice["message"],
        "model": said.get("model") or "",
        "usage": total(said.get("usage")),
        "finish_reason": choice.get("finish_reason"),
    }


def ended_early(result: Mapping[str, Any]) -> str | None:
    """A note about a reply that was cut off or is empty; None if it is fine."""
    reason, message = result["finish_reason"], result["message"]
    if reason == "length":
        return "the model's reply was cut off at its token limit"
    if not (message.get("content") or "").strip() and not message.get("tool_calls"):
        return f"the model wrote nothing (finish_reason {reason!r})"
    return None
