"""A collection as a LlamaIndex index."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core import VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.chat_engine.types import BaseChatEngine, ChatMode
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.utils import LLMType
from llama_index.core.schema import BaseNode
from llama_index.core.storage.storage_context import StorageContext

from .embedding import BackendEmbedding
from .node_parser import ChunkNodeParser
from .vector_store import CollectionVectorStore


class CollectionIndex(VectorStoreIndex):
    """A VectorStoreIndex whose nodes are embedded by the collection, and whose engines use our chat model.

    Unless another splitter or mode is given, inserted documents are split like the collection's, and searches
    are hybrid.
    """

    def __init__(
        self,
        store: CollectionVectorStore,
        llm: LLM,
        embed_model: BackendEmbedding,
        node_parser: ChunkNodeParser,
        **kwargs: Any,
    ) -> None:
        self._llm = llm
        kwargs.setdefault("transformations", [node_parser])
        super().__init__(
            nodes=[],
            embed_model=embed_model,
            storage_context=StorageContext.from_defaults(vector_store=store),
            **kwargs,
        )

    def as_retriever(self, **kwargs: Any) -> BaseRetriever:
        return super().as_retriever(**{"vector_store_query_mode": "hybrid", **kwargs})

    def as_query_engine(self, llm: LLMType | None = None, **kwargs: Any) -> BaseQueryEngine:
        return super().as_query_engine(llm=llm or self._llm, **kwargs)

    def as_chat_engine(
        self, chat_mode: ChatMode = ChatMode.BEST, llm: LLMType | None = None, **kwargs: Any
    ) -> BaseChatEngine:
        return super().as_chat_engine(chat_mode=chat_mode, llm=llm or self._llm, **kwargs)

    def _get_node_with_embedding(
        self, nodes: Sequence[BaseNode], show_progress: bool = False
    ) -> list[BaseNode]:
        return list(nodes)

    async def _aget_node_with_embedding(
        self, nodes: Sequence[BaseNode], show_progress: bool = False
    ) -> list[BaseNode]:
        return list(nodes)
