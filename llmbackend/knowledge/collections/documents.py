"""Puts a document's text together again from its chunks, and deletes documents by their ids or by a filter."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import takewhile

from ... import threads
from ...chunks.sentence_splitter import units
from ...chunks.tokens import tokens_of
from ...engines.filters import Condition, conditions
from ...engines.interface import Chunk
from ...errors import NotFound
from ...pipeline import paged
from ...schemas import DeleteDocumentsRequest, DocumentsDeleted, StoredDocument
from .collection import Collection
from .unmet import unmet

PAGE = 1000
"""Chunks that are read at a time."""

LONGEST_TOKEN = 16
"""Most characters of a token in ordinary text."""

MOST_TOKENS = 8192
"""A sentence of up to so many tokens is not cut when tokens are counted: more than any overlap has."""

BETWEEN = "\n\n"
_END = re.compile(r"""[\n,.;:!?。？！)"'] *""")
"""Where a sentence or phrase ends; chunks are cut there."""


async def stored(collection: Collection, document_id: str) -> StoredDocument:
    """Return a document as it is stored. Raises NotFound.

    Its text is put together from its chunks, with an empty line between chunks that do not overlap, whatever white space
    the document had there.
    """
    pages = paged(lambda cursor: collection.passages(PAGE, cursor, [document_id]))
    chunks = {chunk.number: chunk async for page in pages for chunk in page.heads}
    if not chunks:
        raise NotFound(
            f"no document {document_id!r} in the collection {collection.name!r}: list_documents lists them",
            details={"document_id": document_id},
        )
    in_order = [chunks[number] for number in sorted(chunks)]
    return StoredDocument(
        id=document_id,
        text=await threads.processor(whole_text, in_order, collection.chunking[1]),
        metadata=in_order[0].metadata,
        chunks=len(in_order),
    )


async def delete(collection: Collection, asked: DeleteDocumentsRequest) -> DocumentsDeleted:
    """Delete documents; without any, note why filters may match nothing. Raises InvalidRequest for invalid filters."""
    where = conditions(asked.filters or asked.where or {})
    ids = asked.ids or await selected(collection, where)
    notes = [] if ids else await unmet([collection], where)
    return DocumentsDeleted(deleted=await collection.delete(ids, flush=True), notes=notes)


async def selected(collection: Collection, where: Sequence[Condition]) -> list[str]:
    """Return the ids of documents with a chunk that fits the conditions, without reading texts or metadata."""
    await collection.prepare(where)
    found: dict[str, None] = {}
    async for page in paged(lambda cursor: collection.ids(PAGE, cursor, where)):
        found |= dict.fromkeys(page.documents.values())
    return list(found)


def whole_text(chunks: Sequence[Chunk], overlap: int) -> str:
    """Join a document's chunks, given in order, into one text, with Markdown headings.

    Up to `overlap` tokens that the end of one chunk and the beginning of the next have in common are kept once.
    """
    parts: list[str] = []
    before: Chunk | None = None
    for chunk in chunks:
        above = before.headings if before else []
        new = chunk.headings != above
        shared = 0 if new or before is None else _shared(before.text, chunk.text, overlap)
        if new:
            pairs = zip(above, chunk.headings, strict=False)
            same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
            for depth, heading in enumerate(chunk.headings[same:], same + 1):
                parts.append(f"{BETWEEN if parts else ''}{'#' * depth} {heading}")
        parts.append(chunk.text[shared:] if shared else f"{BETWEEN if parts else ''}{chunk.text}")
        before = chunk
    return "".join(parts)


def _shared(before: str, text: str, overlap: int) -> int:
    """Return the length of the overlap in characters: whole sentences or phrases that end `before` and begin `text`."""
    text = text[: overlap * LONGEST_TOKEN]
    above = before[: max(0, len(before) - len(text))].rstrip(" ")
    ends = (len(before) - end.end() for end in _END.finditer(before, max(0, len(above) - 1)))
    lengths = [length for length in ends if 0 < length < len(text)]  # the longest first
    few = bisect_left(lengths, -overlap, key=lambda length: -_tokens(text[:length]))
    return next((length for length in lengths[few:] if before.endswith(text[:length])), 0)


def _tokens(shared: str) -> int:
    """Count tokens as the splitter does: by sentence, each with a space after it."""
    return sum(len(tokens_of(f"{unit.rstrip(' ')} ")) for unit in units(shared, MOST_TOKENS))
