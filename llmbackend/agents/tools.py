"""The built-in tools. Those that write can only be used by runs that name them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field

from .. import schemas
from ..answers.citations import citing_nothing
from ..errors import InvalidRequest, NotFound
from ..plugins import tool
from ..schemas import Hit, Source
from ..text.delimiters import delimited
from .calculation import calculated
from .run_state import Running
from .tooling import ToolResult

Texts = Annotated[list[str], Field(min_length=1, max_length=64)]

READ_CHARACTERS = 12_000
"""About how many characters of a document `read_document` returns at a time."""


async def _among(run: Running, names: Sequence[str] | None) -> list[str]:
    """The collections meant: those named, or else all that the run may read (at most 32). Raises
    InvalidRequest, NotFound."""
    may = await run.readable()
    if not names:
        if not may:
            raise NotFound("there is no collection that this run may read")
        return may[:32]
    for name in names:
        if name not in may:
            raise InvalidRequest(f"this run may read {', '.join(may) or 'no collection'}; not {name!r}")
    return list(names)


def passages(sources: Sequence[Source | Hit]) -> str:
    """Passages as a model reads them: data between tags that the texts cannot close."""
    return "\n\n".join(
        delimited(
            "passage",
            citing_nothing(one.text),
            **({"number": one.number} if isinstance(one, Source) else {}),
            collection=one.collection,
            document=_attribute(one.document_id),
        )
        for one in sources
    )


def _attribute(text: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "._-/ " else "_" for letter in text)[:200]


@tool("search")
async def search(
    run: Running,
    query: Annotated[str, Field(min_length=1, max_length=32_768)],
    collections: list[str] | None = None,
    top_k: Annotated[int, Field(ge=1, le=50)] = 5,
    mode: Literal["hybrid", "dense", "sparse"] = "hybrid",
) -> ToolResult:
    """Find the passages of documents that fit a query best. Each has a number: cite it in brackets, as in [3]."""
    names = await _among(run, collections)
    with await run.permitted(("read",), names):
        found = await run.services.operations.rag_search(
            schemas.RagSearchRequest(query=query, collection=names, top_k=top_k, mode=mode)
        )
    sources = run.cite(found.hits)
    text = passages(sources) if sources else "Nothing was found."
    return ToolResult([one.model_dump() for one in sources], text)


@tool("query")
async def query(
    run: Running,
    question: Annotated[str, Field(min_length=1, max_length=32_768)],
    collections: list[str] | None = None,
    top_k: Annotated[int, Field(ge=1, le=50)] = 5,
) -> ToolResult:
    """Answer a question from documents, in a sentence or two, with the numbers of its sources."""
    names = await _among(run, collections)
    with await run.permitted(("read",), names, [("chat", run.request.model)]):
        answer = await run.services.operations.rag_query(
            schemas.RagQueryRequest(question=question, collection=names, top_k=top_k)
        )
    numbers = {
        one.number: mine.number for one, mine in zip(answer.sources, run.cite(answer.sources), strict=True)
    }
    said = renumbered(answer.answer, numbers)
    value = {
        "answer": said,
        "found": answer.found,
        "citations": [numbers[one] for one in answer.citations if one in numbers],
    }
    told = "" if answer.found else " (the documents do not tell for certain)"
    return ToolResult(value, delimited("result", f"{said}{told}"))


_NUMBERED = re.compile(r"\[(\d{1,9})\]|\(source (\d{1,9})\)")


def renumbered(text: str, numbers: dict[int, int]) -> str:
    """The text with its sources' numbers replaced."""

    def other(found: re.Match[str]) -> str:
        number = int(found[1] or found[2])
        return found[0].replace(str(number), str(numbers.get(number, number)))

    return _NUMBERED.sub(other, text)


@tool("list_collections")
async def list_collections(run: Running) -> list[dict[str, Any]]:
    """List the collections of documents that may be read."""
    may = set(await run.readable())
    with await run.permitted(("read",)):
        found = await run.services.operations.list_collections(schemas.ListCollectionsRequest(counts=True))
    return [{"name": one.name, "documents": one.documents} for one in found.collections if one.name in may]


@tool("list_documents")
async def list_documents(
    run: Running, collection: str, limit: Annotated[int, Field(ge=1, le=200)] = 50
) -> list[str]:
    """List the documents of a collection by their ids."""
    (name,) = await _among(run, [collection])
    with await run.permitted(("read",), (name,)):
        found = await run.services.operations.list_documents(
            schemas.ListDocumentsRequest(collection=name, limit=limit)
        )
    return [one.id for one in found.documents]


async def chunks_of(run: Running, collection: str, document_id: str) -> list[schemas.ChunkInfo]:
    """A document's chunks in order. Raises NotFound."""
    found: list[schemas.ChunkInfo] = []
    cursor: str | None = None
    with await run.permitted(("read",), (collection,)):
        while True:
            page = await run.services.operations.list_chunks(
                schemas.ListChunksRequest(collection=collection, ids=[document_id], limit=1000, cursor=cursor)
            )
            found += page.chunks
            if (cursor := page.cursor) is None:
                break
    if not found:
        raise NotFound(f"no document {document_id!r} in {collection!r}", details={"document": document_id})
    return sorted(found, key=lambda one: one.chunk)


