"""Server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html), as OpenAI's streams use them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from .errors import BackendError, LLMBackendError, StreamInterrupted

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any], number: int | None = None) -> bytes:
    """One event, ready to send; its number is what a reader who comes back sends as Last-Event-ID."""
    begin = b"" if number is None else b"id: %d\n" % number
    return begin + b"data: " + json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def events(chunks: AsyncIterator[bytes]) -> AsyncIterator[dict[str, Any]]:
    """The JSON of each event up to [DONE]; raises what an error event carries, StreamInterrupted at a sudden end."""
    buffer = b""
    async for chunk in chunks:
        buffer += chunk
        *complete, buffer = buffer.replace(b"\r\n", b"\n").split(b"\n\n")
        for block in complete:
            data = b"\n".join(line[5:].strip() for line in block.split(b"\n") if line.startswith(b"data:"))
            if not data:
                continue
            if data == b"[DONE]":
                return
            try:
                message = json.loads(data)
            except ValueError:
                message = None
            if not isinstance(message, dict):
                raise StreamInterrupted("the model's server sent something that is not an event")
            if "error" in message:
                said = message["error"]
                error = LLMBackendError.from_dict(said if isinstance(said, dict) else {"message": said})
                raise BackendError(error.message) if type(error) is LLMBackendError else error
            yield message
    raise StreamInterrupted("the model's stream ended before its last event")
