"""Files into documents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from itertools import islice, takewhile
from posixpath import splitext

from ..schemas import Document, Failure, File
from .decoding import Unreadable
from .parsing_pool import ParsingPool
from .structure import Syntax

IN_ADVANCE = 64
"""Files that are read, or wait to be, while the first of them is."""


class ParsedDocument(Document):
    """A document whose text comes from a file, in a syntax that its name does not tell."""

    syntax: Syntax


_SYNTAXES: dict[str, Syntax] = {".md": "markdown", ".markdown": "markdown", ".rst": "rst"}


def syntax(document: Document) -> Syntax:
    """How the document's text is marked up: as its id or its `source` ends, unless it was parsed."""
    if isinstance(document, ParsedDocument):
        return document.syntax
    for name in (document.id, document.metadata.get("source")):
        if isinstance(name, str) and (found := _SYNTAXES.get(splitext(name)[1].lower())):
            return found
    return "plain"


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
