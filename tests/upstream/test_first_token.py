"""What is done before a chat model's first token: the question is embedded, and nothing else is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import uvicorn

from llmbackend import LLMBackendClient
from llmbackend.inference.minilm import MiniLM
from llmbackend.inference.static_vectors import StaticEmbedder
from llmbackend.local import LocalTransport
from llmbackend.server.app import create_app
from tests.upstream.conftest import Connect
from tests.upstream.fake import Upstream

QUESTION = "When was the harbour dredged?"
HISTORY = [
    {"role": "user", "content": "Tell me of Aldersea."},
    {"role": "assistant", "content": "It is a town by the sea."},
]
DOCUMENTS = [f"The harbour of Aldersea was dredged in {year}. Larger ships came. It cost much." for year in
             range(1900, 1912)]  # fmt: skip


@contextmanager
def _served(client: LLMBackendClient) -> Iterator[LLMBackendClient]:
    """A client over HTTP of the same backend, in whose process calls can be counted."""
    transport = client._transport
    assert isinstance(transport, LocalTransport)
    core = transport._require()
    server = uvicorn.Server(
        uvicorn.Config(create_app(core.backend), port=0, log_level="error", lifespan="off")
    )
    serving = core.portal.start_task_soon(server.serve)
    until = time.monotonic() + 60
    while not server.started and time.monotonic() < until:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        with LLMBackendClient(f"http://127.0.0.1:{port}", "any", retries=0) as other:
            yield other
    finally:
        server.should_exit = True
        serving.result(60)


@pytest.fixture
def embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that models in this process were given."""
    texts: list[str] = []

    def count(model: type[Any], method: str) -> None:
        through = getattr(model, method)

        def counted(self: Any, given: str | Sequence[str], *args: Any, **options: Any) -> Any:
            texts.extend([given] if isinstance(given, str) else given)
            return through(self, given, *args, **options)

        monkeypatch.setattr(model, method, counted)

    for model in (StaticEmbedder, MiniLM):
        count(model, "embed")
        count(model, "at_once")
    return texts


@pytest.mark.parametrize("over", ["local", "http"])
@pytest.mark.parametrize("history", [None, HISTORY])
def test_only_the_question_is_embedded_before_the_first_token(
    connect: Connect, upstream: Upstream, embedded: list[str], over: str, history: Any
) -> None:
    local = connect(upstream_timeout=60)
    local.rag_ingest(DOCUMENTS, "town")
    upstream.replies = ["In what year was the harbour dredged?"] if history else []
    asked = upstream.replies[0] if history else QUESTION

    def ask(client: LLMBackendClient) -> None:
        embedded.clear()
        answer = client.rag_query(QUESTION, "town", history=history, stream=True, explain=True)
        assert next(iter(answer))
        assert set(embedded) == {asked}
        "".join(answer)
        assert answer.answer.explanation.candidates[0].judge is None

    if over == "local":
        ask(local)
    else:
        with _served(local) as client:
            ask(client)


def test_a_remote_embedder_is_asked_once(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_url=f"{upstream.url}/ok", upstream_timeout=60)
    client.rag_ingest(DOCUMENTS, "town")
    upstream.seen.clear()
    answer = client.rag_query(QUESTION, "town", stream=True)
    assert next(iter(answer))
    asked = [request["inputs"] for request in upstream.seen if "inputs" in request]
    "".join(answer)
    assert asked == [[QUESTION]]
