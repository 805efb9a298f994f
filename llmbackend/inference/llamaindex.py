"""Our models as LlamaIndex sees them. Passing these explicitly keeps LlamaIndex from falling back to OpenAI."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    MessageRole,
)
from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.llms.llm import LLM

from .cache import CachedEmbedder, Role
from .chat import CONTEXT, ChatModel, total

_ASYNC_ONLY = "llmbackend's models are asynchronous: use the method of the same name that starts with 'a'"


class ChatAdapter(LLM):
    """A ChatModel as a LlamaIndex LLM. `usage` adds up the tokens of its calls, `model` tells who answered.

    `was_cut` is True once a reply has ended at its limit of tokens.
    """

    context: int = CONTEXT
    max_tokens: int = 256
    temperature: float = 0.0
    usage: dict[str, int] = Field(default_factory=dict)
    model: str = ""
    was_cut: bool = False
    _chat: ChatModel = PrivateAttr()

    def __init__(self, chat: ChatModel, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._chat = chat

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            context_window=self.context,
            num_output=self.max_tokens,
            is_chat_model=True,
            model_name=self._chat.name or "unknown",
        )

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        completion = await self._chat.complete(self._request(messages, kwargs))
        self._note(completion)
        text = completion["choices"][0]["message"].get("content") or ""
        return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), raw=completion)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        request = {**self._request(messages, kwargs), "stream_options": {"include_usage": True}}

        async def pieces() -> AsyncGenerator[ChatResponse, None]:
            text = ""
            async for chunk in self._chat.stream(request):
                self._note(chunk)
                for choice in chunk.get("choices") or ():
                    delta = (choice.get("delta") or {}).get("content") or ""
                    text += delta
                    message = ChatMessage(role=MessageRole.ASSISTANT, content=text)
                    yield ChatResponse(message=message, delta=delta, raw=chunk)

        return pieces()

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        response = await self.achat([ChatMessage(role=MessageRole.USER, content=prompt)], **kwargs)
        return CompletionResponse(text=response.message.content or "", raw=response.raw)

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        stream = await self.astream_chat([ChatMessage(role=MessageRole.USER, content=prompt)], **kwargs)

        async def pieces() -> AsyncGenerator[CompletionResponse, None]:
            async for response in stream:
                yield CompletionResponse(text=response.message.content or "", delta=response.delta)

        return pieces()

    def _request(self, messages: Sequence[ChatMessage], extra: dict[str, Any]) -> dict[str, Any]:
        turns = [{"role": message.role.value, "content": message.content or ""} for message in messages]
        return {
            "messages": turns,
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            **extra,
        }

    def _note(self, completion: dict[str, Any]) -> None:
        self.model = completion.get("model") or self.model
        self.usage = total(self.usage, completion.get("usage"))
        choices = completion.get("choices") or ()
        self.was_cut |= any(choice.get("finish_reason") == "length" for choice in choices)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        raise NotImplementedError(_ASYNC_ONLY)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        raise NotImplementedError(_ASYNC_ONLY)

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        raise NotImplementedError(_ASYNC_ONLY)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        raise NotImplementedError(_ASYNC_ONLY)


class EmbeddingAdapter(BaseEmbedding):
    """An embedder as a LlamaIndex embedding model, with its prompts for questions and for what is stored."""

    _embedder: CachedEmbedder = PrivateAttr()

    def __init__(self, embedder: CachedEmbedder, **kwargs: Any) -> None:
        super().__init__(model_name=embedder.name, **kwargs)
        self._embedder = embedder

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await self._embed(texts, "passage")

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await self._aget_text_embeddings([text]))[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await self._embed([query], "query"))[0]

    async def _embed(self, texts: list[str], role: Role) -> list[list[float]]:
        vectors: list[list[float]] = (await self._embedder.embed(texts, role=role)).values.tolist()
        return vectors

    def _get_text_embedding(self, text: str) -> list[float]:
        raise NotImplementedError(_ASYNC_ONLY)

    def _get_query_embedding(self, query: str) -> list[float]:
        raise NotImplementedError(_ASYNC_ONLY)
