"""Files into documents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from pathlib import PurePosixPath

from ..schemas import Document, Failure, File
from .parsing import Unreadable
from .parsing_pool import ParsingPool
from .structure import Syntax


class ParsedDocument(Document):
    """A document whose text comes from a file, in a syntax that its name does not tell."""

    syntax: Syntax


_SYNTAXES: dict[str, Syntax] = {".md": "markdown", ".markdown": "markdown", ".rst": "rst"}


def syntax(document: Document) -> Syntax:
    """How the document's text is marked up: as its id or its `source` ends, unless it was parsed."""
    if isinstance(document, ParsedDocument):
        return document.syntax
    for name in (document.id, document.metadata.get("source")):
        if isinstance(name, str) and (found := _SYNTAXES.get(PurePosixPath(name).suffix.lower())):
            return found
    return "plain"


async def from_files(pool: ParsingPool, files: Sequence[File]) -> AsyncGenerator[Document | Failure, None]:
    """A document, or why there is none, for each file in its turn; a few are read in advance."""
    waiting: deque[asyncio.Task[Document | Failure]] = deque()
    try:
        for file in files:
            waiting.append(asyncio.create_task(_from_file(pool, file)))
            if len(waiting) > 2 * pool.size:
                yield await waiting.popleft()
        while waiting:
            yield await waiting.popleft()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _from_file(pool: ParsingPool, file: File) -> Document | Failure:
    try:
        parsed = await pool.parse(file.name, file.content)
    except Unreadable as error:
        return Failure(id=file.name, error=str(error))
    return ParsedDocument(
        id=file.name, text=parsed.text, metadata={"source": file.name}, syntax=parsed.syntax
    )
