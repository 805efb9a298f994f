"""Rewrites questions that depend on the conversation so far."""

from __future__ import annotations

from collections.abc import Sequence

from ..inference.chat import ChatModel, total
from ..prompts import prompt
from ..schemas import Message
from ..text.delimiters import as_data, delimited

TURNS = 6
TURN_CHARACTERS = 2000
QUESTION_TOKENS = 128


async def standalone(
    chat: ChatModel, question: str, history: Sequence[Message]
) -> tuple[str, dict[str, int]]:
    """Have the model rewrite a question to stand on its own; return that, and the token usage."""
    said = "\n".join(f"{turn.role}: {text(turn)[:TURN_CHARACTERS]}" for turn in history[-TURNS:])
    request = {
        "messages": [
            {"role": "system", "content": prompt("standalone").text},
            {
                "role": "user",
                "content": f"{delimited('conversation', said)}\nLast question: {as_data(question)}",
            },
        ],
        "max_tokens": QUESTION_TOKENS,
        "temperature": 0.0,
    }
    completion = await chat.complete(request)
    rewritten = (completion["choices"][0]["message"].get("content") or "").strip()
    return rewritten or question, total(completion.get("usage"))


def last_question(history: Sequence[Message]) -> str:
    """Return the user's last message; empty if there is none."""
    return next((text(turn) for turn in reversed(history) if turn.role == "user"), "")


def text(message: Message) -> str:
    """Return a message's text; if it has parts, its text parts joined by newlines."""
    if isinstance(message.content, str):
        return message.content
    return "\n".join(part.text or "" for part in message.content or [] if part.type == "text")
