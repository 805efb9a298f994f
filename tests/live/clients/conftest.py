"""Other people's clients on our server, unchanged: a real vLLM chats behind it, the embedded model makes the vectors.

`make test-clients` runs these, each client in an environment with what it needs; LIVE_VLLM_URL names the vLLM.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.live.conftest import VLLM_URL
from tests.server import KEY, serving

EMBEDDINGS = "wordllama-l2-supercat-256"


def offered() -> list[str]:
    """The models of the vLLM behind, by its own word."""
    if not VLLM_URL:
        return []
    listed = requests.get(f"{VLLM_URL.removesuffix('/v1')}/v1/models", timeout=10)
    return [one["id"] for one in listed.json()["data"]]


def can(**fields: Any) -> bool:
    """Whether the vLLM behind takes such a request, asked directly."""
    if not VLLM_URL:
        return False
    asked = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5, **fields}
    url = f"{VLLM_URL.removesuffix('/v1')}/v1/chat/completions"
    return requests.post(url, json={"model": offered()[0], **asked}, timeout=60).status_code == 200


TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
IMAGE = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{DOT}"}}


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A llmbackend server process of their own in front of the vLLM, whatever else is tested in this run."""
    if not VLLM_URL:
        pytest.skip("set LIVE_VLLM_URL to run this")
    with serving(tmp_path_factory.mktemp("clients"), api_key=KEY, vllm_url=VLLM_URL) as server:
        yield server.url


@pytest.fixture(autouse=True)
def _environment(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that clients are told: where the server is, and the key."""
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server_url}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
