"""The embedding model as a LlamaIndex embedding."""

from __future__ import annotations

from typing import Any, Literal

from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.bridge.pydantic import PrivateAttr

from llm_client import LLMBackendClient

from .calling import call


class BackendEmbedding(BaseEmbedding):
    """A client's `embed`, with the prompts that collections use for questions and for stored texts."""

    _client: LLMBackendClient = PrivateAttr()

    def __init__(self, client: LLMBackendClient, **fields: Any) -> None:
        super().__init__(**fields)
        self._client = client

    @classmethod
    def class_name(cls) -> str:
        return "BackendEmbedding"

    def _embed(self, texts: list[str], input_type: Literal["query", "passage"]) -> list[list[float]]:
        return list(self._client.embed(texts, input_type=input_type)) if texts else []

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._embed([query], "query")[0]

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return (await call(self._embed, [query], "query"))[0]

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._embed([text], "passage")[0]

    async def _aget_text_embedding(self, text: str) -> list[float]:
        return (await call(self._embed, [text], "passage"))[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return self._embed(texts, "passage")

    async def _aget_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return await call(self._embed, texts, "passage")
