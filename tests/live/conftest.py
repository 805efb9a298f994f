"""Tests against real model servers, only when asked for: `pytest tests/live -m live`.

LIVE_VLLM_URL names a vLLM with a chat model, LIVE_LITELLM_URL a LiteLLM proxy with one and LIVE_LITELLM_KEY its key,
LIVE_RERANK_URL a vLLM with an embedding model or a reranker. All must be on this machine: tests connect nowhere else. What a model says is not judged, it may be a tiny one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving


@dataclass
class ModelServer:
    """A real server, and the settings that lead to it."""

    name: str
    url: str
    settings: dict[str, Any]


def needs(*variables: str) -> list[pytest.MarkDecorator]:
    """The mark of what cannot run without these variables; none where they are set."""
    missing = [name for name in variables if not os.environ.get(name)]
    return [pytest.mark.skip(reason=f"set {' and '.join(missing)} to run this")] if missing else []


VLLM_URL = os.environ.get("LIVE_VLLM_URL", "").rstrip("/")
LITELLM_URL = os.environ.get("LIVE_LITELLM_URL", "").rstrip("/")
LITELLM_KEY = os.environ.get("LIVE_LITELLM_KEY", "")
SERVERS = [
    pytest.param(
        ModelServer("vLLM", VLLM_URL, {"vllm_url": VLLM_URL}), id="vllm", marks=needs("LIVE_VLLM_URL")
    ),
    pytest.param(
        ModelServer("LiteLLM", LITELLM_URL, {"litellm_url": LITELLM_URL, "litellm_api_key": LITELLM_KEY}),
        id="litellm",
        marks=needs("LIVE_LITELLM_URL", "LIVE_LITELLM_KEY"),
    ),
]


@pytest.fixture(scope="session", params=SERVERS)
def upstream(request: pytest.FixtureRequest) -> ModelServer:
    """Each model server in turn."""
    server: ModelServer = request.param
    return server


@pytest.fixture(scope="session")
def server_url(upstream: ModelServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llmbackend server process in front of the model server."""
    with serving(tmp_path_factory.mktemp("server"), api_key=KEY, **upstream.settings) as server:
        yield server.url


@pytest.fixture(scope="session", params=["local", "http"])
def client(
    request: pytest.FixtureRequest, upstream: ModelServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LLMBackendClient]:
    """A client on each transport, with each model server behind it."""
    if request.param == "http":
        opened = LLMBackendClient(request.getfixturevalue("server_url"), KEY)
    else:
        options = Settings(data_dir=tmp_path_factory.mktemp("local"), **upstream.settings)
        opened = LLMBackendClient(transport=LocalTransport(options))
    with opened as client:
        yield client


@pytest.fixture
def model(client: LLMBackendClient) -> str:
    """The first chat model offered: the one that answers where none is named."""
    name: str = next(one.id for one in client.models() if one.type == "chat")
    return name
