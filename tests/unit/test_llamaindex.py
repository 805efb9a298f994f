"""LlamaIndex's own parts on ours: its retrievers over a collection, its interfaces to our models."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from anyio import CancelScope
from llama_index.core import Document, VectorStoreIndex
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
)

from llmbackend import InvalidRequest, schemas
from llmbackend.backend import Backend
from llmbackend.inference.cache import CachedEmbedder
from llmbackend.inference.llamaindex import ChatAdapter, EmbeddingAdapter
from llmbackend.inference.local_chat import LocalChat
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.knowledge.vector_store import CollectionStore
from llmbackend.settings import Settings

FACTS = [
    ("vacation", "Employees get thirty days of paid vacation in a year.", 2024),
    ("router", "The router is reset by holding its red button for ten seconds.", 2026),
    ("warranty", "The warranty of the router covers defects for two years.", 2025),
    ("office", "The office is closed between Christmas and New Year.", 2026),
]
QUESTION = "How do I reset the router?"


def _in_a_backend(folder: Path, work: Callable[[Backend, VectorStoreIndex], Awaitable[None]]) -> None:
    """Work on a collection with FACTS, and a LlamaIndex index over it."""

    async def run() -> None:
        backend = await Backend.open(Settings(data_dir=folder))
        try:
            documents: list[str | schemas.Document] = [
                schemas.Document(id=name, text=text, metadata={"year": year}) for name, text, year in FACTS
            ]
            await backend.rag_ingest(schemas.RagIngestRequest(documents=documents, collection="facts"))
            store = CollectionStore(await backend._collections.open("facts"))
            embedding = EmbeddingAdapter(backend._embedder)
            await work(backend, VectorStoreIndex.from_vector_store(store, embed_model=embedding))
        finally:
            await backend.close()

    asyncio.run(run())


async def _search(backend: Backend, question: str = QUESTION, **fields: Any) -> list[schemas.Hit]:
    request = schemas.RagSearchRequest(query=question, collection="facts", **fields)
    return (await backend.rag_search(request)).hits


def test_a_retriever_finds_what_rag_search_finds(tmp_path: Path) -> None:
    async def work(backend: Backend, index: VectorStoreIndex) -> None:
        for ours, theirs in (("hybrid", "hybrid"), ("dense", "default"), ("sparse", "sparse")):
            retriever = index.as_retriever(vector_store_query_mode=theirs, similarity_top_k=3)
            nodes = await retriever.aretrieve(QUESTION)
            hits = await _search(backend, mode=ours, top_k=3)
            assert [node.text for node in nodes] == [hit.text for hit in hits]
            assert [node.score for node in nodes] == pytest.approx([hit.score for hit in hits])
            assert "red button" in nodes[0].text
            assert nodes[0].metadata == {"year": 2026, "document_id": "router"}

    _in_a_backend(tmp_path, work)


def test_a_retriever_filters_as_rag_search_does(tmp_path: Path) -> None:
    def year(value: Any, operator: FilterOperator) -> MetadataFilter:
        return MetadataFilter(key="year", value=value, operator=operator)

    async def found(index: VectorStoreIndex, *filters: MetadataFilter, **options: Any) -> set[str]:
        retriever = index.as_retriever(
            vector_store_query_mode="hybrid",
            similarity_top_k=10,
            filters=MetadataFilters(filters=list(filters), **options),
        )
        return {node.metadata["document_id"] for node in await retriever.aretrieve(QUESTION)}

    async def work(backend: Backend, index: VectorStoreIndex) -> None:
        assert await found(index, year(2026, FilterOperator.EQ)) == {"router", "office"}
        assert await found(index, year([2024, 2025], FilterOperator.IN)) == {"vacation", "warranty"}
        between = year(2025, FilterOperator.GTE), year(2026, FilterOperator.LT)
        assert await found(index, *between) == {"warranty"}
        assert await found(index, year(2026, FilterOperator.NE)) == {"vacation", "warranty"}
        assert await found(index, year([2024, 2026], FilterOperator.NIN)) == {"warranty"}
        assert await found(index, year(None, FilterOperator.IS_EMPTY)) == set()
        either = year(2024, FilterOperator.EQ), year(2025, FilterOperator.EQ)
        assert await found(index, *either, condition=FilterCondition.OR) == {"vacation", "warranty"}
        assert await found(index, *either, condition=FilterCondition.NOT) == {"router", "office"}
        with pytest.raises(InvalidRequest, match="'text_match'"):
            await found(index, year("x", FilterOperator.TEXT_MATCH))

    _in_a_backend(tmp_path, work)


def test_nodes_added_by_llamaindex_are_found_replaced_and_deleted(tmp_path: Path) -> None:
    async def work(backend: Backend, index: VectorStoreIndex) -> None:
        for text in ("Parking is free for guests.", "Parking costs two euros an hour."):
            await index.ainsert_nodes([TextNode(id_="parking", text=text, metadata={"year": 2020})])
            hit = (await _search(backend, "What about parking?", top_k=1))[0]
            assert (hit.text, hit.document_id, hit.metadata) == (text, "parking", {"year": 2020})
        described = await backend.get_collection(schemas.CollectionRequest(collection="facts"))
        assert described.documents == len(FACTS) + 1
        await index.vector_store.adelete("parking")
        described = await backend.get_collection(schemas.CollectionRequest(collection="facts"))
        assert described.documents == len(FACTS)

    _in_a_backend(tmp_path, work)


def test_a_document_inserted_by_llamaindex_is_deleted_by_its_id(tmp_path: Path) -> None:
    async def work(backend: Backend, index: VectorStoreIndex) -> None:
        await index.ainsert(Document(id_="parking", text="Parking is free for guests."))
        assert "Parking" in (await _search(backend, "What about parking?", top_k=1))[0].text
        await index.adelete_ref_doc("parking")
        assert "Parking" not in (await _search(backend, "What about parking?", top_k=1))[0].text

    _in_a_backend(tmp_path, work)


# Models


def test_our_embedder_is_a_llamaindex_embedding_model() -> None:
    async def run() -> None:
        adapter = EmbeddingAdapter(CachedEmbedder(StaticEmbedder(), None))
        assert adapter.model_name == StaticEmbedder().name
        texts = [text for _, text, _ in FACTS]
        many = await adapter.aget_text_embedding_batch(texts)
        assert len(many) == len(texts)
        assert many[0] == pytest.approx(await adapter.aget_text_embedding(texts[0]), abs=1e-6)
        assert many[0] == pytest.approx(await adapter.aget_query_embedding(texts[0]), abs=1e-6)
        assert math.hypot(*many[0]) == pytest.approx(1, abs=1e-5)
        with pytest.raises(NotImplementedError, match="'a'"):
            adapter.get_text_embedding("text")

    asyncio.run(run())


def test_our_chat_model_is_a_llamaindex_llm(models_dir: Path) -> None:
    async def run() -> None:
        chat = LocalChat(models_dir, None, 8192)
        llm = ChatAdapter(chat, context=(await chat.window()).context, max_tokens=20)
        assert llm.metadata.is_chat_model
        assert llm.metadata.model_name == "SmolLM2-135M-Instruct"
        assert llm.metadata.context_window == 2048
        turns = [ChatMessage(role="user", content="What is the capital of France?")]
        reply = await llm.achat(turns)
        assert "Paris" in (reply.message.content or "")
        assert llm.model == "SmolLM2-135M-Instruct"
        once = dict(llm.usage)
        assert once["total_tokens"] == once["prompt_tokens"] + once["completion_tokens"] > 0
        pieces = [piece async for piece in await llm.astream_chat(turns)]
        assert "".join(piece.delta or "" for piece in pieces) == reply.message.content
        assert pieces[-1].message.content == reply.message.content
        assert llm.usage["total_tokens"] == 2 * once["total_tokens"], "usage adds up"
        assert (await llm.acomplete("What is the capital of France?")).text == reply.message.content
        with pytest.raises(NotImplementedError, match="'a'"):
            llm.chat(turns)
        await chat.close()

    asyncio.run(run())


@pytest.mark.parametrize("by", ["task", "scope"])
def test_a_cancelled_replacement_leaves_one_version(
    tmp_path: Path, by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work(backend: Backend, index: VectorStoreIndex) -> None:
        collection = await backend._collections.open("facts")
        engine: Any = collection.index.now
        upsert, loop = engine.upsert, asyncio.get_running_loop()

        def cancelled_after(*args: Any) -> None:
            upsert(*args)
            loop.call_soon_threadsafe(scope.cancel if by == "scope" else adding.cancel)
            time.sleep(0.3)

        async def add(text: str) -> None:
            with scope:
                await index.ainsert_nodes([TextNode(id_="parking", text=text)])

        scope = CancelScope()
        await add("Parking is free for guests.")
        monkeypatch.setattr(engine, "upsert", cancelled_after)
        adding = asyncio.create_task(add("Parking costs two euros an hour."))
        await asyncio.wait([adding], timeout=30)
        assert adding.cancelled() or scope.cancelled_caught
        assert await collection.run(engine.count) == (len(FACTS) + 1, len(FACTS) + 1)
        stored = engine.read(100, None, ["parking"]).chunks
        assert [chunk.text for chunk in stored] == ["Parking costs two euros an hour."]

    _in_a_backend(tmp_path, work)
