"""Chat models: OpenAI's wire in, OpenAI's wire out, whatever answers behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator
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

    async def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        """A chat.completion object; raises an LLMBackendError."""

    def stream(self, request: dict[str, Any]) -> AsyncIterator[bytes]:
        """The completion as server-sent events, up to and with [DONE]; raises before the first or breaks off."""

    async def close(self) -> None: ...


class OpenAICompatibleChat:
    """vLLM, LiteLLM or anything else that speaks OpenAI's wire. Retries are the openai client's (two)."""

    abstracts = True

    def __init__(self, upstream: Upstream, settings: Settings) -> None:
        import openai

        self._upstream = upstream
        self.context = settings.chat_context
        self.passage_tokens = self.context * 3 // 8
        self._name = settings.chat_model
        # Passing a key, even an empty one, keeps the client from taking OPENAI_API_KEY to another's server.
        self._client = openai.AsyncOpenAI(
            base_url=upstream.url,
            api_key=upstream.secret or "none",
            timeout=settings.upstream_timeout,
            max_retries=2,
        )

    @property
    def name(self) -> str | None:
        return self._name

    async def models(self) -> list[str]:
        with self._upstream.translated():
            return [model.id async for model in await self._client.models.list()]

    async def complete(self, request: dict[str, Any]) -> dict[str, Any]:
        request = await self._with_model(request)
        with self._upstream.translated():
            completion = await self._client.chat.completions.create(**request)
            result: dict[str, Any] = completion.model_dump(mode="json", exclude_unset=True)
        if not result.get("choices"):
            raise BackendError(
                f"{self._upstream.name} at {self._upstream.url} answered without any choice",
                details={"backend": self._upstream.name},
            )
        return result

    async def stream(self, request: dict[str, Any]) -> AsyncIterator[bytes]:
        request = await self._with_model(request)
        with self._upstream.translated():
            # The upstream's bytes pass through unread: no piece is held back or written anew.
            async with self._client.chat.completions.with_streaming_response.create(
                **request, stream=True
            ) as response:
                async for chunk in response.iter_bytes():
                    yield chunk

    async def _with_model(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("model"):
            return request
        if self._name is None:
            offered = await self.models()
            if not offered:
                raise NotFound(
                    f"{self._upstream.name} at {self._upstream.url} offers no model",
                    details={"backend": self._upstream.name},
                )
            self._name = offered[0]
        return {**request, "model": self._name}

    async def close(self) -> None:
        await self._client.close()
