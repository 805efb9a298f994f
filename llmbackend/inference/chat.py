"""Chat models: OpenAI's wire in, OpenAI's wire out, whatever answers behind it."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any, Protocol

from ..errors import BackendError, NotFound
from ..settings import Settings
from .upstream import Upstream


class ChatModel(Protocol):
    """Completes conversations. Requests and completions are OpenAI's JSON objects."""

    context: int
    """How many tokens prompt and reply may have together."""

    passage_tokens: int
    """From how many tokens of passages it answers well."""

    abstracts: bool
    """Whether it can put a text into its own words, rather than only copy from it."""

    @property
    def name(self) -> str | None:
        """The model's name, as far as known without asking: None where there is none or none is known yet."""

    async def models(self) -> list[str]:
        """The names of the models that can be asked for."""

    async def complete(self, request: dict[str, Any]) -> bytes:
        """A chat.completion object, as JSON; raises an LLMBackendError."""

    def stream(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """The completion as server-sent events, up to and with [DONE]; raises before the first or breaks off."""

    async def close(self) -> None: ...


class OpenAICompatibleChat:
    """vLLM, LiteLLM or anything else that speaks OpenAI's wire: requests and replies pass through as bytes."""

    abstracts = True

    def __init__(self, upstream: Upstream, settings: Settings) -> None:
        self._upstream = upstream
        self.context = settings.chat_context
        self.passage_tokens = self.context * 3 // 8
        self._name = settings.chat_model

    @property
    def name(self) -> str | None:
        return self._name

    async def models(self) -> list[str]:
        with self._upstream.translated():
            return [str(model["id"]) for model in (await self._upstream.get("/models"))["data"]]

    async def complete(self, request: dict[str, Any]) -> bytes:
        completion = await self._upstream.forward("/chat/completions", await self._body(request))
        with self._upstream.translated():  # looked at, but handed on as it is
            if not json.loads(completion)["choices"]:
                raise BackendError(
                    f"{self._upstream.name} at {self._upstream.url} answered without any choice",
                    details={"backend": self._upstream.name},
                )
        return completion

    async def stream(self, request: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        body = await self._body({**request, "stream": True})
        async with aclosing(self._upstream.stream("/chat/completions", body)) as pieces:
            async for piece in pieces:
                yield piece

    async def _body(self, request: dict[str, Any]) -> bytes:
        return json.dumps({**request, "model": request.get("model") or await self._first()}).encode()

    async def _first(self) -> str:
        """CHAT_MODEL, or the first model that the server offers."""
        if self._name is None:
            offered = await self.models()
            if not offered:
                raise NotFound(
                    f"{self._upstream.name} at {self._upstream.url} offers no model",
                    details={"backend": self._upstream.name},
                )
            self._name = offered[0]
        return self._name

    async def close(self) -> None:
        await self._upstream.close()
