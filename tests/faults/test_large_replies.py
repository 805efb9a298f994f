"""A model server that sends without end is not read without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from llmbackend import BackendError, InvalidRequest, LLMBackendClient, StreamInterrupted
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings, load
from tests.server import KEY, serving

LIMIT = 2**20
ENOUGH = 2**25
"""Bytes after which it gives up, had nobody stopped reading."""


class Endless(BaseHTTPRequestHandler):
    """Sends spaces, or one event's line, until nobody reads any more."""

    sent = 0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self._go_on(b"", b" " * 65536)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        events = b'"stream": true' in body or b'"stream":true' in body
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream" if events else "application/json")
        self.end_headers()
        self._go_on(b"data: " if events else b"", b" " * 65536)

    def _go_on(self, begin: bytes, piece: bytes) -> None:
        Endless.sent = 0
        with suppress(OSError):
            self.wfile.write(begin)
            while Endless.sent < ENOUGH:
                self.wfile.write(piece)
                Endless.sent += len(piece)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def endless() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module", params=["local", "http"])
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LLMBackendClient]:
    with ExitStack() as stack:
        url = stack.enter_context(endless())
        settings: dict[str, Any] = {
            "openai_base_url": url,
            "chat_model": "m",
            "embedding_model": "m",
            "rerank_url": url,
            "max_reply_bytes": LIMIT,
        }
        folder: Path = tmp_path_factory.mktemp("endless")
        if request.param == "local":
            transport = LocalTransport(Settings(data_dir=folder, **settings))
            yield stack.enter_context(LLMBackendClient(transport=transport))
        else:
            server = stack.enter_context(serving(folder, api_key=KEY, **settings))
            yield stack.enter_context(LLMBackendClient(server.url, KEY))


@pytest.mark.parametrize("call", ["chat", "stream", "embed", "rerank", "models"])
def test_an_endless_reply_is_left_at_its_limit(client: LLMBackendClient, call: str) -> None:
    calls = {
        "chat": lambda: client.chat("a"),
        "stream": lambda: list(client.chat("a", stream=True)),
        "embed": lambda: client.embed(["a"]),
        "rerank": lambda: client.rerank("a", ["b"]),
        "models": client.models,
    }
    # Over HTTP a stream has begun by then.
    kinds = (BackendError, StreamInterrupted) if call == "stream" else BackendError
    with pytest.raises(kinds, match=r"sent (a reply|an event) of more than \d+ bytes"):
        calls[call]()
    assert Endless.sent < ENOUGH


@pytest.mark.parametrize(
    "name", ["vllm_url", "litellm_url", "openai_base_url", "tei_url", "rerank_url", "qdrant_url"]
)
def test_a_key_in_the_query_of_a_url_is_refused_and_not_repeated(name: str) -> None:
    with pytest.raises(InvalidRequest, match=name.upper()) as refused:
        load(**{name: "http://models.example/v1?api-key=s3cret"})
    assert "s3cret" not in f"{refused.value!r} {refused.value.details}"
