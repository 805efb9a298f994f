"""A collection as a LlamaIndex vector store."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Literal

from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import BaseNode
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)

from llm_client import ChunkInfo, LLMBackendClient

from ..chunks.nodes import NODE_ID, chunk_of, given, node_id, node_of
from ..errors import InvalidRequest, NotFound
from .calling import call
from .filters import filters_of

_MODES: dict[VectorStoreQueryMode, Literal["dense", "hybrid", "sparse"]] = {
    VectorStoreQueryMode.DEFAULT: "dense",
    VectorStoreQueryMode.HYBRID: "hybrid",
    VectorStoreQueryMode.SPARSE: "sparse",
    VectorStoreQueryMode.TEXT_SEARCH: "sparse",
}
_REFUSED = ("doc_ids", "alpha", "embedding_field", "mmr_threshold")
"""Fields of a query that collections do not support."""

NAMED_AT_ONCE = 500
"""The most nodes named in one filter, which may list 1,000 values."""
SENT_CHARACTERS = 2**22
"""About how many characters of nodes are sent in one request: far less than a server accepts."""
DELETED_AT_ONCE = 1000


class CollectionVectorStore(BasePydanticVectorStore):
    """The nodes of one collection. The nodes of a LlamaIndex document (`ref_doc_id`) are the chunks of one
    stored document.

    The collection embeds texts and queries with its own model; vectors of nodes and queries are not used.
    Added nodes join the stored ones of their document. A node replaces a stored one with the same id, or with
    the same text and metadata. Documents and the collection are created when they are first written.
    """

    collection: str
    is_embedding_query: bool = False
    stores_text: bool = True
    _client: LLMBackendClient = PrivateAttr()
    _changing: threading.Lock = PrivateAttr()

    def __init__(self, client: LLMBackendClient, changing: threading.Lock, **fields: Any) -> None:
        """`changing` is held while a document is read and written again, so that changes in this process take
        turns."""
        super().__init__(**fields)
        self._client = client
        self._changing = changing

    @classmethod
    def class_name(cls) -> str:
        return "CollectionVectorStore"

    @property
    def client(self) -> LLMBackendClient:
        return self._client

    # Writing

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store nodes; return their ids. Raises InvalidRequest for one without text, or with another model's
        vector."""
        self._check_vectors(nodes)
        documents: dict[str, list[dict[str, Any]]] = {}
        for node in nodes:
            name = node.ref_doc_id or node.node_id
            documents.setdefault(name, []).append(chunk_of(node, name))
        with self._changing:
            for part in _portions(documents):
                stored = self._stored(list(part))
                self._write({name: _merged(stored.get(name, []), new) for name, new in part.items()})
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        return await call(self.add, nodes)

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        self._client.delete_documents(self.collection, [ref_doc_id])

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        await call(self.delete, ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Remove nodes, and documents that have none left. Raises InvalidRequest if neither ids nor filters
        are given."""
        if node_ids is None and filters is None:
            raise InvalidRequest("delete_nodes: which? Give node_ids or filters; clear() removes all nodes")
        with self._changing:
            doomed = {node_id(one) for one in self._found(node_ids, filters)}
            names = {one["document_id"] for one in self._found(node_ids, filters)}
            for name, chunks in self._stored(sorted(names)).items():
                left = [one for one in chunks if node_id(one) not in doomed]
                if left:
                    self._write({name: [given(one) for one in left]})
                else:
                    self._client.delete_documents(self.collection, [name])

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
        **delete_kwargs: Any,
    ) -> None:
        await call(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Remove all nodes; the collection stays."""
        while documents := self._client.list_documents(self.collection, limit=DELETED_AT_ONCE):
            self._client.delete_documents(self.collection, [one["id"] for one in documents])

    async def aclear(self) -> None:
        await call(self.clear)

    # Reading

    def get_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
    ) -> list[BaseNode]:
        """The existing nodes among these ids, in their order; or those that match the filters; or all."""
        nodes = [node_of(one, self.collection) for one in self._found(node_ids, filters)]
        if node_ids is not None:
            place = {name: number for number, name in reversed(list(enumerate(node_ids)))}
            nodes.sort(key=lambda node: place[node.node_id])
        return list(nodes)

    async def aget_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | Mapping[str, Any] | None = None,
    ) -> list[BaseNode]:
        return await call(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Find the best nodes for a text. Raises InvalidRequest for a query without text, and for unsupported
        options."""
        mode = _MODES.get(query.mode)
        if mode is None:
            raise InvalidRequest(
                f"collections are not searched in mode {query.mode.value!r}: there are default, sparse and hybrid",
                details={"mode": query.mode.value},
            )
        for name in _REFUSED:
            if getattr(query, name) is not None:
                raise InvalidRequest(f"collections do not support {name} in a query", details={"field": name})
        if not query.query_str:
            raise InvalidRequest(
                "a collection is searched by a text, which its own model embeds, not by a vector: give query_str"
            )
        filters = filters_of(query.filters)
        if query.node_ids:
            these = {NODE_ID: list(query.node_ids)}
            filters = {"and": [these, filters]} if filters else these
        top_k = {
            "dense": query.similarity_top_k,
            "sparse": query.sparse_top_k or query.similarity_top_k,
            "hybrid": query.hybrid_top_k or query.similarity_top_k,
        }[mode]
        hits = self._client.rag_search(
            query.query_str, self.collection, top_k=top_k, filters=filters, mode=mode
        )
        nodes = [node_of(hit, self.collection) for hit in hits]
        return VectorStoreQueryResult(
            nodes=nodes, similarities=[hit["score"] for hit in hits], ids=[node.node_id for node in nodes]
        )

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        return await call(self.query, query)

    # Chunks

    def _check_vectors(self, nodes: Sequence[BaseNode]) -> None:
        vectors = {node.node_id: node.embedding for node in nodes if node.embedding is not None}
        if vectors:
            dimension = self._client.embed(["dimension"]).dimension
            for name, vector in vectors.items():
                if len(vector) != dimension:
                    raise InvalidRequest(
                        f"node {name!r} has a vector of {len(vector)} dimensions, made by another model than the "
                        f"collection's, which has {dimension}: leave the vector out, the collection embeds what it stores",
                        details={"node_id": name},
                    )

    def _write(self, documents: Mapping[str, list[dict[str, Any]]]) -> None:
        sent = [{"id": name, "chunks": chunks} for name, chunks in documents.items()]
        failed = self._client.rag_ingest(sent, self.collection, progress=False)["failed"]
        if failed:
            raise InvalidRequest(
                f"document {failed[0]['id']!r}: {failed[0]['error']}", details={"failed": list(failed)}
            )

    def _stored(self, names: Sequence[str]) -> dict[str, list[ChunkInfo]]:
        """The chunks of those of these documents that exist, in order."""
        try:
            found = [*self._client.list_chunks(self.collection, ids=names)] if names else []
        except NotFound:  # the collection does not exist yet
            return {}
        found = sorted(found, key=itemgetter("document_id", "chunk"))
        return {name: list(some) for name, some in groupby(found, itemgetter("document_id"))}

    def _found(
        self, node_ids: Sequence[str] | None, filters: MetadataFilters | Mapping[str, Any] | None
    ) -> list[ChunkInfo]:
        where = filters_of(filters)
        if node_ids is None:
            chunks = list(self._client.list_chunks(self.collection, filters=where))
            return sorted(chunks, key=itemgetter("document_id", "chunk"))
        found: dict[str, ChunkInfo] = {}
        for some in _slices(list(dict.fromkeys(node_ids)), NAMED_AT_ONCE):
            named: dict[str, Any] = {NODE_ID: some}
            listed = {"and": [named, where]} if where else named
            for one in self._client.list_chunks(self.collection, filters=listed):
                found[node_id(one)] = one
            # Chunks stored in other ways have ids made of their document's id and their place in it.
            others = {name.rpartition("#")[0] for name in some if name not in found and "#" in name}
            if others:
                for one in self._client.list_chunks(self.collection, ids=sorted(others), filters=where):
                    if node_id(one) in some:
                        found[node_id(one)] = one
        return list(found.values())


def _merged(stored: Sequence[Mapping[str, Any]], new: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """A document's chunks with the added ones: each replaces the stored one that is the same, or comes after
    all others.

    Two chunks are the same if they have the same id, or else the same content: splitting a document again
    gives nodes other ids.
    """
    chunks = [given(one) for one in stored]
    left = dict(enumerate(chunks))
    by_id = {one["metadata"].get(NODE_ID): number for number, one in left.items()}
    behind: dict[str, dict[str, Any]] = {}
    for added in new:
        name = added["metadata"][NODE_ID]
        place = by_id.get(name)
        if place is None:
            same = (number for number, one in left.items() if _content(one) == _content(added))
            place = next(same, None)
        if place is None:
            behind[name] = added
        else:
            chunks[place] = added
            left.pop(place, None)
    return [*chunks, *behind.values()]


def _content(chunk: Mapping[str, Any]) -> tuple[Any, ...]:
    metadata = {name: value for name, value in chunk["metadata"].items() if name != NODE_ID}
    return chunk["text"], metadata, chunk["place"]


def _portions(documents: dict[str, list[dict[str, Any]]]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Yield documents in portions of a suitable size for one request."""
    part: dict[str, list[dict[str, Any]]] = {}
    size = 0
    for name, chunks in documents.items():
        characters = sum(len(chunk["text"]) for chunk in chunks)
        if part and size + characters > SENT_CHARACTERS:
            yield part
            part, size = {}, 0
        part[name] = chunks
        size += characters
    if part:
        yield part


def _slices(items: list[str], most: int) -> Iterator[list[str]]:
    for start in range(0, len(items), most):
        yield items[start : start + most]
