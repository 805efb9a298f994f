"""Our chunking as a LlamaIndex node parser."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from llama_index.core.bridge.pydantic import Field, model_validator
from llama_index.core.node_parser.interface import NodeParser
from llama_index.core.node_parser.node_utils import build_nodes_from_splits
from llama_index.core.schema import BaseNode, MetadataMode

from ..chunks.chunking import DEFAULT_OVERLAP, DEFAULT_SIZE, split
from ..errors import InvalidRequest
from ..files.parsed import Syntax
from ..files.syntax import ParsedDocument
from ..schemas import Document
from .calling import call

SYNTAX = "syntax"
"""The metadata field that tells how the text of a document read from a file is marked up."""


def _numbered(number: int, document: BaseNode) -> str:
    """A node's id, the same for the same document, so that storing its nodes again changes nothing."""
    return f"{document.node_id}#{number}"


def _document(node: BaseNode) -> Document:
    source = node.metadata.get("source") or node.metadata.get("file_name")
    fields: dict[str, Any] = {
        "id": node.node_id,
        "text": node.get_content(MetadataMode.NONE),
        "metadata": {"source": source} if isinstance(source, str) else {},
        "chunks": None,
    }
    syntax: Any = node.metadata.get(SYNTAX)
    if syntax in get_args(Syntax):
        return ParsedDocument.model_construct(**fields, syntax=syntax)
    return Document.model_construct(**fields)


class ChunkNodeParser(NodeParser):
    """Splits documents as `rag_ingest` does: at pages and headings first, then between sentences.

    `chunk_size` and `chunk_overlap` are in tokens. A node has its `page` and `headings` in its metadata, if
    it has any. Markdown and reStructuredText are recognized by the ending of the document's id, or of
    `source` in its metadata.
    """

    chunk_size: int = Field(DEFAULT_SIZE, ge=32, le=8192)
    chunk_overlap: int = Field(DEFAULT_OVERLAP, ge=0, le=4096)
    include_prev_next_rel: bool = True

    def __init__(self, **fields: Any) -> None:
        super().__init__(**{"id_func": _numbered, **fields})

    @model_validator(mode="after")
    def _overlaps_less_than_it_has(self) -> ChunkNodeParser:
        if self.chunk_overlap >= self.chunk_size:
            raise InvalidRequest(
                f"chunk_overlap ({self.chunk_overlap}) must be smaller than chunk_size ({self.chunk_size})"
            )
        return self

    @classmethod
    def class_name(cls) -> str:
        return "ChunkNodeParser"

    def _parse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        parsed: list[BaseNode] = []
        for node in nodes:
            chunks = split(_document(node), "", self.chunk_size, self.chunk_overlap)
            made = build_nodes_from_splits([one.text for one in chunks], node, id_func=self.id_func)
            for one, chunk in zip(made, chunks, strict=True):
                one.metadata = {**chunk.place, **one.metadata}
            parsed += made
        return parsed

    def _postprocess_parsed_nodes(
        self, nodes: list[BaseNode], parent_doc_map: dict[str, Any]
    ) -> list[BaseNode]:
        for node in super()._postprocess_parsed_nodes(nodes, parent_doc_map):
            node.metadata.pop(SYNTAX, None)
        return nodes

    async def _aparse_nodes(
        self, nodes: Sequence[BaseNode], show_progress: bool = False, **kwargs: Any
    ) -> list[BaseNode]:
        return await call(self._parse_nodes, nodes, show_progress)
