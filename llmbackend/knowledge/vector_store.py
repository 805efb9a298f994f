"""A collection as a LlamaIndex vector store, so that LlamaIndex's own indexes and retrievers run on it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from anyio import CancelScope
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
from ..schemas.metadata import storable
from .chunks.chunking import content_hash
from .collections.collection import Collection
from .engines.filters import Combination, Condition, bounded, conditions
from .engines.interface import Chunk, Mode, fitting

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
_COMBINATIONS: dict[FilterCondition, Literal["all", "any", "none"]] = {
    FilterCondition.AND: "all",
    FilterCondition.OR: "any",
    FilterCondition.NOT: "none",
}


class CollectionStore(BasePydanticVectorStore):
    """Adds, queries and deletes nodes of one collection.

    Nodes added together that come from one LlamaIndex document (`ref_doc_id`) are the chunks of a document here, in
    their order; adding a document's nodes again replaces it.
    """

    _collection: Collection = PrivateAttr()
    _weight: float = PrivateAttr()

    def __init__(self, collection: Collection, weight: float = 0.3) -> None:
        """`weight` is what vectors count beside words in hybrid queries: the embedded model's, if not told."""
        super().__init__(stores_text=True)
        self._collection = collection
        self._weight = weight

    @property
    def client(self) -> Any:
        return self._collection.index

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        documents: dict[str, list[BaseNode]] = {}
        for node in nodes:
            documents.setdefault(node.ref_doc_id or node.node_id, []).append(node)
        chunks: list[Chunk] = []
        rows: list[list[float]] = []
        for name, parts in documents.items():
            for part in parts:
                _require_storable(part)
            texts = [part.get_content(MetadataMode.NONE) for part in parts]
            digest = content_hash(Document(id=name, text="\0".join(texts), metadata=parts[0].metadata))
            # As in ingest.py, a document's head goes last.
            for number in [*range(1, len(parts)), 0]:
                chunks.append(Chunk(name, digest, number, len(parts), texts[number], parts[number].metadata))
                rows.append(parts[number].get_embedding())
        index = self._collection.index
        versions = [(chunk.document_id, chunk.hash) for chunk in chunks if chunk.number == 0]
        vectors = fitting(
            rows, self._collection.manifest.dimension, lambda row: f"node {_node_id(chunks[row])!r}"
        )

        async def replace() -> None:
            async with self._collection.writing():
                await self._collection.run(index.upsert, chunks, vectors)
                await self._collection.run(index.keep_only, versions)
                await self._collection.run(index.flush)

        # In a task of its own: cancelled in between, by whatever means, it would leave two versions.
        replacing = asyncio.create_task(replace())
        try:
            await asyncio.shield(replacing)
        except asyncio.CancelledError:
            with CancelScope(shield=True):
                await asyncio.wait([replacing])
            raise
        return [_node_id(chunk) for chunk in chunks]

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        mode = _MODES.get(query.mode)
        if mode is None:
            raise InvalidRequest(f"collections are not searched in mode {query.mode.value!r}")
        vector = None
        if query.query_embedding is not None:
            dimension = self._collection.manifest.dimension
            vector = fitting([query.query_embedding], dimension, lambda _: "the query's vector")[0]
        where = bounded(_conditions(query.filters))
        await self._collection.prepare(where)
        found = await self._collection.run(
            lambda: self._collection.index.search(
                query.query_str or "",
                vector,
                mode=mode,
                top_k=query.similarity_top_k,
                conditions=where,
                weight=self._weight,
            )
        )
        nodes = [
            TextNode(
                id_=_node_id(chunk),
                text=chunk.text,
                metadata={**chunk.metadata, "document_id": chunk.document_id},
                excluded_llm_metadata_keys=["document_id"],
            )
            for chunk, _, _ in found
        ]
        return VectorStoreQueryResult(
            nodes=nodes,
            similarities=[score for _, score, _ in found],
            ids=[node.node_id for node in nodes],
        )

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        async with self._collection.writing():
            await self._collection.run(self._collection.index.delete, [ref_doc_id])
            await self._collection.run(self._collection.index.flush)

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        raise NotImplementedError("use async_add")

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        raise NotImplementedError("use aquery")

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        raise NotImplementedError("use adelete")


def _require_storable(node: BaseNode) -> None:
    try:
        storable(node.metadata, f"metadata of node {node.node_id!r}")
    except ValueError as error:
        raise InvalidRequest(str(error), details={}) from None


def _node_id(chunk: Chunk) -> str:
    return f"{chunk.document_id}#{chunk.number}"


def _conditions(filters: MetadataFilters | None) -> list[Condition]:
    if filters is None:
        return []
    found = [
        Combination("all", _field(item) if isinstance(item, MetadataFilter) else _conditions(item))
        for item in filters.filters
    ]
    return [Combination(_COMBINATIONS[filters.condition or FilterCondition.AND], list(found))]


def _field(item: MetadataFilter) -> list[Condition]:
    operator = item.operator
    if operator in (FilterOperator.EQ, FilterOperator.IN):
        return conditions({item.key: item.value})
    if operator in (FilterOperator.NE, FilterOperator.NIN):
        return conditions({item.key: {"not": item.value}})
    if operator == FilterOperator.IS_EMPTY:
        return conditions({item.key: {"exists": False}})
    if operator in _BOUNDS:
        return conditions({item.key: {_BOUNDS[operator]: item.value}})
    raise InvalidRequest(f"collections cannot filter by {operator.value!r}")
