"""A Qdrant server that is away, refuses, breaks or hangs; what it does when it works: tests/unit/test_vectors.py."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from llmbackend import BackendError, BackendTimeout, LLMBackendClient, LLMBackendError, Overloaded
from llmbackend.engines import qdrant_server
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import closed_port

QDRANT_KEY = "qdrant-s3cret"


class _Qdrant(BaseHTTPRequestHandler):
    """Answers as `behaviour` says: a status, or nothing for as long as `hanging` lasts."""

    behaviour: ClassVar[Any] = 200
    keys: ClassVar[list[str | None]] = []
    hanging: ClassVar[threading.Event] = threading.Event()

    def do_GET(self) -> None:
        self.keys.append(self.headers.get("api-key"))
        if self.behaviour == "hang":
            self.hanging.wait(20)
            return
        if self.behaviour in ("trickle", "page"):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            page = b"<html>Log in</html>"
            while self.behaviour == "trickle" and not self.hanging.wait(0.1):
                self.wfile.write(b" ")
            self.wfile.write(page)
            return
        if self.path == "/":
            body: Any = {"title": "qdrant", "version": "1.17.0"}
        elif self.path == "/collections":
            body = {"result": {"collections": [{"name": "one"}]}, "status": "ok", "time": 0}
        else:
            body = {"status": {"error": "what the server says"}, "time": 0}
        sent = json.dumps(body).encode()
        self.send_response(self.behaviour)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(sent)))
        if self.behaviour == 429:
            self.send_header("Retry-After", "7")
        self.end_headers()
        self.wfile.write(sent)

    do_PUT = do_POST = do_DELETE = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def qdrant() -> Iterator[str]:
    _Qdrant.keys.clear()
    _Qdrant.hanging.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Qdrant)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    _Qdrant.hanging.set()
    server.shutdown()
    thread.join()
    server.server_close()


FAILURES: list[tuple[Any, type[LLMBackendError], str]] = [
    (401, BackendError, "QDRANT_API_KEY"),
    (403, BackendError, "QDRANT_API_KEY"),
    (429, Overloaded, "overloaded"),
    (500, BackendError, "what the server says"),
    ("hang", BackendTimeout, "did not answer"),
    ("trickle", BackendTimeout, "did not answer"),
    ("page", BackendError, "is this the right URL?"),
]


@pytest.mark.parametrize(("behaviour", "kind", "message"), FAILURES, ids=lambda value: str(value))
def test_what_a_server_does_wrong_is_told_by_its_class(
    connect: Connect, qdrant: str, monkeypatch: pytest.MonkeyPatch, behaviour: Any, kind: Any, message: str
) -> None:
    monkeypatch.setattr(_Qdrant, "behaviour", behaviour)
    client = connect(qdrant_url=qdrant, qdrant_api_key=QDRANT_KEY, chat_model=None, openai_base_url=None)
    with fails(kind, backend="Qdrant", url=qdrant) as caught:
        client.create_collection("town")
    assert message in caught.value.message
    assert QDRANT_KEY not in f"{caught.value!r} {caught.value.to_dict()}"
    assert client.list_collections() == []
    assert set(_Qdrant.keys) == {QDRANT_KEY}


def test_a_server_that_is_away_is_told(connect: Connect, tmp_path: Path) -> None:
    url = closed_port()
    client = connect(qdrant_url=url)
    with fails(BackendError, backend="Qdrant", url=url) as caught:
        client.rag_ingest("A text.", "town")
    assert "is it running?" in caught.value.message
    assert client.list_collections() == []
    client.close()
    connect(qdrant_url=url)  # what may have been begun there is no reason not to start


def test_the_doctor_asks_the_qdrant_server(
    connect: Connect, qdrant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(qdrant_url=qdrant, qdrant_api_key=QDRANT_KEY)

    def check() -> Any:
        [found] = [check for check in client.doctor().checks if check.name == "vectors"]
        return found

    found = check()
    assert (found.ok, found.server, found.url, found.fix) == (True, "Qdrant", qdrant, None)
    assert (found.version, found.limits) == ("1.17.0", {"collections": 1})
    monkeypatch.setattr(_Qdrant, "behaviour", 401)
    found = check()
    assert not found.ok
    assert "QDRANT_API_KEY" in found.fix
    monkeypatch.setattr(_Qdrant, "behaviour", "hang")
    assert "did not answer" in check().fix


def test_without_its_client_a_start_tells_which_extra_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_server, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"llmbackend\[qdrant\]"):
        LLMBackendClient(
            transport=LocalTransport(Settings(data_dir=tmp_path, qdrant_url="http://127.0.0.1:9"))
        ).health()
