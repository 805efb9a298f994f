"""Files into documents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import islice, takewhile

from ...schemas import Document, Failure, File
from ..chunks.syntax import ParsedDocument
from .decoding import Unreadable
from .pool import ParsingPool

IN_ADVANCE = 64
"""Files that are read, or wait to be, while the first of them is."""


async def from_files(
    pool: ParsingPool, files: Sequence[File]
) -> AsyncGenerator[Sequence[Document | Failure], None]:
    """A document, or why there is none, for each file in its turn: as many at a time as are there by then."""
    left = iter(files)
    reading = deque(asyncio.create_task(_from_file(pool, file)) for file in islice(left, IN_ADVANCE))
    try:
        while reading:
            await asyncio.wait([reading[0]])
            ready = [task.result() for task in takewhile(asyncio.Task.done, reading)]
            for _ in ready:
                reading.popleft()
            reading.extend(asyncio.create_task(_from_file(pool, file)) for file in islice(left, len(ready)))
            yield ready
    finally:
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)


async def _from_file(pool: ParsingPool, file: File) -> Document | Failure:
    try:
        parsed = await pool.parse(file.name, file.content)
    except Unreadable as error:
        return Failure(id=file.name, error=str(error))
    return ParsedDocument(
        id=file.name, text=parsed.text, metadata={"source": file.name}, syntax=parsed.syntax
    )
