"""Other people's clients on our responses, unchanged: before the embedded models, and before the vLLM of LIVE_VLLM_URL.

`make test-clients` runs these. What a model says is not judged, where it may be a tiny one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from llmbackend import LLMBackendClient
from tests.live.conftest import VLLM_URL, needs
from tests.server import KEY, serving


@dataclass
class Served:
    """A llmbackend server process, and what is behind it."""

    url: str
    """As OpenAI's clients take it."""
    model: str
    embedded: bool


BEHIND = [
    pytest.param("embedded"),
    pytest.param("vllm", marks=needs("LIVE_VLLM_URL")),
]


@pytest.fixture(scope="session", params=BEHIND)
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    settings: dict[str, Any] = {}
    if request.param == "vllm":
        # A tiny model may not find the end of an agent's task: the run ends at its limits, and tells so.
        settings = {"vllm_url": VLLM_URL, "upstream_timeout": 300, "agent_steps": 6, "agent_seconds": 120}
    with serving(tmp_path_factory.mktemp("responses"), api_key=KEY, **settings) as server:
        models = requests.get(
            f"{server.url}/v1/models", headers={"Authorization": f"Bearer {KEY}"}, timeout=60
        )
        model = models.json()["data"][0]["id"]
        with LLMBackendClient(server.url, KEY) as client:
            client.rag_ingest(
                [{"id": "vacation.md", "text": "Every employee has 28 days of paid vacation a year."}],
                collection="handbook",
            )
        yield Served(f"{server.url}/v1", model, request.param == "embedded")


@pytest.fixture(autouse=True)
def _environment(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """All that clients are told: where the server is, and the key."""
    monkeypatch.setenv("OPENAI_BASE_URL", served.url)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
