"""OpenAI's client, of any server. Importing this takes most of a second, so do it in a thread, when it is needed."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from ..sse import Tail

# Amid a stream, openai 2 lets httpx's own through.
TIMEOUTS = (openai.APITimeoutError, httpx.TimeoutException)
UNREACHABLE = (openai.APIConnectionError, httpx.TransportError)


class OpenAIClient(openai.AsyncOpenAI):
    """Tries nothing again, and follows no redirect: Upstream decides on that. Of the environment it takes nothing.

    The key is always given, or it would send OPENAI_API_KEY to another's server.
    """

    def __init__(self, url: str, key: str | None, timeout: float, connecting: float) -> None:
        super().__init__(
            base_url=url,
            api_key=key or "none",
            timeout=openai.Timeout(timeout, connect=connecting),
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False,
                trust_env=False,
                verify=ssl.create_default_context(),  # with whichever authorities aiohttp trusts
            ),
        )

    @property
    def default_headers(self) -> dict[str, str | openai.Omit]:
        """Not what the environment has for OpenAI itself (organization, project, …), nor what this machine is."""
        return {"Accept": "application/json", "Content-Type": "application/json"}

    async def complete(self, asked: dict[str, Any]) -> ChatCompletion:
        # Not by `chat.completions.create`: that takes apart what is on OpenAI's wire already, which takes 0.2 ms.
        return await self.post("/chat/completions", body=asked, cast_to=ChatCompletion)

    async def stream(self, asked: dict[str, Any]) -> tuple[openai.AsyncStream[ChatCompletionChunk], Tail]:
        """The chunks, and the end of what has been read of them: the stream itself does not tell whether [DONE] came."""
        stream = await self.post(
            "/chat/completions",
            body=asked,
            cast_to=ChatCompletionChunk,
            stream=True,
            stream_cls=openai.AsyncStream[ChatCompletionChunk],
        )
        read, tail = stream.response.aiter_bytes, Tail()

        async def aiter_bytes() -> AsyncIterator[bytes]:
            async for piece in read():
                tail.add(piece)
                yield piece

        stream.response.aiter_bytes = aiter_bytes  # type: ignore[method-assign, assignment]
        return stream, tail
