"""Documents into chunks, by LlamaIndex's sentence splitter: whole sentences, up to a number of tokens."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from typing import Any

from ..schemas import Document
from .vectors import Chunk

DEFAULT_SIZE, DEFAULT_OVERLAP = 256, 32


def content_hash(document: Document) -> str:
    """Tells versions of a document apart: text and metadata, whatever the order of its keys."""
    content = json.dumps([document.text, document.metadata], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def split(document: Document, digest: str, size: int, overlap: int) -> list[Chunk]:
    """A document's chunks, in order, each of at most `size` tokens; none for a text without words."""
    texts = [text for text in _split(document.text, size, overlap) if text.strip()]
    return [
        Chunk(document.id, digest, number, len(texts), text, document.metadata)
        for number, text in enumerate(texts)
    ]


def _split(text: str, size: int, overlap: int) -> list[str]:
    splitter = _splitter(size, overlap)
    # The splitter answers the same, and takes twice as long to find out.
    if len(splitter._tokenizer(text)) <= size:
        return [text.strip()]
    return list(splitter.split_text(text))


@lru_cache(maxsize=16)
def _splitter(size: int, overlap: int) -> Any:
    from llama_index.core.node_parser import SentenceSplitter

    return SentenceSplitter(chunk_size=size, chunk_overlap=overlap)
