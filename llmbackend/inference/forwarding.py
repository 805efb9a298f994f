"""Chat that passes through: what a server sends is handed on as bytes, by aiohttp, while it comes.

That forwards several times as many calls a second as reading replies and writing them anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from typing import Any

from .. import tracing
from ..sse import Tail
from .chat import OpenAICompatibleChat, interrupted, noted
from .upstream import Upstream

_PATH = "/chat/completions"


class ForwardingChat(OpenAICompatibleChat):
    """An OpenAICompatibleChat for callers who do not read replies, but send them on."""

    async def reply(self, request: dict[str, Any]) -> bytes:
        async def ask(upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int) -> bytes:
            said = await upstream.forward(_PATH, asked, deadline, retries)
            with upstream.translated():
                noted(upstream, json.loads(said))
            return said

        return await self._ask(request, ask, time.monotonic() + self._timeout)

    async def events(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        async def ask(
            upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int
        ) -> AsyncGenerator[bytes, None]:
            return await upstream.stream(_PATH, asked, deadline, retries)

        trace = tracing.current()
        tail = Tail()
        pieces = await self._ask({**request, "stream": True}, ask, time.monotonic() + self._timeout)
        async with aclosing(pieces):
            async for piece in pieces:
                tail.add(piece)
                yield piece
        if not tail.done:
            raise interrupted()
        if not tail.bytes.endswith((b"\n\n", b"\r\n\r\n")):
            yield b"\n\n"  # an event without its empty line is none
        trace.used(*_last_usage(tail.bytes))


def _last_usage(tail: bytes) -> tuple[str, dict[str, Any] | None]:
    """The model and the usage in a stream's last events, where it tells."""
    for line in reversed(tail.splitlines()):
        if b'"usage"' in line:
            with suppress(ValueError, AttributeError):
                chunk = json.loads(line.removeprefix(b"data:"))
                return chunk.get("model") or "", chunk.get("usage")
    return "", None
