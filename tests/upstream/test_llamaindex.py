"""A client's models and collections as LlamaIndex's classes, in LlamaIndex's own pipelines, engines and agents."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Document, SimpleDirectoryReader
from llama_index.core.agent.workflow import FunctionAgent, ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, TextBlock
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.node_parser import SentenceSplitter
from llama_index.core.prompts import PromptTemplate
from llama_index.core.query_engine import CitationQueryEngine, RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.core.tools import FunctionTool
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)
from pydantic import BaseModel

from llmbackend import BackendError, InvalidRequest, LLMBackendClient, NotFound
from llmbackend.llamaindex import Components
from tests.upstream.conftest import Connect
from tests.upstream.fake import Upstream

FACTS = {
    "vacation": (
        "Every employee has twenty-eight days of paid vacation a year.",
        {"year": 2024, "team": ["hr"]},
    ),
    "router": (
        "To reset the router, hold the red button for ten seconds.",
        {"year": 2026, "team": ["it", "hr"]},
    ),
    "office": ("The office closes at six in the evening.", {"year": 2026}),
    "warranty": ("The warranty of a router covers two years.", {"year": 2025, "team": ["it"]}),
}
pytestmark = pytest.mark.anyio
QUESTION = "How do I reset the router?"
TEXT = " ".join(f"In year {year} the harbour of Aldersea had {7 * year} ships." for year in range(1900, 1960))


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def parts(client: LLMBackendClient, upstream: Upstream) -> Components:
    return client.llamaindex


@pytest.fixture
def facts(client: LLMBackendClient, collection: str) -> str:
    documents = [{"id": name, "text": text, "metadata": about} for name, (text, about) in FACTS.items()]
    client.rag_ingest(documents, collection)
    return collection


# LlamaIndex's own


def test_a_sentence_splitter_decides_what_is_a_node(
    client: LLMBackendClient, parts: Components, collection: str
) -> None:
    nodes = SentenceSplitter(chunk_size=64, chunk_overlap=0)([Document(id_="harbour", text=TEXT)])
    assert len(nodes) > 10
    index = parts.index(collection)
    index.insert_nodes(nodes)
    stored = client.list_chunks(collection)
    assert sorted(one.text for one in stored) == sorted(node.get_content() for node in nodes)
    assert {one.document_id for one in stored} == {"harbour"}
    found = index.as_retriever(similarity_top_k=1).retrieve("How many ships in 1931?")[0]
    assert "In year 1931" in found.text
    assert found.node.node_id in {node.node_id for node in nodes}
    assert found.node.ref_doc_id == "harbour"


def test_an_ingestion_pipeline_fills_a_collection_once(
    client: LLMBackendClient, parts: Components, collection: str
) -> None:
    store = parts.vector_store(collection)

    def run() -> list[str]:
        pipeline = IngestionPipeline(
            transformations=[SentenceSplitter(chunk_size=64, chunk_overlap=0), parts.embed_model()],
            vector_store=store,
        )
        documents = [Document(id_=f"d{number}", text=TEXT[500 * number :]) for number in range(3)]
        return [node.node_id for node in pipeline.run(documents=documents)]

    first, again = run(), run()
    assert len(first) == client.get_collection(collection).chunks
    assert client.get_collection(collection).documents == 3
    assert [node.node_id for node in store.get_nodes(again)] == again
    client.rag_ingest({"id": "other", "text": "The ferry to Brill sails at noon."}, collection)
    assert client.rag_search("When does the ferry sail?", collection)[0].document_id == "other"


async def test_a_pipeline_and_an_engine_are_awaited(
    parts: Components, collection: str, upstream: Upstream
) -> None:
    store = parts.vector_store(collection)
    steps = [parts.node_parser(chunk_size=64), parts.embed_model()]
    pipeline = IngestionPipeline(transformations=steps, vector_store=store)
    await pipeline.arun(documents=[Document(id_="harbour", text=TEXT)])
    upstream.replies.append("13517 [1].")
    engine = RetrieverQueryEngine.from_args(parts.retriever(collection, top_k=2), llm=parts.llm())
    answer = await engine.aquery("How many ships were there in 1931?")
    assert str(answer) == "13517 [1]."
    assert "In year 1931" in upstream.seen[-1]["messages"][-1]["content"]


def test_a_retriever_query_engine_answers(parts: Components, facts: str, upstream: Upstream) -> None:
    upstream.replies.append("Hold the red button.")
    engine = RetrieverQueryEngine.from_args(parts.retriever(facts, top_k=1), llm=parts.llm())
    answer = engine.query(QUESTION)
    assert str(answer) == "Hold the red button."
    assert [node.node.ref_doc_id for node in answer.source_nodes] == ["router"]
    asked = upstream.seen[-1]["messages"][-1]["content"]
    assert "hold the red button" in asked
    assert facts not in asked, "where a node is stored is no business of the model's"


def test_a_citation_query_engine_cites(parts: Components, facts: str, upstream: Upstream) -> None:
    upstream.replies.append("Hold the red button [1].")
    engine = CitationQueryEngine.from_args(
        parts.index(facts), llm=parts.llm(), retriever=parts.retriever(facts, top_k=2)
    )
    answer = engine.query(QUESTION)
    assert str(answer) == "Hold the red button [1]."
    assert answer.source_nodes[0].text.startswith("Source 1:\nTo reset the router")


def _tide(harbour: str) -> str:
    """Tell when the tide is high in a harbour."""
    return f"In {harbour} at nine."


CALL = {"id": "call_1", "type": "function", "function": {"name": "tide", "arguments": '{"harbour": "Brill"}'}}


@pytest.mark.parametrize("streaming", [True, False])
async def test_a_function_agent_calls_tools(
    parts: Components, facts: str, upstream: Upstream, streaming: bool
) -> None:
    tool = FunctionTool.from_defaults(_tide, name="tide")
    agent = FunctionAgent(tools=[tool], llm=parts.llm(), streaming=streaming)
    upstream.replies += [
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        "High tide is at nine.",
    ]
    done = await agent.run("When is high tide in Brill?")
    assert str(done) == "High tide is at nine."
    assert [call.tool_kwargs for call in done.tool_calls] == [{"harbour": "Brill"}]
    first, second = upstream.seen
    assert first["tools"][0]["function"]["name"] == "tide"
    assert second["messages"][-1] == {
        "role": "tool",
        "content": "In Brill at nine.",
        "tool_call_id": "call_1",
    }
    assert second["messages"][-2]["tool_calls"] == [CALL]


async def test_a_react_agent_reasons_in_text(parts: Components, facts: str, upstream: Upstream) -> None:
    from llama_index.core.tools import QueryEngineTool

    engine = RetrieverQueryEngine.from_args(parts.retriever(facts, top_k=1), llm=parts.llm())
    tool = QueryEngineTool.from_defaults(engine, name="handbook", description="what the house knows")
    agent = ReActAgent(tools=[tool], llm=parts.llm())
    upstream.replies += [
        'Thought: I need the handbook.\nAction: handbook\nAction Input: {"input": "reset the router"}',
        "By the red button.",
        "Thought: I can answer without using any more tools.\nAnswer: Hold the red button.",
    ]
    assert str(await agent.run(QUESTION)) == "Hold the red button."
    assert "By the red button." in upstream.seen[-1]["messages"][-1]["content"]


# The chat model


def test_the_chat_model_chats_completes_and_streams(parts: Components, upstream: Upstream) -> None:
    llm = parts.llm(max_tokens=50, temperature=0.5)
    assert llm.metadata.context_window == 1000
    assert llm.metadata.is_function_calling_model
    upstream.replies += ["one two three"] * 4
    turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Count.")]
    assert llm.chat(turns).message.content == "one two three"
    assert upstream.seen[-1]["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Count."},
    ]
    assert (upstream.seen[-1]["max_tokens"], upstream.seen[-1]["temperature"]) == (50, 0.5)
    assert llm.complete("Count.", max_tokens=7).text == "one two three"
    assert upstream.seen[-1]["max_tokens"] == 7
    for pieces in (list(llm.stream_chat(turns)), list(llm.stream_complete("Count."))):
        assert "".join(piece.delta or "" for piece in pieces) == "one two three"
        assert pieces[-1].raw["usage"]["total_tokens"] == 28
    with pytest.raises(InvalidRequest, match="'logprobs'"):
        llm.chat(turns, logprobs=True)


async def test_the_chat_model_is_awaited(parts: Components, upstream: Upstream) -> None:
    llm = parts.llm()
    upstream.replies += ["one two three"] * 4
    assert (await llm.acomplete("Count.")).text == "one two three"
    turns = [ChatMessage(role="user", content="Count.")]
    assert (await llm.achat(turns)).message.content == "one two three"
    chats: AsyncIterator[Any] = await llm.astream_chat(turns)
    texts: AsyncIterator[Any] = await llm.astream_complete("Count.")
    for stream in (chats, texts):
        assert "".join([piece.delta or "" async for piece in stream]) == "one two three"


async def test_who_stops_reading_a_stream_stops_the_model(parts: Components, upstream: Upstream) -> None:
    stream = await parts.llm(model="endless").astream_chat([ChatMessage(role="user", content="Count.")])
    assert (await anext(stream)).delta
    await stream.aclose()
    assert await asyncio.to_thread(upstream.left.wait, 10)


class Judgement(BaseModel):
    positive: bool
    reason: str


async def test_a_reply_fits_a_class(parts: Components, upstream: Upstream) -> None:
    prompt = PromptTemplate("Judge: {text}")
    upstream.replies += ['{"positive": true, "reason": "kind"}'] * 4
    llm = parts.llm()
    judged = Judgement(positive=True, reason="kind")
    assert llm.structured_predict(Judgement, prompt, text="good") == judged
    assert upstream.seen[-1]["messages"][-1]["content"] == "Judge: good"
    assert await llm.astructured_predict(Judgement, prompt, text="good") == judged
    assert list(llm.stream_structured_predict(Judgement, prompt, text="good")) == [judged]
    shaped = llm.as_structured_llm(Judgement)
    assert (await shaped.achat([ChatMessage(role="user", content="Judge: good")])).raw == judged


def test_images_and_tool_calls_go_to_the_model(parts: Components, upstream: Upstream) -> None:
    pixel = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
    message = ChatMessage(role="user", blocks=[TextBlock(text="What is it?"), ImageBlock(image=pixel)])
    upstream.replies.append({"role": "assistant", "content": None, "tool_calls": [CALL, {**CALL, "id": "2"}]})
    tool = FunctionTool.from_defaults(_tide, name="tide")
    reply = parts.llm().chat_with_tools([tool], message, tool_required=True)
    sent = upstream.seen[-1]
    assert sent["tool_choice"] == "required"
    assert sent["messages"][0]["content"][1]["image_url"]["url"].startswith("data:image/png;base64,")
    calls = parts.llm().get_tool_calls_from_response(reply)
    assert [(call.tool_id, call.tool_kwargs) for call in calls] == [("call_1", {"harbour": "Brill"})]


def test_errors_are_the_client_s(parts: Components, upstream: Upstream) -> None:
    with pytest.raises(BackendError, match="500"):
        parts.llm(model="500").complete("Hi")
    with pytest.raises(NotFound, match="no-such-collection"):
        parts.retriever("no-such-collection").retrieve("x")


# Where from it is called


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_blocks_may_be_called_on_a_running_loop(
    parts: Components, facts: str, upstream: Upstream, streamed: bool
) -> None:
    llm = parts.llm()
    upstream.replies.append("one two three")
    assert _said(llm, streamed) == "one two three"
    assert parts.retriever(facts, top_k=1).retrieve(QUESTION)[0].node.ref_doc_id == "router"


@pytest.mark.parametrize("streamed", [False, True])
def test_what_blocks_may_be_called_on_the_loop_of_the_client_itself(
    connect: Connect, upstream: Upstream, streamed: bool
) -> None:
    """As a job in this process may, or a tool that it calls. Others go on meanwhile."""
    client = connect()
    core: Any = client._transport
    client.rag_ingest(FACTS["router"][0], "facts")
    parts, said = client.llamaindex, []

    async def on_the_loop(number: int) -> None:
        assert threading.current_thread() is not threading.main_thread()
        said.append(_said(parts.llm(), streamed))
        said.append(len(parts.retriever("facts").retrieve(QUESTION)))
        await asyncio.sleep(0)

    async def several() -> None:
        await asyncio.gather(*map(on_the_loop, range(3)))

    upstream.replies += ["one two three"] * 3
    core._core.portal.start_task_soon(several).result(timeout=30)
    assert sorted(map(str, said)) == ["1"] * 3 + ["one two three"] * 3
    assert client.health().status == "ok"


def _said(llm: Any, streamed: bool) -> str:
    if streamed:
        return "".join(piece.delta for piece in llm.stream_complete("Count."))
    return str(llm.complete("Count.").text)


# The embedding model and the reranker


async def test_the_embedding_model_is_the_collections(client: LLMBackendClient, parts: Components) -> None:
    model = parts.embed_model()
    assert model.model_name == client.health().embeddings
    texts = [text for text, _ in FACTS.values()]
    vectors = [list(row) for row in client.embed(texts)]
    assert model.get_text_embedding_batch(texts) == vectors
    assert await model.aget_text_embedding_batch(texts) == vectors
    assert model.get_query_embedding(texts[0]) == await model.aget_query_embedding(texts[0]) == vectors[0]
    assert model.get_text_embedding(texts[0]) == vectors[0]


def test_a_reranker_orders_nodes(connect: Connect, upstream: Upstream) -> None:
    client = connect(rerank_url=f"{upstream.url}/v1", rerank_model="ok")
    nodes = [NodeWithScore(node=TextNode(text=text), score=0.1) for text, _ in FACTS.values()]
    ranked = client.llamaindex.reranker(top_n=2).postprocess_nodes(nodes, query_str=QUESTION)
    wanted = client.rerank(QUESTION, [text for text, _ in FACTS.values()], top_n=2)
    assert [(one.text, one.score) for one in ranked] == [(one.text, one.score) for one in wanted]
    awaited = asyncio.run(client.llamaindex.reranker().apostprocess_nodes(nodes, query_str=QUESTION))
    assert len(awaited) == len(nodes)
    with pytest.raises(InvalidRequest, match="query_str"):
        client.llamaindex.reranker().postprocess_nodes(nodes)


# Collections


def test_a_retriever_finds_what_rag_search_finds(
    client: LLMBackendClient, parts: Components, facts: str
) -> None:
    index = parts.index(facts)
    for ours, theirs in (("hybrid", "hybrid"), ("dense", "default"), ("sparse", "sparse")):
        hits = client.rag_search(QUESTION, facts, mode=ours, top_k=3)
        nodes = parts.retriever(facts, mode=ours, top_k=3).retrieve(QUESTION)
        through = index.as_retriever(vector_store_query_mode=theirs, similarity_top_k=3).retrieve(QUESTION)
        for found in (nodes, through):
            assert [(one.text, one.score) for one in found] == [(hit.text, hit.score) for hit in hits]
    assert nodes[0].metadata == {**FACTS["router"][1], "document_id": "router", "collection": facts}


def test_a_retriever_asks_several_collections(
    client: LLMBackendClient, parts: Components, facts: str
) -> None:
    other = f"{facts}-other"
    client.rag_ingest({"id": "switch", "text": "To reset the switch, pull the plug."}, other)
    try:
        nodes = parts.retriever([facts, other], top_k=2, min_score=0.0).retrieve("reset the switch, router")
        assert {node.metadata["collection"] for node in nodes} == {facts, other}
    finally:
        client.delete_collection(other)


def _where(key: str, operator: FilterOperator, value: Any = None) -> MetadataFilters:
    return MetadataFilters(filters=[MetadataFilter(key=key, value=value, operator=operator)])


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        (_where("year", FilterOperator.EQ, 2026), {"router", "office"}),
        (_where("year", FilterOperator.NE, 2026), {"vacation", "warranty"}),
        (_where("year", FilterOperator.GT, 2025), {"router", "office"}),
        (_where("year", FilterOperator.GTE, 2025), {"router", "office", "warranty"}),
        (_where("year", FilterOperator.LT, 2025), {"vacation"}),
        (_where("year", FilterOperator.LTE, 2025), {"vacation", "warranty"}),
        (_where("year", FilterOperator.IN, [2024, 2025]), {"vacation", "warranty"}),
        (_where("year", FilterOperator.NIN, [2024, 2026]), {"warranty"}),
        (_where("team", FilterOperator.ANY, ["hr", "none"]), {"vacation", "router"}),
        (_where("team", FilterOperator.ALL, ["hr", "it"]), {"router"}),
        (_where("team", FilterOperator.CONTAINS, "it"), {"router", "warranty"}),
        (_where("team", FilterOperator.IS_EMPTY), {"office"}),
        (
            MetadataFilters(
                filters=[
                    MetadataFilter(key="year", value=2024),
                    MetadataFilters(
                        filters=[
                            MetadataFilter(key="year", value=2025),
                            MetadataFilter(key="team", value="it"),
                        ]
                    ),
                ],
                condition=FilterCondition.OR,
            ),
            {"vacation", "warranty"},
        ),
        (
            MetadataFilters(
                filters=[MetadataFilter(key="year", value=2024), MetadataFilter(key="team", value="it")],
                condition=FilterCondition.NOT,
            ),
            {"office"},
        ),
        (MetadataFilters(filters=[]), set(FACTS)),
        ({"year": {"gte": 2026}}, {"router", "office"}),
    ],
)
def test_filters_select_by_every_operator(
    parts: Components, facts: str, filters: Any, wanted: set[str]
) -> None:
    nodes = parts.retriever(facts, mode="dense", top_k=10, filters=filters).retrieve(QUESTION)
    assert {node.node.ref_doc_id for node in nodes} == wanted
    assert {node.ref_doc_id for node in parts.vector_store(facts).get_nodes(filters=filters)} == wanted


@pytest.mark.parametrize(
    ("filters", "named"),
    [
        (_where("team", FilterOperator.TEXT_MATCH, "h"), "'text_match'"),
        (_where("team", FilterOperator.TEXT_MATCH_INSENSITIVE, "h"), "'text_match_insensitive'"),
        (_where("team", FilterOperator.IN, "hr"), "'in'"),
        (_where("or", FilterOperator.EQ, "hr"), "'or'"),
    ],
)
def test_filters_that_collections_do_not_know_are_refused(
    parts: Components, facts: str, filters: Any, named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parts.retriever(facts, filters=filters)


@pytest.mark.parametrize(
    ("query", "named"),
    [
        (VectorStoreQuery(query_embedding=[0.1] * 256), "query_str"),
        (VectorStoreQuery(query_str="x", mode=VectorStoreQueryMode.MMR), "'mmr'"),
        (VectorStoreQuery(query_str="x", mode=VectorStoreQueryMode.HYBRID, alpha=0.3), "alpha"),
        (VectorStoreQuery(query_str="x", doc_ids=["router"]), "doc_ids"),
    ],
)
def test_queries_that_collections_do_not_know_are_refused(
    parts: Components, facts: str, query: VectorStoreQuery, named: str
) -> None:
    with pytest.raises(InvalidRequest, match=named):
        parts.vector_store(facts).query(query)


def _node(name: str, text: str, document: str, **metadata: Any) -> TextNode:
    from llama_index.core.schema import NodeRelationship, RelatedNodeInfo

    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id=document)}
    return TextNode(id_=name, text=text, metadata=metadata, relationships=source)


def test_nodes_are_added_read_and_deleted(
    client: LLMBackendClient, parts: Components, collection: str
) -> None:
    store = parts.vector_store(collection)
    nodes = [_node(f"n{number}", f"Dock {number} is closed.", "docks", number=number) for number in range(4)]
    assert store.add(nodes[:2]) == ["n0", "n1"]
    assert store.add(nodes[2:]) == ["n2", "n3"], "these join the others of their document"
    assert client.get_collection(collection).documents == 1
    assert [node.node_id for node in store.get_nodes()] == ["n0", "n1", "n2", "n3"]
    again = store.get_nodes(["n3", "n1", "n9"])
    assert [(node.node_id, node.get_content(), node.metadata["number"]) for node in again] == [
        ("n3", "Dock 3 is closed.", 3),
        ("n1", "Dock 1 is closed.", 1),
    ]
    store.add([_node("n1", "Dock 1 is open.", "docks", number=1)])
    assert store.get_nodes(["n1"])[0].get_content() == "Dock 1 is open."
    store.add(store.get_nodes(["n1"]))
    assert client.list_chunks(collection, filters={"node_id": "n1"})[0].metadata == {
        "number": 1,
        "node_id": "n1",
    }
    store.delete_nodes(["n0"])
    store.delete_nodes(filters=_where("number", FilterOperator.EQ, 2))
    assert [node.node_id for node in store.get_nodes()] == ["n1", "n3"]
    store.add([_node("m", "The market opens at five.", "market")])
    store.delete("docks")
    assert [node.node_id for node in store.get_nodes()] == ["m"]
    store.clear()
    assert store.get_nodes() == []
    assert client.get_collection(collection).documents == 0


async def test_nodes_are_added_read_and_deleted_by_awaiting(parts: Components, collection: str) -> None:
    store = parts.vector_store(collection)
    await asyncio.gather(
        *(store.async_add([_node(f"n{number}", f"Dock {number}.", "docks")]) for number in range(8))
    )
    assert len(await store.aget_nodes()) == 8, "at the same time, none takes another's place"
    await store.adelete_nodes([f"n{number}" for number in range(7)])
    found = await store.aquery(VectorStoreQuery(query_str="Dock", mode=VectorStoreQueryMode.SPARSE))
    assert found.ids == ["n7"]
    await store.adelete("docks")
    await store.aclear()
    assert await store.aget_nodes() == []


def test_documents_that_came_otherwise_are_nodes_too(
    client: LLMBackendClient, parts: Components, facts: str
) -> None:
    store = parts.vector_store(facts)
    assert [node.node_id for node in store.get_nodes(["router#0", "router#1"])] == ["router#0"]
    store.delete_nodes(["router#0"])
    assert client.get_collection(facts).documents == len(FACTS) - 1


def test_what_cannot_be_stored_is_refused_by_name(
    client: LLMBackendClient, parts: Components, facts: str
) -> None:
    store = parts.vector_store(facts)
    foreign = TextNode(id_="foreign", text="x", embedding=[0.1, 0.2])
    for node, named in ((foreign, "'foreign'"), (TextNode(id_="empty", text=" "), "'empty'")):
        with pytest.raises(InvalidRequest, match=named):
            store.add([TextNode(text="fine"), node])
    with pytest.raises(InvalidRequest, match="clear"):
        store.delete_nodes()
    assert client.get_collection(facts).chunks == len(FACTS)


def test_an_index_inserts_and_deletes_documents(
    client: LLMBackendClient, parts: Components, collection: str, upstream: Upstream
) -> None:
    index = parts.index(collection)
    index.insert(Document(id_="harbour.md", text=f"# Harbour\n\n{TEXT}", metadata={"year": 2020}))
    chunks = client.list_chunks(collection)
    assert len(chunks) > 2
    assert all(one.metadata["headings"] == ["Harbour"] for one in chunks)
    assert client.rag_search("ships", collection, filters={"headings": "Harbour"})
    upstream.replies += ["Many."] * 8
    assert str(index.as_query_engine(similarity_top_k=1).query("How many ships?")) == "Many."
    assert (
        str(index.as_chat_engine(chat_mode="context", similarity_top_k=1).chat("How many ships?")) == "Many."
    )
    index.delete_ref_doc("harbour.md")
    assert client.get_collection(collection).documents == 0


def test_a_query_engine_answers_with_citations(parts: Components, facts: str, upstream: Upstream) -> None:
    upstream.replies += ["Hold the red button [1]."] * 2
    answer = parts.query_engine(facts, top_k=2, explain=True).query(QUESTION)
    assert str(answer) == "Hold the red button [1]."
    told = answer.metadata or {}
    assert (told["found"], told["citations"]) == (True, [1])
    assert told["explanation"].candidates
    sources = [
        (one.node.ref_doc_id, one.metadata["number"], one.metadata["cited"]) for one in answer.source_nodes
    ]
    assert sources[0] == ("router", 1, True)
    assert len(sources) == 2
    streamed: Any = parts.query_engine(facts, streaming=True).query(QUESTION)
    assert streamed.source_nodes[0].node.ref_doc_id == "router"
    assert "".join(streamed.response_gen) == "Hold the red button [1]."
    assert streamed.metadata["citations"] == [1]


async def test_a_query_engine_is_awaited(parts: Components, facts: str, upstream: Upstream) -> None:
    upstream.replies += ["Hold the red button [1]."] * 3
    answer = await parts.query_engine(facts).aquery(QUESTION)
    assert answer.metadata
    assert answer.metadata["citations"] == [1]
    streamed: Any = await parts.query_engine(facts, streaming=True).aquery(QUESTION)
    assert "".join([piece async for piece in streamed.response_gen]) == "Hold the red button [1]."
    assert streamed.metadata["found"]
    engine = parts.query_engine(facts)
    nodes = await engine.aretrieve(_bundle(QUESTION))
    assert str(await engine.asynthesize(_bundle(QUESTION), nodes)) == "Hold the red button [1]."


def _bundle(text: str) -> Any:
    from llama_index.core.schema import QueryBundle

    return QueryBundle(text)


# Files and splitting, which happen here


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "harbour.md").write_text(f"# Harbour\n\n## Ships\n\n{TEXT}")
    (tmp_path / "page.html").write_text("<h1>Market</h1><p>It opens at five.</p>")
    return tmp_path


def test_files_are_read_and_split_as_rag_ingest_files_does(
    client: LLMBackendClient, parts: Components, folder: Path, collection: str
) -> None:
    client.rag_ingest_files(folder, collection)
    documents = parts.reader().load_data(folder)
    nodes = parts.node_parser().get_nodes_from_documents(documents)
    chunks = sorted(client.list_chunks(collection), key=lambda one: (one.document_id, one.chunk))
    assert [(node.ref_doc_id, node.get_content(), node.metadata) for node in nodes] == [
        (one.document_id, one.text, one.metadata) for one in chunks
    ]
    assert nodes[-1].metadata["headings"] == ["Market"]


async def test_a_reader_fits_llamaindex_s_own(parts: Components, folder: Path) -> None:
    reader = parts.reader()
    assert [one.doc_id for one in await reader.aload_data(folder)] == ["harbour.md", "page.html"]
    assert len(list(reader.lazy_load_data(folder))) == 2
    found = SimpleDirectoryReader(str(folder), file_extractor={".html": reader, ".md": reader}).load_data()
    assert ["It opens at five." in one.text for one in found] == [False, True]
    assert found[1].metadata["file_name"] == "page.html"
    assert len(await parts.node_parser(chunk_size=64).aget_nodes_from_documents(found)) > 10


def test_a_file_that_cannot_be_read_is_told(parts: Components, folder: Path) -> None:
    (folder / "broken.pdf").write_bytes(b"%PDF-1.4 nothing")
    with pytest.raises(InvalidRequest, match=r"broken\.pdf"):
        parts.reader().load_data(folder)
    reader = parts.reader(raise_on_error=False)
    assert len(reader.load_data(folder)) == 2
    assert [one["id"] for one in reader.failed] == ["broken.pdf"]
    with pytest.raises(InvalidRequest, match="chunk_overlap"):
        parts.node_parser(chunk_size=64, chunk_overlap=64)


def test_a_wrong_argument_is_an_error_of_ours(parts: Components) -> None:
    with pytest.raises(
        InvalidRequest, match="node_parser: chunk_size: Input should be greater than or equal to 32"
    ):
        parts.node_parser(chunk_size=-1)
    with pytest.raises(InvalidRequest, match="llm: max_tokens: "):
        parts.llm(max_tokens="many")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest, match="reranker: top_n: "):
        parts.reranker(top_n="few")  # type: ignore[arg-type]
