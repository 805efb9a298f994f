"""The reranker as a LlamaIndex postprocessor."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import MetadataMode, NodeWithScore, QueryBundle

from llm_client import LLMBackendClient

from ..errors import InvalidRequest
from .calling import call


class BackendReranker(BaseNodePostprocessor):
    """A client's `rerank`: orders nodes by how well they answer the query, and keeps `top_n` of them, or all."""

    top_n: int | None = None
    model: str | None = None
    _client: LLMBackendClient = PrivateAttr()

    def __init__(self, client: LLMBackendClient, **fields: Any) -> None:
        super().__init__(**fields)
        self._client = client

    @classmethod
    def class_name(cls) -> str:
        return "BackendReranker"

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        if query_bundle is None:
            raise InvalidRequest("a reranker orders nodes by a query: give it one, as query_str=…")
        texts = [one.node.get_content(MetadataMode.EMBED) for one in nodes]
        # Empty texts answer nothing, and are left out.
        there = [number for number, text in enumerate(texts) if text.strip()]
        if not there:
            return nodes[: self.top_n]
        ranks = self._client.rerank(
            query_bundle.query_str,
            [texts[number] for number in there],
            top_n=None if self.top_n is None else min(self.top_n, len(there)),
            model=self.model,
        )
        return [NodeWithScore(node=nodes[there[one["index"]]].node, score=one["score"]) for one in ranks]

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return await call(self._postprocess_nodes, nodes, query_bundle)
