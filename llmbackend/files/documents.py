"""Turns files into documents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import islice, takewhile

from pydantic import JsonValue

from ..schemas import Document, Failure, File
from .parsed import Unreadable
from .pool import ParsingPool
from .syntax import PART_OF, ParsedDocument

IN_ADVANCE = 64
"""Most files that are read or queued at the same time."""


async def from_files(
    pool: ParsingPool, files: Sequence[File]
) -> AsyncGenerator[tuple[int, Sequence[Document | Failure]], None]:
    """Yield the number of files read, and their documents or failures, in order, whenever some are ready."""
    left = iter(files)
    reading = deque(asyncio.create_task(_from_file(pool, file)) for file in islice(left, IN_ADVANCE))
    try:
        while reading:
            await asyncio.wait([reading[0]])
            done = [task.result() for task in takewhile(asyncio.Task.done, reading)]
            for _ in done:
                reading.popleft()
            reading.extend(asyncio.create_task(_from_file(pool, file)) for file in islice(left, len(done)))
            yield len(done), [document for documents in done for document in documents]
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def _from_file(pool: ParsingPool, file: File) -> list[Document | Failure]:
    """Return a file's document, then one for each readable file inside it, whose metadata names the outer one (PART_OF)."""
    try:
        found = await pool.parse(file.name, file.content)
    except Unreadable as error:
        return [Failure(id=file.name, error=str(error))]
    documents: list[Document | Failure] = []
    for name, parsed in found:
        if isinstance(parsed, Unreadable):
            documents.append(Failure(id=name, error=str(parsed)))
            continue
        metadata: dict[str, JsonValue] = {"source": name}
        if name != file.name:
            metadata[PART_OF] = file.name
        documents.append(
            ParsedDocument(
                id=name, text=parsed.text, metadata=metadata, syntax=parsed.syntax, warnings=parsed.warnings
            )
        )
    return documents
