"""Chat models: they take and give OpenAI's JSON, whichever model answers."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, NamedTuple, TypeVar

from .. import tracing
from ..errors import BackendError, InvalidRequest, LLMBackendError, NotFound, Overloaded, StreamInterrupted
from ..settings import Settings
from ..sse import DONE, Tail, event
from . import media, responses_route, wire
from .budget import Turn
from .context_limits import overflow
from .fallback import ChatServer
from .told_usage import StreamUsage, asking, asks, asks_in_pieces, note, note_unanswered
from .upstream import RETRIES, Upstream

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

# Failures after which another server is asked.
_FAILURES = (BackendError, Overloaded)


class Window(NamedTuple):
    context: int
    """The most tokens that prompt and reply may have together."""

    passages: int
    """The most tokens of passages from which the model still answers well."""


class ChatModel(ABC):
    """Completes conversations, on the event loop. Requests, completions and chunks are OpenAI's JSON objects:

        await chat.complete({"messages": [{"role": "user", "content": "Hello"}]})
        -> {"choices": [{"message": {"role": "assistant", "content": "…"}, "finish_reason": "stop"}], "usage": {…}, …}

    Any number of calls may be under way. Whoever made the model closes it; whoever leaves a stream early
    closes it (`aclosing`).
    """

    abstracts: bool
    """Whether the model can put a text into its own words, and does not just copy from it."""

    sees = True
    """Whether messages may contain images."""

    @property
    @abstractmethod
    def name(self) -> str | None:
        """The model's name, as far as it is known without asking a server; None if it is not."""

    @abstractmethod
    async def models(self) -> list[str]:
        """The names that a request's `model` may have."""

    @abstractmethod
    async def window(self) -> Window:
        """How much the default model reads."""

    @abstractmethod
    async def deadline(self) -> float:
        """The time by which a call that begins now has to end, retries included, on the clock of `time.monotonic`."""

    @abstractmethod
    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
        """Return a chat.completion, by the deadline (`time.monotonic`).

        Raises InvalidRequest for what the model does not take (a prompt beyond its context, too), NotFound
        for a model that is not offered, BackendTimeout, Overloaded, and BackendError for any other failure of
        the server.
        """

    @abstractmethod
    def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the completion as chat.completion.chunk objects.

        Raises like `complete` before the first chunk, and StreamInterrupted if the stream breaks off later.
        """

    async def reply(self, request: dict[str, Any]) -> bytes:
        """The completion as JSON, to be passed on to a caller."""
        return json.dumps(await self.complete(request)).encode()

    async def events(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The stream as server-sent events, to be passed on to a caller; the last one is [DONE]."""
        async with aclosing(self.stream(request)) as chunks:
            async for chunk in chunks:
                yield event(chunk)
        yield DONE

    async def by_responses(
        self, model: str | None, messages: Sequence[dict[str, Any]], *, calls: bool = False
    ) -> ResponsesRoute | None:
        """The OpenAI-style responses route to use for this model; None if responses have to be made from chat
        completions.

        `calls` tells whether the model may call functions.
        """
        return None

    def servers(self) -> dict[str, str]:
        """The state of each server behind the model, by name: "ok", or that it failed recently."""
        return {}

    @abstractmethod
    async def close(self) -> None:
        """Release connections and models. Calls under way are stopped or fail."""


