"""A collection as a LlamaIndex vector store, so that LlamaIndex's own indexes and retrievers run on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from ..errors import InvalidRequest
from ..schemas import Document
from .chunking import content_hash
from .collections import Collection
from .vectors import Chunk, Condition, Mode, conditions

_MODES: dict[VectorStoreQueryMode, Mode] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SPARSE: "sparse",
}
_BOUNDS = {
    FilterOperator.GT: "gt",
    FilterOperator.GTE: "gte",
    FilterOperator.LT: "lt",
    FilterOperator.LTE: "lte",
}


class CollectionStore(BasePydanticVectorStore):
    """Adds, queries and deletes nodes of one collection. Every node added counts as a document of one chunk."""

    _collection: Collection = PrivateAttr()

    def __init__(self, collection: Collection) -> None:
        super().__init__(stores_text=True)
        self._collection = collection

    @property
    def client(self) -> Any:
        return self._collection.index

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        chunks = []
        for node in nodes:
            text = node.get_content(MetadataMode.NONE)
            document = Document(id=node.node_id, text=text, metadata=node.metadata)
            chunks.append(Chunk(node.node_id, content_hash(document), 0, 1, text, node.metadata))
        vectors = np.asarray([node.get_embedding() for node in nodes], dtype=np.float32)
        async with self._collection.writing:
            await self._collection.run(self._collection.index.upsert, chunks, vectors)
            versions = [(chunk.document_id, chunk.hash) for chunk in chunks]
            await self._collection.run(self._collection.index.keep_only, versions)
        return [node.node_id for node in nodes]

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        mode = _MODES.get(query.mode)
        if mode is None:
            raise InvalidRequest(f"collections are not searched in mode {query.mode.value!r}")
        vector = (
            None if query.query_embedding is None else np.asarray(query.query_embedding, dtype=np.float32)
        )
        found = await self._collection.run(
            lambda: self._collection.index.search(
                query.query_str or "",
                vector,
                mode=mode,
                top_k=query.similarity_top_k,
                conditions=_conditions(query.filters),
            )
        )
        nodes = [
            TextNode(
                id_=f"{chunk.document_id}#{chunk.number}",
                text=chunk.text,
                metadata={**chunk.metadata, "document_id": chunk.document_id},
                excluded_llm_metadata_keys=["document_id"],
            )
            for chunk, _ in found
        ]
        return VectorStoreQueryResult(
            nodes=nodes,
            similarities=[score for _, score in found],
            ids=[node.node_id for node in nodes],
        )

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        async with self._collection.writing:
            await self._collection.run(self._collection.index.delete, [ref_doc_id])

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        raise NotImplementedError("use async_add")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        raise NotImplementedError("use aquery")

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        raise NotImplementedError("use adelete")


def _conditions(filters: MetadataFilters | None) -> list[Condition]:
    if filters is None:
        return []
    if filters.condition not in (None, FilterCondition.AND):
        raise InvalidRequest("collections combine filters with 'and' only")
    found: list[Condition] = []
    for item in filters.filters:
        if not isinstance(item, MetadataFilter):
            found += _conditions(item)
        elif item.operator in (FilterOperator.EQ, FilterOperator.IN):
            found += conditions({item.key: item.value})
        elif item.operator in _BOUNDS:
            found += conditions({item.key: {_BOUNDS[item.operator]: item.value}})
        else:
            raise InvalidRequest(f"collections cannot filter by {item.operator.value!r}")
    return found
