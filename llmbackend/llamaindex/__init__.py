"""A client's models, collections, parsers and answers as LlamaIndex's classes: `client.llamaindex`.

All of them only call the client's operations, so that they are the same in process and over HTTP. Synchronous
methods may be called anywhere, even on a running event loop; asynchronous ones do not block it. Reading and
splitting the caller's files and texts happens in this process.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ValidationError

from .. import llamaindex_import
from ..errors import NotFound, invalid
from ..inference.chat import CONTEXT

if TYPE_CHECKING:
    from llama_index.core.vector_stores.types import MetadataFilters

    from llm_client import LLMBackendClient

    from .embedding import BackendEmbedding
    from .index import CollectionIndex
    from .llm import BackendLLM
    from .node_parser import ChunkNodeParser
    from .query_engine import CollectionQueryEngine
    from .reader import FileReader
    from .reranker import BackendReranker
    from .retriever import CollectionRetriever
    from .vector_store import CollectionVectorStore

EMBEDDED_AT_ONCE = 512
"""How many texts LlamaIndex passes to the embedding model at a time."""


class Components:
    """Makes LlamaIndex's classes for one client. Their errors are the client's."""

    def __init__(self, client: LLMBackendClient) -> None:
        self._client = client
        self._changing: defaultdict[str, threading.Lock] = defaultdict(threading.Lock)

    def llm(
        self,
        model: str | None = None,
        *,
        temperature: float | None = None,
        max_tokens: int | None = None,
        context_window: int | None = None,
        function_calling: bool | None = None,
    ) -> BackendLLM:
        """The chat model as an LLM that calls tools (`FunctionCallingLLM`).

        The context window (in tokens) and whether the model takes tools (`function_calling`) are asked from
        the backend unless given.
        """
        llamaindex_import.load()
        from .llm import BackendLLM

        if context_window is None or function_calling is None:
            known = [one for one in self._client.models() if one["type"] == "chat"]
            here = [one for one in known if one["id"] == model] or known
            windows = [one["context_window"] for one in (here if model else known) if one["context_window"]]
            context_window = context_window or (windows[0] if windows else CONTEXT)
            if function_calling is None:
                function_calling = bool(here and here[0]["tools"])
        with _refusing("llm"):
            return BackendLLM(
                self._client,
                model=model,
                temperature=temperature,
                max_tokens=max_tokens,
                context_window=context_window,
                function_calling=function_calling,
            )

    def embed_model(self) -> BackendEmbedding:
        """The embedding model (`BaseEmbedding`)."""
        llamaindex_import.load()
        from .embedding import BackendEmbedding

        name = self._client.health()["embeddings"]
        return BackendEmbedding(self._client, model_name=name, embed_batch_size=EMBEDDED_AT_ONCE)

    def reranker(self, *, top_n: int | None = None, model: str | None = None) -> BackendReranker:
        """The reranker, as a postprocessor that orders nodes (`BaseNodePostprocessor`)."""
        llamaindex_import.load()
        from .reranker import BackendReranker

        with _refusing("reranker"):
            return BackendReranker(self._client, top_n=top_n, model=model)

    def node_parser(
        self, *, chunk_size: int | None = None, chunk_overlap: int | None = None
    ) -> ChunkNodeParser:
        """The splitting of `rag_ingest` (`NodeParser`)."""
        llamaindex_import.load()
        from .node_parser import ChunkNodeParser

        given = {"chunk_size": chunk_size, "chunk_overlap": chunk_overlap}
        with _refusing("node_parser"):
            return ChunkNodeParser(**{name: tokens for name, tokens in given.items() if tokens is not None})

    def reader(self, *, raise_on_error: bool = True) -> FileReader:
        """The reading of `rag_ingest_files` (`BaseReader`). It runs in this process, whatever the client's
        transport."""
        llamaindex_import.load()
        from ..files.pool import Limits
        from ..settings import load
        from .reader import FileReader

        settings = load()
        limits = Limits(settings.file_seconds, settings.file_memory_mb * 2**20)
        return FileReader(limits, raise_on_error=raise_on_error)

    def vector_store(self, collection: str) -> CollectionVectorStore:
        """A collection as a vector store (`BasePydanticVectorStore`).

        LlamaIndex's IngestionPipeline only passes nodes with vectors to it, so `embed_model()` must be the
        pipeline's last step.
        """
        llamaindex_import.load()
        from .vector_store import CollectionVectorStore

        return CollectionVectorStore(self._client, self._changing[collection], collection=collection)

    def index(self, collection: str, **options: Any) -> CollectionIndex:
        """A collection as a `VectorStoreIndex`, with our models; `options` are LlamaIndex's."""
        llamaindex_import.load()
        from .index import CollectionIndex

        try:
            made = self._client.get_collection(collection)
            parser = self.node_parser(chunk_size=made["chunk_size"], chunk_overlap=made["chunk_overlap"])
        except NotFound:  # the first insertion creates the collection
            parser = self.node_parser()
        return CollectionIndex(
            self.vector_store(collection), self.llm(), self.embed_model(), parser, **options
        )

    def retriever(
        self,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
    ) -> CollectionRetriever:
        """The search of `rag_search` (`BaseRetriever`); `filters` are LlamaIndex's or ours."""
        llamaindex_import.load()
        from .retriever import CollectionRetriever

        return CollectionRetriever(
            self._client,
            collection,
            top_k=top_k,
            mode=mode,
            filters=filters,
            rerank=rerank,
            min_score=min_score,
            retriever=retriever,
            postprocessors=postprocessors,
        )

    def query_engine(
        self,
        collection: str | Sequence[str],
        *,
        top_k: int = 5,
        mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        rerank: bool | str = False,
        min_score: float | None = None,
        retriever: str | None = None,
        postprocessors: Sequence[str] | None = None,
        history: Sequence[Mapping[str, Any]] | None = None,
        explain: bool = False,
        streaming: bool = False,
    ) -> CollectionQueryEngine:
        """The answers of `rag_query`, with their citations (`BaseQueryEngine`)."""
        sources = self.retriever(
            collection,
            top_k=top_k,
            mode=mode,
            filters=filters,
            rerank=rerank,
            min_score=min_score,
            retriever=retriever,
            postprocessors=postprocessors,
        )
        from .query_engine import CollectionQueryEngine

        return CollectionQueryEngine(
            self._client,
            sources,
            self.llm(),
            streaming=streaming,
            history=history,
            explain=explain,
        )


@contextmanager
def _refusing(what: str) -> Iterator[None]:
    """Raise what pydantic says of wrong arguments as an InvalidRequest."""
    try:
        yield
    except ValidationError as error:
        raise invalid(error, what) from error
