"""OpenAI's client, for any compatible server. Importing this module takes most of a second: do it in a
thread, when needed."""

from __future__ import annotations

import ssl
import sys
from collections.abc import AsyncIterator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx
import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from .. import json_writing
from ..sse import Events, Tail
from .upstream import CONNECTING, EVENT_BYTES, Upstream

# In the middle of a stream, openai 2 lets httpx's own exceptions through.
TIMEOUTS = (openai.APITimeoutError, httpx.TimeoutException)
UNREACHABLE = (openai.APIConnectionError, httpx.TransportError)

STREAM = 8
"""A stream may have this many times the bytes of a reply, because every word of it comes in an envelope."""

_HTTP: Any = sys.modules[openai.DefaultAsyncHttpxClient.__mro__[1].__module__.partition(".")[0]]
"""The httpx or httpx2 module, whichever this version of openai uses."""


class OpenAIClient(openai.AsyncOpenAI):
    """An OpenAI client that leaves retries and redirects to Upstream, and takes nothing from the environment.

    The key is always passed: otherwise the client would send OPENAI_API_KEY to the wrong server.
    """

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream

        async def count(reply: Any) -> None:
            events = reply.headers.get("content-type", "").startswith("text/event-stream")
            limit = upstream.reply_bytes * (STREAM if events else 1)
            if reply.headers.get("content-encoding", "identity") != "identity":
                raise upstream.errors.packed()
            reply.stream = _Counted(reply.stream, upstream, limit)

        super().__init__(
            base_url=upstream.url,
            api_key=upstream.secret or "none",
            timeout=openai.Timeout(upstream.timeout, connect=CONNECTING),
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                trust_env=False,
                cookies=CookieJar(
                    DefaultCookiePolicy(allowed_domains=())
                ),  # none: they would be shared by callers
                verify=ssl.create_default_context(),  # trusts the same authorities as aiohttp
                event_hooks={"response": [count]},
            ),
        )

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Headers that tell nothing about this machine, nor what the environment has for OpenAI
        (organization, project, …).

        Compression is refused, so that what is counted is what arrives.
        """
        return {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "Content-Type": "application/json",
        }

    async def complete(self, asked: dict[str, Any]) -> ChatCompletion:
        # `chat.completions.create` would transform what already has OpenAI's form, which takes 0.2 ms.
        sent = await json_writing.dumps(asked)  # the client would write a long one on the event loop
        return await self.post("/chat/completions", content=sent, cast_to=ChatCompletion)

    async def stream(self, asked: dict[str, Any]) -> tuple[openai.AsyncStream[ChatCompletionChunk], Tail]:
        """The chunks, and a Tail of the bytes read so far: the stream itself does not tell whether [DONE] came."""
        stream = await self.post(
            "/chat/completions",
            content=await json_writing.dumps(asked),
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=openai.AsyncStream[ChatCompletionChunk],
        )
        read, tail = stream.response.aiter_bytes, Tail()

        async def aiter_bytes() -> AsyncIterator[bytes]:
            events = Events()
            async for piece in read():
                if whole := events.feed(piece):
                    tail.add(whole)
                    yield whole
                elif events.held > EVENT_BYTES:
                    raise self._upstream.errors.too_large("an event", EVENT_BYTES)
            if last := events.last():
                tail.add(last)
                yield last

        stream.response.aiter_bytes = aiter_bytes  # type: ignore[method-assign, assignment]
        return stream, tail


class _Counted(_HTTP.AsyncByteStream):  # type: ignore[misc]
    """A reply's bytes as they come, up to a limit."""

    def __init__(self, stream: Any, upstream: Upstream, limit: int) -> None:
        self._stream = stream
        self._upstream = upstream
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = 0
        async for piece in self._stream:
            size += len(piece)
            if size > self._limit:
                raise self._upstream.errors.too_large("a reply", self._limit)
            yield piece

    async def aclose(self) -> None:
        await self._stream.aclose()
