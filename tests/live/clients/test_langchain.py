"""LangChain's standard tests of chat models and embeddings, by its OpenAI classes on our server.

What vLLM behind it can do is found out by asking it directly. Without --enable-auto-tool-choice it calls no tools.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from tests.live.clients.conftest import EMBEDDINGS, IMAGE, TOOL, can, offered
from tests.server import KEY

pytest.importorskip("langchain_tests", reason="needs langchain-tests: run by `make test-clients`")
pytest.importorskip("langchain_openai", reason="needs langchain-openai: run by `make test-clients`")

from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from langchain_tests.integration_tests import ChatModelIntegrationTests, EmbeddingsIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests, EmbeddingsUnitTests

pytestmark = pytest.mark.live

COLLECTION = "langchain"

# What the small model behind cannot do; asked directly, without us in between, it fails at the same.
EXPECTED = {
    "test_serdes": "compares LangChain's class with a picture of it that LangChain keeps",
    "test_json_mode": "SmolLM2-135M gives JSON, but does not find the keys that are asked for",
    "test_agent_loop": "SmolLM2-135M calls no tool unless it has to",
    "test_structured_output_optional_param": "SmolLM2-135M may go in circles within a string, up to the limit",
    "test_tool_calling_with_no_arguments": "SmolLM2-135M may go in circles between the braces, up to the limit",
    "test_unicode_tool_call_integration": "SmolLM2-135M does not copy Japanese",
}
BY_TOOLS = {
    "test_structured_output_pydantic_2_v1": "of such classes LangChain makes tools, and this vLLM calls none",
}


@cache
def _models() -> list[str]:
    return offered()


@cache
def _calls_tools() -> bool:
    return can(tools=[TOOL], tool_choice="required") and can(tools=[TOOL])


@cache
def _sees() -> bool:
    return can(messages=[{"role": "user", "content": [IMAGE]}])


@pytest.fixture(scope="module", autouse=True)
def _collection(server_url: str) -> None:
    with LLMBackendClient(server_url, KEY) as client:
        client.rag_ingest("Cats purr when they are content.", COLLECTION)


@pytest.fixture(autouse=True)
def _expected(request: pytest.FixtureRequest) -> None:
    reason = EXPECTED.get(request.node.originalname)
    if not _calls_tools():
        reason = reason or BY_TOOLS.get(request.node.originalname)
    if reason:
        request.applymarker(pytest.mark.xfail(reason=reason))


class Chat:
    """The set-up that both suites share."""

    @property
    def chat_model_class(self) -> type[ChatOpenAI]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": (_models() or [""])[0]}

    @property
    def has_tool_calling(self) -> bool:
        return _calls_tools()

    @property
    def has_tool_choice(self) -> bool:
        return _calls_tools()

    @property
    def supports_json_mode(self) -> bool:
        return True

    @property
    def supports_image_inputs(self) -> bool:
        return _sees()

    @property
    def supports_image_urls(self) -> bool:
        return False  # vLLM would have to fetch them from the internet

    @property
    def supports_image_tool_message(self) -> bool:
        return _sees()

    @property
    def model_override_value(self) -> str | None:
        return f"rag/{COLLECTION}"


class TestChatUnit(Chat, ChatModelUnitTests):
    pass


class TestChat(Chat, ChatModelIntegrationTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {
            **super().chat_model_params,
            "stream_usage": True,  # which on other servers than OpenAI's has to be asked for
            # SmolLM2-135M goes in circles otherwise, and calls a tool over and over.
            "temperature": 0,
            "max_tokens": 300,
            "extra_body": {"repetition_penalty": 1.05},
            "model_kwargs": {"parallel_tool_calls": False},
        }


class Vectors:
    @property
    def embeddings_class(self) -> type[OpenAIEmbeddings]:
        return OpenAIEmbeddings

    @property
    def embedding_model_params(self) -> dict[str, Any]:
        # Otherwise it cuts texts into OpenAI's tokens, for which it downloads their list.
        return {"model": EMBEDDINGS, "check_embedding_ctx_length": False}


class TestEmbeddingsUnit(Vectors, EmbeddingsUnitTests):
    pass


class TestEmbeddings(Vectors, EmbeddingsIntegrationTests):
    pass
