"""The search of collections as a LlamaIndex retriever."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.schema import NodeWithScore, QueryBundle
from llama_index.core.vector_stores.types import MetadataFilters

from llm_client import LLMBackendClient

from ..chunks.nodes import scored
from .calling import call
from .filters import filters_of


class CollectionRetriever(BaseRetriever):
    """A client's `rag_search` on one collection or several."""

    def __init__(
        self,
        client: LLMBackendClient,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.search: dict[str, Any] = {
            "collection": collection if isinstance(collection, str) else list(collection),
            "top_k": top_k,
            "mode": mode,
            "filters": filters_of(filters),
            "rerank": rerank,
            "min_score": min_score,
            "retriever": retriever,
            "postprocessors": postprocessors,
        }
        self._client = client

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        hits = self._client.rag_search(query_bundle.query_str, **self.search)
        return [scored(hit) for hit in hits]

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await call(self._retrieve, query_bundle)
