"""Pages of a collection's documents and chunks, as callers get them."""

from __future__ import annotations

from ... import schemas
from ...engines.filters import conditions
from .collection import Collection
from .unmet import unmet


async def documents(collection: Collection, asked: schemas.ListDocumentsRequest) -> schemas.DocumentList:
    page = await collection.documents(asked.limit, asked.cursor)
    found = [
        schemas.DocumentInfo.model_construct(id=head.document_id, chunks=head.total, metadata=head.metadata)
        for head in page.heads
    ]
    return schemas.DocumentList(documents=found, cursor=page.cursor)


async def chunks(collection: Collection, asked: schemas.ListChunksRequest) -> schemas.ChunkList:
    """Return a page of chunks; without any, notes why filters may match nothing. Raises InvalidRequest for invalid filters."""
    where = conditions(asked.filters)
    if where:
        await collection.prepare(where)
    page = await collection.passages(asked.limit, asked.cursor, asked.ids, where)
    found = [
        schemas.ChunkInfo.model_construct(
            document_id=chunk.document_id,
            chunk=chunk.number,
            text=chunk.text,
            metadata={**chunk.place, **chunk.metadata},
        )
        for chunk in page.heads
    ]
    nothing = not (found or asked.cursor or page.cursor)
    return schemas.ChunkList(
        chunks=found, cursor=page.cursor, notes=await unmet([collection], where) if nothing else []
    )
