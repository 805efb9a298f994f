"""LlamaIndex's OpenAILike classes on our server."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest
from pydantic import BaseModel

from tests.live.clients.conftest import EMBEDDINGS, TOOL, can, offered

pytest.importorskip("llama_index.llms.openai_like", reason="needs LlamaIndex: run by `make test-clients`")
pytest.importorskip(
    "llama_index.embeddings.openai_like", reason="needs LlamaIndex: run by `make test-clients`"
)

from llama_index.core import Document, VectorStoreIndex
from llama_index.core.llms import ChatMessage
from llama_index.embeddings.openai_like import OpenAILikeEmbedding
from llama_index.llms.openai_like import OpenAILike

pytestmark = pytest.mark.live

HELLO = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Say hello.")]


@pytest.fixture
def llm() -> OpenAILike:
    return _llm()


def _llm(**options: Any) -> OpenAILike:
    return OpenAILike(
        model=offered()[0],
        api_base=os.environ["OPENAI_BASE_URL"],
        api_key=os.environ["OPENAI_API_KEY"],
        is_chat_model=True,
        context_window=2048,
        temperature=0,
        max_tokens=60,
        **options,
    )


@pytest.fixture
def embed_model() -> OpenAILikeEmbedding:
    return OpenAILikeEmbedding(
        model_name=EMBEDDINGS, api_base=os.environ["OPENAI_BASE_URL"], api_key=os.environ["OPENAI_API_KEY"]
    )


def test_it_completes_and_chats(llm: OpenAILike) -> None:
    assert llm.complete("Say hello.").text
    reply = llm.chat(HELLO)
    assert reply.message.content
    assert llm.chat([*HELLO, reply.message, ChatMessage(role="user", content="Again.")]).message.content


def test_it_streams(llm: OpenAILike) -> None:
    deltas = [chunk.delta or "" for chunk in llm.stream_chat(HELLO)]
    assert len(deltas) > 1
    assert "".join(deltas) == llm.chat(HELLO).message.content


def test_it_chats_asynchronously(llm: OpenAILike) -> None:
    async def both() -> tuple[Any, list[Any]]:
        stream = await llm.astream_chat(HELLO)
        return await llm.achat(HELLO), [chunk async for chunk in stream]

    reply, chunks = asyncio.run(both())
    assert reply.message.content == "".join(chunk.delta or "" for chunk in chunks)


class Judgement(BaseModel):
    """A judgement of a text."""

    positive: bool


def test_it_fills_a_class(llm: OpenAILike) -> None:
    shaped = _llm(should_use_structured_outputs=True).as_structured_llm(Judgement)
    assert isinstance(shaped.chat(HELLO).raw, Judgement)


def test_it_calls_a_tool() -> None:
    if not can(tools=[TOOL], tool_choice="required"):
        pytest.skip("this vLLM calls no tools")
    from llama_index.core.tools import FunctionTool

    def lookup(harbour: str) -> str:
        """Tell when the tide is high."""
        return "noon"

    tool = FunctionTool.from_defaults(lookup)
    llm = _llm(is_function_calling_model=True)
    reply = llm.chat_with_tools([tool], user_msg="High tide in Brill?", tool_required=True)
    [call, *_] = llm.get_tool_calls_from_response(reply)
    assert (call.tool_name, list(call.tool_kwargs)) == ("lookup", ["harbour"])


def test_an_index_is_searched_and_answers(llm: OpenAILike, embed_model: OpenAILikeEmbedding) -> None:
    documents = [
        Document(text="The harbour was dredged in 1911."),
        Document(text="The market opens at five."),
    ]
    index = VectorStoreIndex.from_documents(documents, embed_model=embed_model)
    answer = index.as_query_engine(llm=llm, similarity_top_k=1).query("When was the harbour dredged?")
    assert "1911" in answer.source_nodes[0].text
    assert str(answer)