class ResponsesRoute:
    """The responses route of one server, for one model."""

    def __init__(self, server: ChatServer, model: str, deadline: float) -> None:
        self._server = server
        self._model = model
        self._deadline = deadline

    async def complete(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Return a response; None if the route failed or is gone, so that a chat completion can be tried
        instead.

        Raises like ChatModel.complete for everything else.
        """
        asked = {**request, "model": self._model}
        try:
            return await responses_route.complete(self._server.upstream, asked, self._deadline)
        except (NotFound, *_FAILURES) as error:
            self._failed(error)
            return None

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        """Yield a response's events, or none where `complete` would return None. Raises like ChatModel.stream."""
        chunks = responses_route.stream(
            self._server.upstream, {**request, "model": self._model}, self._deadline
        )
        begun = False
        async with aclosing(chunks):
            try:
                async for chunk in chunks:
                    begun = True
                    yield chunk
            except (NotFound, *_FAILURES) as error:
                if begun:
                    raise
                self._failed(error)

    def _failed(self, error: LLMBackendError) -> None:
        log.warning("%s; asking for a chat instead", error.message)
        if isinstance(error, NotFound):
            self._server.forget_responses()


def total(*usages: dict[str, Any] | None) -> dict[str, int]:
    """The sum of several calls' token counts, by name. Calls without usage are left out."""
    sums: dict[str, int] = {}
    for usage in usages:
        for name, count in (usage or {}).items():
            if isinstance(count, int):
                sums[name] = sums.get(name, 0) + count
    return sums


def window(context: int) -> Window:
    """The window of a model that makes good use of its context: passages get three eighths, the rest is for
    the others."""
    return Window(context, context * 3 // 8)


CONTEXT = 8192
"""The context that is assumed if neither the server nor CHAT_CONTEXT tells one."""

VLLM = "vLLM"
"""The name of a server of VLLM_URL, which can send a stream's usage with each chunk."""


class OpenAICompatibleChat(ChatModel):
    """vLLM, LiteLLM or any other OpenAI-compatible server, called with OpenAI's client.

    If there are several servers, the first one that offers the model is asked; if it fails before any part of
    a reply was passed on, the next. A server that failed is asked last until its cool-down is over.
    """

    abstracts = True

    def __init__(self, upstreams: Sequence[Upstream], settings: Settings) -> None:
        self._servers = [ChatServer(upstream, settings.chat_cool_down) for upstream in upstreams]
        self._timeout = settings.upstream_timeout
        self._context = settings.chat_context
        self._name = settings.chat_model
        self._by_responses = settings.responses_upstream
        self._private_media = settings.image_urls_private

    @property
    def name(self) -> str | None:
        return self._name or self._servers[0].first

    def servers(self) -> dict[str, str]:
        return {
            server.upstream.name: "failed recently, and is asked last" if server.resting else "ok"
            for server in self._servers
        }

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
                with suppress(LLMBackendError):  # the call itself will raise it
                    offered = await server.offered(time.monotonic() + server.LISTING)
                    return window(offered.get(self._name or server.first or "") or CONTEXT)
        return window(self._context or CONTEXT)

    async def by_responses(
        self, model: str | None, messages: Sequence[dict[str, Any]], *, calls: bool = False
    ) -> ResponsesRoute | None:
        if not self._by_responses:
            return None
        named = model or self._name
        server = (await self._in_order(named))[0]
        if not await server.has_responses():
            return None
        await media.check(messages, private=self._private_media)
        deadline = time.monotonic() + self._timeout
        named = named or await server.default(deadline)
        if calls and not await server.takes_tools(named):
            return None
        return ResponsesRoute(server, named, deadline)

    async def deadline(self) -> float:
        for server in self._servers:
            await server.upstream.openai()  # before the clock starts: the first time takes most of a second
        return time.monotonic() + self._timeout

    async def complete(self, request: dict[str, Any], deadline: float | None = None) -> dict[str, Any]:
        return await self._ask(request, _complete, deadline or await self.deadline())

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[dict[str, Any], None]:
        wanted = in_pieces = asks(request)

        async def ask(
            upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int
        ) -> AsyncGenerator[dict[str, Any], None]:
            nonlocal in_pieces
            in_pieces = asks_in_pieces(request, asked)
            return await _stream(upstream, asked, deadline, retries)

        chunks = await self._ask({**request, "stream": True}, ask, await self.deadline())
        async with aclosing(chunks):
            async for chunk in chunks:
                if not chunk.get("usage") or (in_pieces if chunk.get("choices") else wanted):
                    yield chunk
                elif chunk.get("choices"):
                    yield {name: value for name, value in chunk.items() if name != "usage"}

    async def _ask(
        self,
        request: dict[str, Any],
        ask: Callable[[Upstream, dict[str, Any], float, int], Awaitable[_Result]],
        deadline: float,
    ) -> _Result:
        """The answer of the first server that can give one, all within one deadline; raises the last server's
        error."""
        await media.check(request.get("messages") or (), private=self._private_media)
        named = request.get("model") or self._name
        servers = await self._in_order(named)
        while True:
            server = servers.pop(0)
            now = time.monotonic()
            until = now + (deadline - now) / (len(servers) + 1)  # leaves the others time if this one hangs
            try:
                asked = {**request, "model": named or await server.default(until)}
                if asked.get("stream") and server.tells_usage:
                    asked["stream_options"] = asking(asked, all_along=server.upstream.name == VLLM)
                elif not server.tells_usage:
                    asked.pop("stream_options", None)
                try:
                    return await ask(server.upstream, asked, until, 0 if servers else RETRIES)
                except NotFound:
                    # It may have been restarted with another model since its list was read.
                    if named is None and await server.default(until, fresh=True) != asked["model"]:
                        servers.insert(0, server)
                    elif not servers:
                        raise
                except InvalidRequest as error:
                    if server.tells_usage and asked.get("stream") and "stream_options" in error.message:
                        server.tells_usage = False
                        servers.insert(0, server)
                        continue
                    raise await overflow(error, server.upstream, asked, until) or error from error
            except _FAILURES as error:
                server.rest(error)
                if not servers:
                    raise
                log.warning("%s; asking %s instead", error.message, servers[0].upstream.name)

    async def _in_order(self, model: str | None) -> list[ChatServer]:
        """The servers to ask for a model: those that offer it, and of these, the ones that failed recently last."""
        able = self._servers
        if model is not None and len(able) > 1:  # a single server is simply asked
            patience = min(ChatServer.LISTING, self._timeout / 4)
            offers = await asyncio.gather(*(server.may_offer(model, patience) for server in able))
            able = [server for server, offer in zip(able, offers, strict=True) if offer]
        if not able:
            names = ", ".join(server.upstream.name for server in self._servers)
            raise NotFound(f"no model {model!r} on any of {names}", details={"model": model})
        return sorted(able, key=lambda server: server.resting)

    async def close(self) -> None:
        for server in self._servers:
            await server.upstream.close()


async def _complete(
    upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int
) -> dict[str, Any]:
    client = await upstream.openai()
    unanswered = partial(note_unanswered, asked, tracing.current())
    completion = await upstream.persist(partial(client.complete, asked), deadline, retries, 1, unanswered)
    with upstream.errors.translated():
        said = noted(upstream, asked, completion.to_dict(warnings=False))
        plain(said)
        return said


async def _stream(
    upstream: Upstream, asked: dict[str, Any], deadline: float, retries: int
) -> AsyncGenerator[dict[str, Any], None]:
    """Wait for the first chunk, then return all of them. The caller closes the result, whether it was read to
    the end or not."""
    client = await upstream.openai()

    async def begin(_: Turn | None) -> tuple[Any, Any, Tail]:
        stream, tail = await client.stream(asked)
        try:
            first = await anext(stream, None)
            if first is None and not tail.finished:
                raise upstream.errors.no_events()
        except BaseException:
            await stream.close()
            raise
        return stream, first, tail

    trace = tracing.current()
    unanswered = partial(note_unanswered, asked, trace)
    (stream, first, tail), turn = await upstream.begin(begin, deadline, retries, 1, unanswered)
    usage = StreamUsage(asked, trace)
    return _chunks(upstream, stream, first, tail, turn, usage)


async def _chunks(
    upstream: Upstream, stream: Any, chunk: Any, tail: Tail, turn: Turn | None, usage: StreamUsage
) -> AsyncGenerator[dict[str, Any], None]:
    trace = tracing.current()
    deltas = wire.Deltas()
    try:
        while chunk is not None:
            with upstream.errors.translated():
                said = chunk.to_dict(warnings=False)
                if not all(map(_is_piece, said.get("choices") or ())):
                    raise StreamInterrupted("the model's server sent something that is no chunk of a reply")
                deltas.read(said)
            usage.read(said)
            yield said
            with upstream.errors.translated(), trace.waiting():
                chunk = await anext(stream, None)
            await tracing.turn()
    finally:
        usage.note()
        await stream.close()  # this closes the connection, too, so that the server stops working
        if turn is not None:
            turn.end()
    if (rest := deltas.rest()) is not None:
        yield rest
    if not tail.finished:
        raise interrupted()


def _is_piece(choice: Any) -> bool:
    return isinstance(choice, dict) and isinstance(choice.get("delta") or {}, dict)


def noted(upstream: Upstream, asked: dict[str, Any], completion: dict[str, Any]) -> dict[str, Any]:
    """Record a completion's usage and return the completion; raises BackendError if it has no message."""
    choices = completion.get("choices")
    if choices is None and completion.get("error"):  # some servers refuse with status 200
        raise upstream.errors.gave_up(completion["error"])
    note(asked, completion, tracing.current())
    choices = completion["choices"]
    if not choices or not all(isinstance(choice["message"], dict) for choice in choices):
        raise BackendError(
            f"{upstream.name} at {upstream.url} answered without any message",
            details={"backend": upstream.name},
        )
    return completion


def plain(completion: dict[str, Any]) -> bool:
    """Rewrite a completion's messages in place as OpenAI would write them; return whether anything changed."""
    return any([wire.message(choice["message"]) for choice in completion["choices"]])


def interrupted() -> StreamInterrupted:
    """The error for a stream whose connection ended properly, but before the reply did."""
    return StreamInterrupted("the model's server ended its stream before the last event")
