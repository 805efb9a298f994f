"""Converts stored chunks to LlamaIndex's nodes and back.

The id of a node that is stored is kept in its chunk's metadata as `node_id`. Any other chunk becomes a node with the id
`<document>#<number>`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.schema import (
    BaseNode,
    MetadataMode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from ..errors import InvalidRequest

NODE_ID = "node_id"
_FOUND_IN = ("document_id", "collection")
"""Keys of a node's metadata that tell where it is stored; models do not see them."""


def node_id(chunk: Mapping[str, Any]) -> str:
    """Return the node id of a hit or a listed chunk."""
    return str(chunk["metadata"].get(NODE_ID) or f"{chunk['document_id']}#{chunk['chunk']}")


def node_of(chunk: Mapping[str, Any], collection: str, **more: Any) -> TextNode:
    """Turn a hit or a listed chunk into a node. `more` is added to its metadata, but hidden from models."""
    metadata = {name: value for name, value in chunk["metadata"].items() if name != NODE_ID}
    told = {"document_id": chunk["document_id"], "collection": collection, **more}
    hidden = [name for name in told if name not in metadata]
    return TextNode(
        id_=node_id(chunk),
        text=chunk["text"],
        metadata={**told, **metadata},
        excluded_embed_metadata_keys=hidden,
        excluded_llm_metadata_keys=hidden,
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id=chunk["document_id"])},
    )


def scored(hit: Mapping[str, Any], **more: Any) -> NodeWithScore:
    return NodeWithScore(node=node_of(hit, hit["collection"], **more), score=hit["score"])


def own_metadata(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """Return a node's metadata without the keys that tell where it is stored."""
    return {name: value for name, value in metadata.items() if name not in _FOUND_IN}


def chunk_of(node: BaseNode, document_id: str) -> dict[str, Any]:
    """Turn a node into a chunk of a document to ingest. Raises InvalidRequest for a node without text."""
    text = node.get_content(MetadataMode.NONE)
    if not text.strip():
        raise InvalidRequest(f"node {node.node_id!r} has no text", details={"node_id": node.node_id})
    metadata = dict(node.metadata)
    if metadata.get("document_id") == document_id:
        for name in _FOUND_IN:
            metadata.pop(name, None)
    stored = {"document_id": document_id, "text": text, "metadata": {**metadata, NODE_ID: node.node_id}}
    return given(stored)


def given(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a listed chunk into one to ingest, with its place (page, headings, sections) separate from its metadata."""
    metadata, place = dict(chunk["metadata"]), {}
    page = metadata.get("page")
    if type(page) is int and page > 0:
        place["page"] = metadata.pop("page")
    for name in ("headings", "sections"):
        titles = metadata.get(name)
        if titles and isinstance(titles, list) and all(isinstance(one, str) for one in titles):
            place[name] = metadata.pop(name)
    return {"text": chunk["text"], "metadata": metadata, "place": place}