async def text_of(run: Running, collection: str, document_id: str) -> str:
    """A document's whole text. Raises NotFound."""
    asked = schemas.GetDocumentRequest(collection=collection, id=document_id)
    with await run.permitted(("read",), (collection,)):
        return (await run.services.operations.get_document(asked)).text


@tool("read_document")
async def read_document(
    run: Running, collection: str, document_id: str, offset: Annotated[int, Field(ge=0)] = 0
) -> ToolResult:
    """Read a document, some pages at a time: `offset` is the passage to begin with, from 0."""
    (name,) = await _among(run, [collection])
    chunks = (await chunks_of(run, name, document_id))[offset:]
    taken: list[schemas.ChunkInfo] = []
    size = 0
    for chunk in chunks:
        size += len(chunk.text)
        if taken and size > READ_CHARACTERS:
            break
        taken.append(chunk)
    sources = run.cite(
        [
            Hit(
                text=one.text,
                score=0.0,
                document_id=one.document_id,
                chunk=one.chunk,
                collection=name,
                metadata=one.metadata,
            )
            for one in taken
        ]
    )
    left = len(chunks) - len(taken)
    more = f"\n\n({left} more passages: go on at offset {offset + len(taken)})" if left > 0 else ""
    return ToolResult([one.model_dump() for one in sources], passages(sources) + more)


@tool("analyze_document")
async def analyze_document(run: Running, collection: str, document_id: str) -> dict[str, Any]:
    """Get a document's summary, key points and sentiment."""
    (name,) = await _among(run, [collection])
    text = await text_of(run, name, document_id)
    with await run.permitted(("read", "chat"), (name,), [("chat", run.request.model)]):
        analysis = await run.services.operations.analyze_document(schemas.AnalyzeRequest(text=text))
    return {name: getattr(analysis, name) for name in ("summary", "key_points", "sentiment")}


@tool("embed")
async def embed(run: Running, texts: Texts) -> dict[str, Any]:
    """Compare texts by meaning: the cosine of each with each, from -1 to 1."""
    with await run.permitted(("chat",), models=[("embedding", None)]):
        vectors = (await run.services.embedder.embed(texts, too_long="truncate")).values
    return {"cosines": [[round(float(one), 4) for one in row] for row in vectors @ vectors.T]}


@tool("rerank")
async def rerank(
    run: Running, query: Annotated[str, Field(min_length=1)], texts: Texts
) -> list[dict[str, Any]]:
    """Order texts by how well they answer a query, best first."""
    with await run.permitted(("chat",), models=[("rerank", None)]):
        found = await run.services.operations.rerank(schemas.RerankRequest(query=query, documents=texts))
    return [{"index": one.index, "score": one.relevance_score} for one in found.results]


@tool("today")
async def today(run: Running) -> str:
    """Get today's date and the day of the week."""
    return f"{date.today():%Y-%m-%d, %A}"


@tool("calculator")
async def calculator(run: Running, expression: Annotated[str, Field(max_length=1000)]) -> str:
    """Calculate: numbers with + - * / // % ** and parentheses, and sqrt, log, exp, abs, round, min, max, sum, sin, cos, tan."""
    return calculated(expression)


# Writing


@tool("ingest_document", writes=True)
async def ingest_document(
    run: Running,
    collection: str,
    document_id: Annotated[str, Field(min_length=1, max_length=512)],
    text: Annotated[str, Field(min_length=1)],
) -> dict[str, Any]:
    """Add a document to a collection, or replace it."""
    if run.request.collections is not None:
        await _among(run, [collection])
    with await run.permitted(("write",), (collection,)):
        report = await run.services.operations.rag_ingest(
            schemas.RagIngestRequest(
                collection=collection, documents=[schemas.Document(id=document_id, text=text)]
            )
        )
    return {name: getattr(report, name) for name in ("added", "updated", "unchanged", "chunks")}


@tool("delete_documents", writes=True)
async def delete_documents(
    run: Running, collection: str, ids: Annotated[list[str], Field(min_length=1, max_length=1000)]
) -> dict[str, Any]:
    """Remove documents from a collection."""
    await _among(run, [collection])
    with await run.permitted(("write",), (collection,)):
        gone = await run.services.operations.delete_documents(
            schemas.DeleteDocumentsRequest(collection=collection, ids=ids)
        )
    return {"deleted": gone.deleted}


@tool("delete_collection", writes=True)
async def delete_collection(run: Running, collection: str) -> dict[str, Any]:
    """Remove a collection with all its documents."""
    await _among(run, [collection])
    with await run.permitted(("write",), (collection,), owners_only=True):
        gone = await run.services.operations.delete_collection(
            schemas.CollectionRequest(collection=collection)
        )
    return {"deleted": gone.deleted, "documents": gone.documents}
