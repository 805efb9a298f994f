"""Chat that passes through: a server's bytes are handed on as they come, by aiohttp.

That forwards several times as many calls a second as parsing replies and writing them again. Only what
OpenAI's clients would not understand is rewritten (see wire.py).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, suppress
from functools import partial
from typing import Any

from .. import json_reading, tracing
from ..sse import DONE, Tail, event
from .chat import OpenAICompatibleChat, interrupted, noted, plain
from .told_usage import StreamUsage, asks_in_pieces, note_unanswered
from .upstream import Upstream
from .wire import Deltas

_PATH = "/chat/completions"

# Signs of what may have to be rewritten: before it is known that a reply begins with words, and after that.
_SAYS = re.compile(rb'"(?:content|refusal)"\s*:\s*(?:"[^"]|[^"n\s])|"message"\s*:\s*\{')
_SAYS_IN_PARTS = re.compile(rb'"content"\s*:\s*[^"n\s]|"refusal"\s*:\s*"[^"]')
_CALLS = re.compile(rb'"tool_calls"\s*:\s*(?:\[\s*)?\{|"function_call"\s*:\s*\{')


class ForwardingChat(OpenAICompatibleChat):
    """An OpenAICompatibleChat for callers who pass replies on without reading them."""

    async def reply(self, request: dict[str, Any]) -> bytes:
        async def ask(upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int) -> bytes:
            unanswered = partial(note_unanswered, asked, tracing.current())
            said = await upstream.forward(_PATH, asked, deadline, retries, unanswered)
            with upstream.errors.translated():
                completion = noted(upstream, asked, await json_reading.reply(said))
                return json.dumps(completion).encode() if plain(completion) else said

        return await self._ask(request, ask, time.monotonic() + self._timeout)

    async def events(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        async def ask(
            upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int
        ) -> AsyncGenerator[bytes, None]:
            unanswered = partial(note_unanswered, asked, tracing.current())
            usage.in_pieces = asks_in_pieces(request, asked)
            return await upstream.stream(_PATH, asked, deadline, retries, unanswered)

        tail = Tail()
        usage = StreamUsage(request, tracing.current())
        rewriting = _Rewriting(several=(request.get("n") or 1) > 1)
        pieces = await self._ask({**request, "stream": True}, ask, time.monotonic() + self._timeout)
        try:
            async with aclosing(pieces):
                async for piece in pieces:
                    tail.add(piece)
                    if passed := usage.feed(piece):
                        yield rewriting.feed(passed)
        finally:
            usage.note()
        if rest := rewriting.rest():
            yield rest
        if not tail.finished:
            raise interrupted()
        if not tail.done:
            yield DONE


class _Rewriting:
    """Rewrites the events that OpenAI's clients would not understand, and leaves the others as they are."""

    def __init__(self, several: bool) -> None:
        self._deltas = Deltas()
        self._several = several  # choices, each of which may begin with reasoning

    def feed(self, events: bytes) -> bytes:
        if not self._concerns(events):
            return events
        return b"".join(self._each(events))

    def rest(self) -> bytes:
        rest = self._deltas.rest()
        return event(rest) if rest else b""

    def _concerns(self, events: bytes) -> bool:
        if self._several or _CALLS.search(events):
            return True
        if self._deltas.settled:
            return _SAYS_IN_PARTS.search(events) is not None
        # If something is held back, the next events complete it.
        return self._deltas.begun or _SAYS.search(events) is not None

    def _each(self, events: bytes) -> Iterator[bytes]:
        while events:
            one, _, events = events.partition(b"\n\n")
            data = one.removeprefix(b"data: ")
            if data == b"[DONE]":
                yield self.rest()
            settled = self._deltas.settled
            yield self._anew(data) or one + b"\n\n"
            if self._deltas.settled and not settled and not self._concerns(events):
                yield events
                return

    def _anew(self, data: bytes) -> bytes | None:
        with suppress(ValueError):
            chunk = json.loads(data)
            if isinstance(chunk, dict) and self._deltas.read(chunk):
                return event(chunk)
        return None
