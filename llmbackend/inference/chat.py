"""Chat models: OpenAI's wire in, OpenAI's wire out, whatever answers behind it."""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from .. import tracing
from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound, Overloaded, StreamInterrupted
from ..settings import Settings
from .overflow import overflow
from .upstream import RETRIES, Upstream

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")


class Window(NamedTuple):
    context: int
    """How many tokens prompt and reply may have together."""

    passages: int
    """From how many tokens of passages the model answers well."""


class ChatModel(Protocol):
    """Completes conversations. Requests and completions are OpenAI's JSON objects."""

    timeout: float
    """Seconds that a call takes at most, with all that is asked again."""

    abstracts: bool
    """Whether it can put a text into its own words, rather than only copy from it."""

    @property
    def name(self) -> str | None:
        """The model's name, as far as known without asking: None where there is none or none is known yet."""

    async def models(self) -> list[str]:
        """The names of the models that can be asked for."""

    async def window(self) -> Window:
        """How much the model reads, where none is named."""

    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> bytes:
        """A chat.completion object, as JSON, by a time of `time.monotonic`; raises an LLMBackendError."""

    def stream(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The completion as server-sent events, up to and with [DONE]; raises before the first or breaks off."""

    async def close(self) -> None: ...


def window(context: int) -> Window:
    """Of a model that fills its context as it should: the rest is for instructions, conversation and reply."""
    return Window(context, context * 3 // 8)


CONTEXT = 8192
"""What a server's model is taken to read where neither it nor CHAT_CONTEXT tells."""

_PATH = "/chat/completions"
_DONE = re.compile(rb"data: ?\[DONE\]\s*$")
_TAIL = 2000  # bytes of a stream's end that hold its last two events: the usage, and [DONE]

# What another server may do better.
_FAILURES = (BackendError, Overloaded)


class OpenAICompatibleChat:
    """vLLM, LiteLLM or whatever speaks OpenAI's wire: requests and replies pass through as bytes.

    Of several servers, the first that offers the model is asked; where it fails, the next, before anything of a reply
    has been passed on. A server that failed is asked last until its cool-down is over.
    """

    abstracts = True

    def __init__(self, upstreams: Sequence[Upstream], settings: Settings) -> None:
        self._servers = [_Server(upstream, settings.chat_cool_down) for upstream in upstreams]
        self.timeout = settings.upstream_timeout
        self._context = settings.chat_context
        self._name = settings.chat_model

    @property
    def name(self) -> str | None:
        return self._name or self._servers[0].first

    async def models(self) -> list[str]:
        names: dict[str, None] = {}
        failure: LLMBackendError | None = None
        for server in self._servers:
            try:
                names.update(dict.fromkeys(await server.offered(fresh=True)))
            except LLMBackendError as error:
                failure = failure or error
        if not names and failure is not None:
            raise failure
        return list(names)

    async def window(self) -> Window:
        if self._context is None:
            for server in await self._in_order(None):
                with suppress(LLMBackendError):  # whoever asks something of it will hear of it
                    offered = await server.offered(time.monotonic() + server.LISTING)
                    return window(offered.get(self._name or server.first or "") or CONTEXT)
        return window(self._context or CONTEXT)

    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> bytes:
        async def ask(upstream: Upstream, body: bytes, deadline: float, retries: int) -> bytes:
            reply = await upstream.forward(_PATH, body, deadline, retries)
            with upstream.translated():  # looked at, but handed on as it is
                completion = json.loads(reply)
                choices = completion["choices"]
                if not choices or not all(isinstance(choice["message"], dict) for choice in choices):
                    raise BackendError(
                        f"{upstream.name} at {upstream.url} answered without any message",
                        details={"backend": upstream.name},
                    )
                tracing.current().used(completion.get("model") or "", completion.get("usage"))
            return reply

        return await self._ask(request, ask, deadline)

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        trace = tracing.current()
        tail = b""
        pieces = await self._ask({**request, "stream": True}, _stream)
        async with aclosing(pieces):
            async for piece in pieces:
                tail = (tail + piece)[-_TAIL:]
                yield piece
        if not _DONE.search(tail):
            # OpenAI's clients take a connection's end for the reply's: only an error event tells them otherwise.
            raise StreamInterrupted("the model's server ended its stream before the last event")
        if not tail.endswith((b"\n\n", b"\r\n\r\n")):
            yield b"\n\n"  # an event without its empty line is none
        trace.used(*_last_usage(tail))

    async def _ask(
        self,
        request: dict[str, Any],
        ask: Callable[[Upstream, bytes, float, int], Awaitable[_Result]],
        deadline: float | None = None,
    ) -> _Result:
        """What the first server answers that can, all within one deadline; raises what the last one said."""
        deadline = deadline or time.monotonic() + self.timeout
        named = request.get("model") or self._name
        servers = await self._in_order(named)
        while True:
            server = servers.pop(0)
            now = time.monotonic()
            until = now + (deadline - now) / (len(servers) + 1)  # one that hangs must leave the others time
            try:
                asked = {**request, "model": named or await server.default(until)}
                try:
                    return await ask(
                        server.upstream, json.dumps(asked).encode(), until, 0 if servers else RETRIES
                    )
                except NotFound:
                    # It may have been started with another model since its list was read.
                    if named is None and await server.default(until, fresh=True) != asked["model"]:
                        servers.insert(0, server)
                    elif not servers:
                        raise
                except InvalidRequest as error:
                    raise await overflow(error, server.upstream, asked, until) or error from error
            except _FAILURES as error:
                server.rest(error)
                if not servers:
                    raise
                log.warning("%s; asking %s instead", error.message, servers[0].upstream.name)

    async def _in_order(self, model: str | None) -> list[_Server]:
        """The servers to ask for a model: those that offer it, those that failed of late at the end."""
        able = self._servers
        if model is not None and len(able) > 1:  # one alone knows best itself
            patience = min(_Server.LISTING, self.timeout / 4)
            offers = await asyncio.gather(*(server.may_offer(model, patience) for server in able))
            able = [server for server, offer in zip(able, offers, strict=True) if offer]
        if not able:
            names = ", ".join(server.upstream.name for server in self._servers)
            raise NotFound(f"no model {model!r} on any of {names}", details={"model": model})
        return sorted(able, key=lambda server: server.resting)

    async def close(self) -> None:
        for server in self._servers:
            await server.upstream.close()


async def _stream(
    upstream: Upstream, body: bytes, deadline: float, retries: int
) -> AsyncGenerator[bytes, None]:
    return await upstream.stream(_PATH, body, deadline, retries)


def _last_usage(tail: bytes) -> tuple[str, dict[str, Any] | None]:
    """The model and the usage in a stream's last events, where it tells."""
    for line in reversed(tail.splitlines()):
        if b'"usage"' in line:
            with suppress(ValueError, AttributeError):
                chunk = json.loads(line.removeprefix(b"data:"))
                return chunk.get("model") or "", chunk.get("usage")
    return "", None


class _Server:
    """A server in the order: what it offers, and whether it is better left alone for now."""

    LIST_AGE = 60.0  # seconds after which an unknown model is looked for anew
    LISTING = 2.0  # seconds that a call may have to wait for this

    def __init__(self, upstream: Upstream, cool_down: float) -> None:
        self.upstream = upstream
        self._cool_down = cool_down
        self._rests_until = 0.0
        self._offered: dict[str, int | None] = {}
        self._read_at = -self.LIST_AGE

    @property
    def resting(self) -> bool:
        return time.monotonic() < self._rests_until

    def rest(self, failure: LLMBackendError) -> None:
        """Leave it alone: as long as it says, or for the cool-down."""
        self._rests_until = time.monotonic() + (failure.details.get("retry_after") or self._cool_down)

    @property
    def first(self) -> str | None:
        """The first model it offers, if it has been asked."""
        return next(iter(self._offered), None)

    async def default(self, deadline: float, *, fresh: bool = False) -> str:
        """The first model it offers; raises BackendError or Overloaded."""
        about = {"backend": self.upstream.name}
        try:
            offered = await self.offered(deadline, fresh=fresh)
        except (NotFound, InvalidRequest) as error:
            raise BackendError(
                f"{self.upstream.name} at {self.upstream.url} does not list its models: correct the URL, "
                f"or name one by CHAT_MODEL ({error.message})",
                details=about,
            ) from error
        if not offered:
            raise BackendError(
                f"{self.upstream.name} at {self.upstream.url} offers no model: start it with one",
                details=about,
            )
        return next(iter(offered))

    async def may_offer(self, model: str, patience: float) -> bool:
        """Whether to ask it for this model: unless it is known not to have it."""
        now = time.monotonic()
        if model not in self._offered and not self.resting and now >= self._read_at + self.LIST_AGE:
            self._read_at = now
            try:
                self._offered = await offered(self.upstream, now + patience, retries=0)
            except NotFound:
                pass  # it has no list
            except LLMBackendError as error:
                self.rest(error)
        return model in self._offered or not self._offered

    async def offered(self, deadline: float | None = None, *, fresh: bool = False) -> dict[str, int | None]:
        """The models it offers, with the tokens each takes where it tells."""
        if fresh or not self._offered:
            self._offered = await offered(self.upstream, deadline)
        return self._offered


async def offered(
    upstream: Upstream, deadline: float | None = None, retries: int = RETRIES
) -> dict[str, int | None]:
    """The models a server lists, with the tokens each takes where it tells."""
    with upstream.translated():
        listed = (await upstream.get("/models", deadline, retries))["data"]
        return {str(model["id"]): _context(model) for model in listed}


def _context(model: dict[str, Any]) -> int | None:
    context = model.get("max_model_len")  # vLLM's
    return context if isinstance(context, int) else None
