"""Splits documents by a project's own node parser instead of ours."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import llamaindex_import, threads
from ..engines.interface import Chunk
from ..files.syntax import BareText
from ..plugins import Part
from ..schemas import Document
from ..schemas.metadata import storable

if TYPE_CHECKING:
    from llama_index.core.schema import Document as LlamaIndexDocument


@dataclass(frozen=True)
class OwnParser:
    part: Part
    seconds: float
    """Seconds that the parser may take for a document."""
    chunk_size: int
    chunk_overlap: int
    """Used, like `chunk_size`, by parser classes that have such a field."""

    def digest(self, digest: str) -> str:
        """Add the parser and its version to a document's hash, so that another parser makes another version of it."""
        told = f"{digest}\0{self.part.name}\0{self.part.version}\0{self.chunk_size}\0{self.chunk_overlap}"
        return hashlib.sha256(told.encode()).hexdigest()[:32]

    async def split(self, document: Document | BareText, digest: str) -> list[Chunk]:
        """Return a document's chunks. Raises a BackendError that names the parser if it fails or returns something else."""
        await threads.files(llamaindex_import.load_with_sentences)
        parts: list[tuple[str, dict[str, Any], dict[str, Any]]]
        parts = await self.part.call(self.seconds, self._parts, document)
        return [
            Chunk(document.id, digest, number, len(parts), text, metadata, place)
            for number, (text, metadata, place) in enumerate(parts)
        ]

    def _parts(self, document: Document | BareText) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Return text, metadata and place of each chunk."""
        from llama_index.core.schema import BaseNode, MetadataMode
        from llama_index.core.schema import Document as LlamaIndexDocument

        from .nodes import given

        whole = LlamaIndexDocument(id_=document.id, text=document.text, metadata=dict(document.metadata))
        parts: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        for one in self._nodes(whole):
            if isinstance(one, str):
                text, metadata = one, dict(document.metadata)
            elif isinstance(one, BaseNode):
                text, metadata = one.get_content(MetadataMode.NONE), dict(one.metadata)
            else:
                raise TypeError(f"it returned a {type(one).__name__} among nodes and texts")
            if text.strip():
                stored = given({"text": text, "metadata": storable(metadata)})
                parts.append((text, stored["metadata"], stored["place"]))
        return parts

    def _nodes(self, document: LlamaIndexDocument) -> Any:
        made: Any = self.part.made
        if not self.part.is_class:
            return made(document)
        sizes = {"chunk_size": self.chunk_size, "chunk_overlap": self.chunk_overlap}
        known = {name: tokens for name, tokens in sizes.items() if name in made.model_fields}
        return made(**known).get_nodes_from_documents([document])
