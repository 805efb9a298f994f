"""The client's HTTP transport before servers that are away, busy, slow, of another version, or no server of ours."""

from __future__ import annotations

import ast
import json
import socket
import threading
import time
import warnings
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

import llm_client
import llmbackend
from llmbackend import InvalidRequest, LLMBackendClient, Overloaded, TransportError

OURS = {"X-LLMBackend-Overhead-Ms": "0.1", "X-LLMBackend-Version": llm_client.__version__}
JOB = (200, {"id": "a-job"}, OURS)
BUSY = (429, {"error": {"code": "overloaded", "message": "later", "details": {"retry_after": 0.01}}}, {})
BREAK = (0, None, {})
"""The connection is closed in place of an answer."""


class Scripted(ThreadingHTTPServer):
    """Answers by a script, one entry a request; the last one stays."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script: list[tuple[int, Any, dict[str, str]]] = []
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append((self.path, dict(self.headers), json.loads(body or b"null")))
        status, answer, headers = (
            self.server.script.pop(0) if len(self.server.script) > 1 else self.server.script[0]
        )
        if status == 0:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_DELETE = do_POST

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    monkeypatch.setattr(llm_client, "PAUSE", 0.01)
    server = Scripted()
    yield server
    server.shutdown()
    server.server_close()


def test_a_client_waits_for_a_server_that_says_when_to_come_back(server: Scripted) -> None:
    server.script = [BUSY, BUSY, (200, {"deleted": True}, OURS)]
    with LLMBackendClient(server.url) as client:
        assert client.delete_collection("x").deleted  # refused before anything was done
    assert len(server.seen) == 3


def test_a_client_gives_up_after_its_retries(server: Scripted) -> None:
    server.script = [BUSY]
    with LLMBackendClient(server.url, retries=1) as client, pytest.raises(Overloaded):
        client.health()
    assert len(server.seen) == 2


def test_a_server_that_wants_too_long_a_wait_is_not_waited_for(server: Scripted) -> None:
    later = {"code": "overloaded", "message": "tomorrow", "details": {"retry_after": 40_000}}
    server.script = [(429, {"error": later}, {})]
    with LLMBackendClient(server.url) as client, pytest.raises(Overloaded, match="tomorrow"):
        client.health()
    assert len(server.seen) == 1


def test_what_a_call_has_stored_by_then_is_not_hidden_by_a_retry(server: Scripted) -> None:
    halfway = {"code": "overloaded", "message": "busy", "details": {"retry_after": 0.01, "ingested": 3}}
    server.script = [(429, {"error": halfway}, {})]
    with LLMBackendClient(server.url) as client, pytest.raises(Overloaded) as caught:
        client.rag_ingest(["text"], collection="x")
    assert caught.value.details["ingested"] == 3
    assert len(server.seen) == 1


def test_a_lost_answer_is_asked_for_again_where_that_changes_nothing(server: Scripted) -> None:
    server.script = [BREAK, (502, b"<html>bad gateway</html>", {}), (200, {"hits": []}, OURS)]
    with LLMBackendClient(server.url) as client:
        assert client.rag_search("question", collection="x") == []
    assert len(server.seen) == 3


def test_a_lost_answer_of_a_change_is_told(server: Scripted) -> None:
    server.script = [BREAK]
    with LLMBackendClient(server.url) as client, pytest.raises(TransportError) as caught:
        client.delete_documents("x", ["a"])
    assert "it broke the connection): has it stopped" in str(caught.value)
    assert caught.value.details["sent"]
    assert len(server.seen) == 1


def test_a_job_whose_id_was_lost_is_submitted_once(server: Scripted) -> None:
    server.script = [BREAK, JOB]
    with LLMBackendClient(server.url) as client:
        assert client.submit_job("batch_embed", {"texts": ["a"]}) == "a-job"
    keys = [body["idempotency_key"] for _, _, body in server.seen]
    assert len(keys) == 2
    assert keys[0] == keys[1] != ""


def test_a_server_that_is_being_started_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as chosen:
        chosen.bind(("127.0.0.1", 0))
        port = chosen.getsockname()[1]
    starting: list[Scripted] = []

    def wait(self: threading.Event, seconds: float | None = None) -> bool:
        ThreadingHTTPServer.allow_reuse_address = True
        server = Scripted.__new__(Scripted)
        ThreadingHTTPServer.__init__(server, ("127.0.0.1", port), _Handler)
        server.script, server.seen = [JOB], []
        starting.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return False

    client = LLMBackendClient(f"http://127.0.0.1:{port}")
    monkeypatch.setattr(client._transport._closed, "wait", wait.__get__(client._transport._closed))
    with client:
        assert client.submit_job("batch_embed", {"texts": ["a"]}) == "a-job"
    starting[0].shutdown()
    starting[0].server_close()


def test_nothing_there(server: Scripted) -> None:
    url = server.url
    server.shutdown()
    server.server_close()
    with (
        LLMBackendClient(url) as client,
        pytest.raises(TransportError, match="is the server running") as caught,
    ):
        client.chat("hello")
    assert caught.value.details == {"sent": False, "retry": True}


def test_https_where_http_is_spoken(server: Scripted) -> None:
    server.script = [JOB]
    url = server.url.replace("http:", "https:")
    with LLMBackendClient(url) as client, pytest.raises(TransportError, match="is it http://"):
        client.health()


@pytest.mark.parametrize(
    "answer",
    [(400, b"The plain HTTP request was sent to HTTPS port", {}), BREAK],
    ids=["a page says so", "closed"],
)
def test_http_where_https_is_spoken(server: Scripted, answer: Any) -> None:
    server.script = [answer]
    with (
        LLMBackendClient(server.url, retries=0) as client,
        pytest.raises(TransportError, match="is it https://"),
    ):
        client.health()


def test_a_server_that_says_nothing_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        with (
            LLMBackendClient(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1) as client,
            pytest.raises(TransportError, match=r"within 0\.1 s: give the client a larger timeout="),
        ):
            client.chat("hello")
        assert time.monotonic() - begun < 5


@pytest.mark.parametrize("timeout", [(1, 2), 0, -1, "5", None, True])
def test_a_timeout_is_a_number_of_seconds(timeout: Any) -> None:
    with pytest.raises(InvalidRequest, match="timeout must be a number of seconds"):
        LLMBackendClient("http://127.0.0.1:1", timeout=timeout)


@pytest.mark.parametrize("url", ["{}/v1", "{}/v1/", "{}/"])
def test_a_url_as_openais_clients_have_it(server: Scripted, url: str) -> None:
    server.script = [(200, {"status": "ok"}, OURS)]
    with LLMBackendClient(base_url=url.format(server.url)) as client:
        assert client.health().status == "ok"
    assert server.seen[0][0] == "/health/ready"


@pytest.mark.parametrize(
    ("status", "content", "told"),
    [
        (200, b"<html>Sign in</html>", "a web page, such as a sign-in"),
        (302, b"", "it redirects"),
        (401, b"<html>Authorization Required</html>", "its own sign-in"),
        (404, b"404 page not found", "correct the URL"),
        (413, b"<html>413 Request Entity Too Large</html>", "client_max_body_size"),
        (502, b"<html><center>nginx</center></html>", "cannot reach the server behind it"),
        (504, b"<html>Gateway Time-out</html>", "raise its timeout"),
    ],
)
def test_what_something_else_answers_is_told_with_what_to_do(
    server: Scripted, status: int, content: bytes, told: str
) -> None:
    server.script = [(status, content, {"Content-Type": "text/html", "Location": "/login"})]
    with pytest.raises(TransportError, match=told):
        LLMBackendClient(server.url, "key", retries=0).embed(["one"])


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://me:sesame@127.0.0.1:9", "a user and password"),
        ("https://sesame@127.0.0.1:99999/v1", "a user and password"),
        ("http://127.0.0.1:99999", "must be like http://host:port, not"),
        ("http://:8888", "must be like http://host:port, not"),
        ("http://[::1", "must be like http://host:port, not"),
        ("http://127.0.0.1:9/#/login", "leave out the part after"),
        ("http://127.0.0.1:9?key=a", "leave out the part after"),
    ],
)
def test_a_url_that_cannot_be_one_is_refused_at_once_and_no_password_shown(url: str, told: str) -> None:
    with pytest.raises(InvalidRequest, match=told) as error:
        LLMBackendClient(url, "key")
    assert "sesame" not in str(error.value)


def test_a_key_is_given_alone(server: Scripted) -> None:
    with pytest.raises(InvalidRequest, match="the key alone"):
        LLMBackendClient(f" {server.url} ", "Bearer abc")


def test_two_urls_are_one_too_many() -> None:
    with pytest.raises(InvalidRequest, match="mean the same"):
        LLMBackendClient("http://a", base_url="http://b")


@pytest.mark.parametrize("given", [{"api_url": ""}, {"api_url": " "}, {"base_url": ""}])
def test_an_empty_url_does_not_mean_this_process(given: dict[str, str]) -> None:
    with pytest.raises(InvalidRequest, match="api_url is empty"):
        LLMBackendClient(**given)  # type: ignore[arg-type]


def test_a_client_says_what_it_is(server: Scripted) -> None:
    server.script = [(200, {"status": "ok"}, OURS)]
    with LLMBackendClient(server.url) as client:
        client.health()
    said = server.seen[0][1]["User-Agent"]
    assert said == f"llmbackend-python/{llmbackend.__version__} requests/{requests.__version__}"


def test_a_server_of_another_version_is_told_once_where_it_is_called(server: Scripted) -> None:
    server.script = [(200, {"status": "ok"}, {**OURS, "X-LLMBackend-Version": "99.1.0"})]
    with LLMBackendClient(server.url) as client:
        with pytest.warns(UserWarning, match=r"is llmbackend 99\.1\.0, and this client is") as told:
            client.health()
        assert told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            client.health()


def test_a_server_tells_its_version(server_url: str) -> None:
    reply = requests.get(f"{server_url}/health/live", timeout=10)
    assert reply.headers["X-LLMBackend-Version"] == llmbackend.__version__


def test_the_file_is_readable_by_python_3_9() -> None:
    source = Path(llm_client.__file__).read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 9))
    assert "SPDX-License-Identifier: Apache-2.0" in source
