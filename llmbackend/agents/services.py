"""The parts of the core that agents use: its operations, checked against the present rights of the caller's key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from .. import schemas
from ..access.register import Register
from ..files.pool import ParsingPool
from ..inference.cached_embedder import CachedEmbedder
from ..inference.chat import ChatModel
from ..inference.judge import Judge
from ..settings import Settings


class Operations(Protocol):
    """The core's operations that tools call. They check no rights: `Running.permitted` does, before each call."""

    async def rag_search(self, request: schemas.RagSearchRequest) -> schemas.SearchResult: ...
    async def rag_query(self, request: schemas.RagQueryRequest) -> schemas.QueryAnswer: ...
    async def list_collections(self, request: schemas.ListCollectionsRequest) -> schemas.CollectionList: ...
    async def list_documents(self, request: schemas.ListDocumentsRequest) -> schemas.DocumentList: ...
    async def get_document(self, request: schemas.GetDocumentRequest) -> schemas.StoredDocument: ...
    async def list_chunks(self, request: schemas.ListChunksRequest) -> schemas.ChunkList: ...
    async def analyze_document(self, request: schemas.AnalyzeRequest) -> schemas.Analysis: ...
    async def rerank(self, request: schemas.RerankRequest) -> schemas.RerankResponse: ...
    async def rag_ingest(self, request: schemas.RagIngestRequest) -> schemas.IngestReport: ...
    async def delete_documents(self, request: schemas.DeleteDocumentsRequest) -> schemas.DocumentsDeleted: ...
    async def delete_collection(self, request: schemas.CollectionRequest) -> schemas.CollectionDeleted: ...


@dataclass
class AgentServices:
    """The parts of the core that agents use."""

    operations: Operations = field(init=False)
    """Set later, because the operations are made after these services."""
    register: Register
    chat: ChatModel
    embedder: CachedEmbedder
    judge: Judge
    settings: Settings
    parsers: ParsingPool
    before: Callable[[schemas.RunAgentRequest], Awaitable[None]] = field(init=False)
    """Called before each run."""
