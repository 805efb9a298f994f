"""Answers from collections as a LlamaIndex query engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.llm import LLM
from llama_index.core.prompts.mixin import PromptMixinType
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, QueryBundle

from llm_client import Answer, AnswerStream, LLMBackendClient

from ..chunks.nodes import scored
from .calling import call, pieces
from .retriever import CollectionRetriever


class CollectionQueryEngine(BaseQueryEngine):
    """A client's `rag_query`: answers with citations, such as [1], and the cited passages.

    A response's `source_nodes` are the answer's sources; their metadata have `number`, `quote`, and whether
    they are `cited`. The response's `metadata` have `found`, `citations`, `model`, `usage` and, with
    `explain`, `explanation`; when streaming, they are filled in at the end.
    """

    def __init__(
        self,
        client: LLMBackendClient,
        retriever: CollectionRetriever,
        llm: LLM,
        *,
        streaming: bool = False,
        history: Sequence[Mapping[str, Any]] | None = None,
        explain: bool = False,
    ) -> None:
        super().__init__(callback_manager=CallbackManager())
        self._client = client
        self._retriever = retriever
        self._llm = llm
        self._streaming = streaming
        self._asked: dict[str, Any] = {**retriever.search, "history": history, "explain": explain}

    def _get_prompt_modules(self) -> PromptMixinType:
        return {}

    def _answer(self, question: str) -> Answer:
        answer: Answer = self._client.rag_query(question, **self._asked)
        return answer

    def _stream(self, question: str) -> AnswerStream:
        return self._client.rag_query(question, **self._asked, stream=True)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        if not self._streaming:
            return _response(self._answer(question))
        stream = self._stream(question)
        told: dict[str, Any] = {}

        def text() -> Generator[str, None, None]:
            with stream:
                yield from stream
                told.update(_told(stream.answer))

        return StreamingResponse(text(), source_nodes=_sources(stream), metadata=told)

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        question = query_bundle.query_str
        if not self._streaming:
            return _response(await call(self._answer, question))
        stream = await call(self._stream, question)
        told: dict[str, Any] = {}

        async def text() -> AsyncGenerator[str, None]:
            async for piece in pieces(stream):
                yield piece
            told.update(_told(stream.answer))

        return AsyncStreamingResponse(text(), source_nodes=_sources(stream), metadata=told)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return self._retriever.retrieve(query_bundle)

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return await self._retriever.aretrieve(query_bundle)

    # If others have found the nodes, LlamaIndex writes the answer.

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        synthesizer = get_response_synthesizer(llm=self._llm, streaming=self._streaming)
        return synthesizer.synthesize(query_bundle, nodes, additional_source_nodes)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        synthesizer = get_response_synthesizer(llm=self._llm, streaming=self._streaming)
        return await synthesizer.asynthesize(query_bundle, nodes, additional_source_nodes)


def _response(answer: Answer) -> Response:
    return Response(str(answer), source_nodes=_sources(answer), metadata=_told(answer))


def _sources(answer: Answer | AnswerStream) -> list[NodeWithScore]:
    """The answer's sources; while it is streamed, it is not known which of them are cited."""
    cited = answer.citations if isinstance(answer, Answer) else None
    return [
        scored(
            source,
            number=source["number"],
            quote=source["quote"],
            **({} if cited is None else {"cited": source["number"] in cited}),
        )
        for source in answer.sources
    ]


def _told(answer: Answer) -> dict[str, Any]:
    told = {
        "found": answer.found,
        "citations": answer.citations,
        "model": answer.model,
        "usage": dict(answer.usage),
    }
    return told if answer.explanation is None else {**told, "explanation": answer.explanation}
