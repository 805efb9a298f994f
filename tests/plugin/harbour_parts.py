"""A project's own parts, as an installed package offers them: a parser, a reader, postprocessors and a retriever."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from llmbackend.plugins import node_parser, postprocessor, reader, retriever


@node_parser("clauses")
def clauses(document: Any) -> list[str]:
    """A chunk for each paragraph of a contract."""
    if "hang" in document.text:
        time.sleep(60)
    if "raise" in document.text:
        raise ValueError("no clause ends here")
    return ["§" + clause.strip() for clause in document.text.split("§") if clause.strip()]


@reader(".rev")
def rev(data: bytes) -> str:
    """Text backwards; some ask for what they may not have."""
    text = data.decode()[::-1]
    if text.startswith("read "):
        return Path(text[5:]).read_text()
    if text == "connect":
        socket.create_connection(("127.0.0.1", 9))
    if text == "hang":
        time.sleep(30)
    return f"# Backwards\n\n{text}"


@postprocessor("recency")
def recency(nodes: list[Any], query: str) -> list[Any]:
    """The newest first, and none without a year."""
    dated = [one for one in nodes if "year" in one.metadata]
    return sorted(dated, key=lambda one: one.metadata["year"], reverse=True)


@postprocessor("shouting")
async def shouting(nodes: list[Any], query: str) -> list[Any]:
    await anyio.lowlevel.checkpoint()
    for one in nodes:
        one.node.set_content(one.node.get_content().upper())
        one.score = 1.0
    return nodes


@postprocessor("broken")
def broken(nodes: list[Any], query: str) -> list[Any]:
    match query:
        case "hang":
            time.sleep(60)
        case "nothing":
            return None  # type: ignore[return-value]
    raise KeyError("year")


@postprocessor("blocking")
async def blocking(nodes: list[Any], query: str) -> list[Any]:
    time.sleep(60)  # noqa: ASYNC251  # it holds up its own loop, and nobody else's
    return nodes


@retriever("graph")
async def graph(query: str, search: Any) -> list[Any]:
    """What is found, and what is found for the words of that; and a passage that is nowhere stored."""
    from llama_index.core.schema import NodeWithScore, TextNode

    first = await search.asearch(query, top_k=1)
    second = await search.asearch(first[0].text, mode="sparse") if first else []
    return [
        *first,
        *second,
        NodeWithScore(node=TextNode(id_="known", text="The harbour is deep."), score=0.1),
    ]


@retriever("plain")
def plain(query: str, search: Any) -> list[Any]:
    found: list[Any] = search(query, filters={"year": {"gte": 2025}})
    return found
