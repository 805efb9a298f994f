"""Requests that no well-behaved client sends, straight to the server."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from llm_client import encoded
from llmbackend import LLMBackendClient, LLMBackendError, TooLarge, Unauthorized
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving

WITH_KEY = {"Authorization": f"Bearer {KEY}"}
LIMIT = 4096
PROTECTED = [
    ("GET", "/v1/models"),
    ("GET", "/v1/models/rag/x"),
    ("GET", "/v1/doctor"),
    ("GET", "/v1/collections"),
    ("DELETE", "/v1/collections/x"),
    ("POST", "/v1/embeddings"),
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/jobs"),
    ("GET", "/nowhere"),
    ("GET", "/docs"),
]


@pytest.fixture(scope="module")
def small_url(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[str]:
    """A server that accepts bodies of LIMIT bytes at most."""
    folder = tmp_path_factory.mktemp("small")
    with serving(folder, models_dir=models_dir, api_key=KEY, max_body_bytes=LIMIT) as server:
        yield server.url


def refused(reply: requests.Response, status: int, code: str) -> dict[str, Any]:
    """The error of a reply, which must have our shape, this status and this code."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == {"code", "message", "details", "request_id", "type", "param"}
    assert error["code"] == code
    assert error["message"]
    assert isinstance(error["details"], dict)
    assert error["request_id"] == reply.headers["x-request-id"]
    assert KEY not in reply.text
    return error


def raw(url: str, *lines: bytes) -> tuple[int, bytes]:
    """Status and all that comes back for a request of these very lines."""
    where = urlsplit(url)
    with socket.create_connection((where.hostname, where.port), timeout=60) as connection:
        connection.sendall(b"\r\n".join([*lines, b"Connection: close", b"", b""]))
        reply = b""
        while part := connection.recv(65536):
            reply += part
    return int(reply.split(b" ", 2)[1]), reply


# Keys


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer "},
        {"Authorization": ""},
        {"Authorization": KEY},
        {"Authorization": f"Basic {KEY}"},
        {"Authorization": f"Bearer {KEY}x"},
        {"Authorization": f"Bearer {KEY[:-1]}"},
        {"Authorization": f"Bearer {KEY.upper()}"},
        {"X-API-Key": "wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer schlüssel".encode()},
        {"X-API-Key": "schlüssel".encode("latin-1")},
        {"X-API-Key": b"\xff\xfe"},
    ],
    ids=repr,
)
def test_without_the_right_key_nothing_is_answered(
    server_url: str, method: str, path: str, headers: dict[str, Any]
) -> None:
    reply = requests.request(method, server_url + path, headers=headers, timeout=60)
    refused(reply, 401, "unauthorized")
    assert reply.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "headers", [WITH_KEY, {"Authorization": f"bearer  {KEY}"}, {"X-API-Key": KEY}], ids=repr
)
def test_the_key_is_taken_in_either_header(server_url: str, headers: dict[str, str]) -> None:
    reply = requests.get(server_url + "/v1/models", headers=headers, timeout=60)
    assert reply.status_code == 200
    assert KEY not in reply.text


def test_a_key_in_the_query_is_no_key(server_url: str) -> None:
    reply = requests.get(server_url + "/v1/models", params={"api_key": KEY}, timeout=60)
    refused(reply, 401, "unauthorized")


def test_the_sdk_with_a_key_that_fits_no_header_raises_its_own_error(server_url: str) -> None:
    keys: list[Any] = ["schlüssel", "€", "a\nb", 4711]
    for key in keys:
        with pytest.raises(LLMBackendError), LLMBackendClient(server_url, key) as client:
            client.models()


@pytest.mark.parametrize("path", ["/health/live", "/health/ready", "/openapi.json"])
def test_public_paths_need_no_key(server_url: str, path: str) -> None:
    reply = requests.get(server_url + path, timeout=60)
    assert reply.status_code == 200
    assert reply.headers["x-request-id"]
    assert KEY not in reply.text


def test_the_key_is_asked_for_before_the_body(small_url: str) -> None:
    reply = requests.post(small_url + "/v1/embeddings", data=b"x" * 100_000, timeout=60)
    refused(reply, 401, "unauthorized")


# Bodies


@pytest.mark.parametrize(
    "path", ["/v1/embeddings", "/v1/chat/completions", "/v1/collections/x/documents/delete"]
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"not json",
        b"[]",
        b"[1, 2]",
        b"null",
        b"7",
        b'"text"',
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[" * 100_000,
        b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
        b'{"stream": true, "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"input": "a", "colour": "red"}',
        b'{"input": NaN}',
        b'{"input": 1' + b"0" * 5000 + b"}",
        b'{"stream": 1' + b"0" * 5000 + b"}",
    ],
    ids=lambda body: repr(body[:24]),
)
def test_a_malformed_body_is_refused(server_url: str, path: str, body: bytes) -> None:
    reply = requests.post(server_url + path, data=body, headers=WITH_KEY, timeout=20)
    refused(reply, 422, "invalid_request")


def test_a_form_is_refused(server_url: str) -> None:
    reply = requests.post(server_url + "/v1/embeddings", data={"input": "a"}, headers=WITH_KEY, timeout=60)
    refused(reply, 422, "invalid_request")


def test_the_input_is_not_echoed(server_url: str) -> None:
    body = {"input": [{"secret": "hunter2"}]}
    reply = requests.post(server_url + "/v1/embeddings", json=body, headers=WITH_KEY, timeout=60)
    refused(reply, 422, "invalid_request")
    assert "hunter2" not in reply.text


def test_a_path_wins_over_the_body(server_url: str) -> None:
    body = {"collection": "other", "ids": ["a"]}
    url = server_url + "/v1/collections/nowhere/documents/delete"
    error = refused(requests.post(url, json=body, headers=WITH_KEY, timeout=60), 404, "not_found")
    assert error["details"] == {"collection": "nowhere"}


def test_a_huge_body_is_refused(small_url: str) -> None:
    body = json.dumps({"input": ["x" * LIMIT]})
    reply = requests.post(small_url + "/v1/embeddings", data=body, headers=WITH_KEY, timeout=60)
    assert refused(reply, 413, "too_large")["details"] == {"limit": LIMIT}


def test_a_huge_body_without_a_length_is_refused(small_url: str) -> None:
    parts = (b"x" * 1024 for _ in range(20))
    reply = requests.post(small_url + "/v1/embeddings", data=parts, headers=WITH_KEY, timeout=60)
    assert refused(reply, 413, "too_large")["details"] == {"limit": LIMIT}


def test_a_body_of_just_the_limit_is_accepted(small_url: str) -> None:
    empty = json.dumps({"input": [""]})
    body = json.dumps({"input": ["x" * (LIMIT - len(empty))]})
    assert len(body) == LIMIT
    reply = requests.post(small_url + "/v1/embeddings", data=body, headers=WITH_KEY, timeout=60)
    assert reply.status_code == 200
    reply = requests.post(small_url + "/v1/embeddings", data=body + " ", headers=WITH_KEY, timeout=60)
    refused(reply, 413, "too_large")


@pytest.mark.parametrize("beyond", [0, 1])
@pytest.mark.parametrize("letter", ["x", "ß", '"'])
def test_texts_are_measured_alike_in_process(
    small_url: str, models_dir: Path, tmp_path: Path, letter: str, beyond: int
) -> None:
    given = {"input": [letter * 1000], "too_long": "split", "encoding_format": "bytes"}
    text = letter * 1000 + "x" * (LIMIT + beyond - len(encoded("embed", given)))
    options = Settings(data_dir=tmp_path, models_dir=models_dir, max_body_bytes=LIMIT)
    with (
        LLMBackendClient(transport=LocalTransport(options)) as local,
        LLMBackendClient(small_url, KEY) as http,
    ):
        for client in (local, http):
            with pytest.raises(TooLarge) if beyond else nullcontext():
                assert len(client.embed([text])) == 1


# Queries, routes and methods


@pytest.mark.parametrize(
    "path",
    [
        "/v1/jobs?limit=0",
        "/v1/jobs?limit=abc",
        "/v1/jobs?limit=",
        "/v1/jobs?limit=1e3",
        "/v1/jobs?limit=99999999999999999999999",
        "/v1/jobs?status=lost",
        "/v1/jobs?colour=red",
        "/v1/jobs/%00",
        "/v1/jobs/a%20b",
        "/v1/collections?x=1",
        "/v1/collections/x/documents?limit=1001",
        "/v1/collections/%C3%A4",
        "/v1/collections/%FF",
        "/v1/collections/x%0A",
        "/health/ready?x=1",
    ],
)
def test_a_bad_value_in_the_url_is_refused(server_url: str, path: str) -> None:
    refused(requests.get(server_url + path, headers=WITH_KEY, timeout=60), 422, "invalid_request")


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v2/models", "/v1/collections/a/b/c", "/docs"])
def test_an_unknown_route_is_not_found(server_url: str, path: str) -> None:
    refused(requests.get(server_url + path, headers=WITH_KEY, timeout=60), 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/embeddings"),
        ("POST", "/v1/models"),
        ("PUT", "/v1/collections"),
        ("DELETE", "/v1/collections"),
        ("DELETE", "/health/live"),
        ("OPTIONS", "/v1/jobs"),
        ("GET", "/v1/jobs/batch_chat"),  # a path that has the form of another's, with a name in it
        ("OPTIONS", "/v1/jobs/batch_chat"),
    ],
)
def test_a_wrong_method_is_told_as_such(server_url: str, method: str, path: str) -> None:
    reply = requests.request(method, server_url + path, headers=WITH_KEY, timeout=60)
    assert reply.status_code == 405
    assert reply.headers["allow"]
    assert not path.endswith("batch_chat") or reply.headers["allow"] == "POST"
    refused(reply, 405, reply.json()["error"]["code"])


def test_every_request_has_an_id_of_its_own(server_url: str) -> None:
    given = {"X-Request-Id": "mine"}
    ids = [
        requests.get(server_url + path, headers=given, timeout=60).headers["x-request-id"]
        for path in ("/health/live", "/v1/models", "/nowhere")
    ]
    assert len(set(ids)) == 3


# Tricks


@pytest.mark.parametrize(
    "target",
    [
        b"//v1/models",
        b"/v1//models",
        b"/v1/models/",
        b"/v1/../v1/models",
        b"/health/live/../../v1/models",
        b"/v1/../health/live",
        b"/v1/models/../../health/live",
        b"/%2e%2e/v1/models",
        b"/health/live/%2e%2e/%2e%2e/v1/models",
        b"/health%2Flive/../v1/models",
        b"/health/live;/v1/models",
        b"/V1/MODELS",
        b"/v1/models%00/health/live",
        b"/v1/models?/health/live",
        b"/v1/models#/health/live",
        b"/v1/models%3F/health/live",
        b"/openapi.json/../v1/models",
        b"/v1/%6dodels",
        b"http://localhost/v1/models",
        b"http://localhost/health/live/../../v1/models",
    ],
    ids=repr,
)
@pytest.mark.parametrize("host", [b"localhost", b"x/health/live?", b"/health/live", b"a@b:c/../", b""])
def test_no_spelling_of_a_path_gets_around_the_key(server_url: str, target: bytes, host: bytes) -> None:
    status, reply = raw(server_url, b"GET " + target + b" HTTP/1.1", b"Host: " + host)
    assert status in (400, 401, 404)
    assert b"SmolLM2" not in reply
    assert KEY.encode() not in reply


def test_no_header_gets_around_the_key(server_url: str) -> None:
    for header in (
        "X-Original-URL: /health/live",
        "X-Rewrite-URL: /health/live",
        "X-Forwarded-Path: /health/live",
        "X-HTTP-Method-Override: HEAD",
        "X-Forwarded-For: 127.0.0.1",
    ):
        status, _ = raw(server_url, b"GET /v1/models HTTP/1.1", b"Host: localhost", header.encode())
        assert status == 401


@pytest.mark.parametrize(
    "lines",
    [
        [b"nonsense"],
        [b"GET /v1/models"],
        [b"GET /v1/models HTTP/9.9"],
        [b"GET /v1/models HTTP/1.1", b"Host: x", b"Content-Length: -1"],
        [b"GET /v1/models HTTP/1.1", b"Host: x", b"no colon"],
        [b"POST /v1/embeddings HTTP/1.1", b"Host: x", b"Content-Length: 2", b"Content-Length: 3"],
    ],
    ids=repr,
)
def test_what_is_not_http_is_refused(server_url: str, lines: list[bytes]) -> None:
    status, _ = raw(server_url, *lines)
    assert 400 <= status < 500
    assert requests.get(server_url + "/health/live", timeout=60).status_code == 200


# Other people's web pages


def test_a_packed_body_is_refused_as_such(server_url: str) -> None:
    for path in ("/v1/rag/search", "/v1/rag/ingest/files"):
        reply = requests.post(
            f"{server_url}{path}",
            data=gzip.compress(b"{}"),
            headers={**WITH_KEY, "Content-Type": "application/json", "Content-Encoding": "gzip"},
            timeout=30,
        )
        assert "body in 'gzip'" in refused(reply, 422, "invalid_request")["message"]


def test_a_body_that_is_not_json_by_its_type_is_refused(server_url: str) -> None:
    reply = requests.post(
        f"{server_url}/v1/collections",
        data='{"collection": "planted"}',
        headers={
            "Authorization": f"Bearer {KEY}",
            "Content-Type": "text/plain",
            "Origin": "http://evil.example",
        },
        timeout=30,
    )
    assert (reply.status_code, reply.json()["error"]["code"]) == (422, "invalid_request")


@pytest.fixture(scope="module")
def open_url(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[str]:
    """A server without a key."""
    with serving(tmp_path_factory.mktemp("open"), models_dir=models_dir) as server:
        yield server.url


def test_without_a_key_only_requests_to_this_machines_names_are_answered(open_url: str) -> None:
    assert requests.get(f"{open_url}/v1/collections", timeout=30).status_code == 200
    for host in ("evil.example", "localhost.evil.example", "[", "[::1", "localhost:x@evil.example"):
        rebound = requests.get(f"{open_url}/v1/collections", headers={"Host": host}, timeout=30)
        refused(rebound, 403, "forbidden")


@pytest.mark.parametrize("origin", ["http://evil.example", "http://localhost:1", "null", "http://[", ""])
@pytest.mark.parametrize("kind", [None, "text/plain", "multipart/form-data; boundary=b"])
def test_without_a_key_nothing_is_done_for_pages_of_other_sites(
    open_url: str, origin: str, kind: str | None
) -> None:
    """A browser sends these without asking; what has no type is a Blob's."""
    headers = {"Origin": origin, **({"Content-Type": kind} if kind else {})}
    body = b'{"collection": "planted"}'
    planted = requests.post(f"{open_url}/v1/collections", data=body, headers=headers, timeout=30)
    refused(planted, 403, "forbidden")
    assert requests.get(f"{open_url}/v1/collections", timeout=30).json() == {"collections": []}


def test_without_a_key_pages_of_the_same_site_are_served(open_url: str) -> None:
    reply = requests.post(
        f"{open_url}/v1/embeddings", data=b'{"input": "a"}', headers={"Origin": open_url}, timeout=30
    )
    assert reply.status_code == 200


# The SDK's side


def test_a_password_in_netrc_does_not_replace_the_key(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login bob password another\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with LLMBackendClient(server_url, KEY) as client:
        assert client.list_collections() is not None


def test_the_environments_key_goes_to_the_environments_server_only(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLM_BACKEND_API_KEY", KEY)
    monkeypatch.setenv("LLM_BACKEND_URL", "http://127.0.0.1:9")
    with LLMBackendClient(server_url) as client, pytest.raises(Unauthorized):
        client.list_collections()
    monkeypatch.setenv("LLM_BACKEND_URL", server_url)
    for url in (None, server_url, server_url + "/"):
        with LLMBackendClient(url) as client:
            assert client.list_collections() is not None


def test_the_environments_key_goes_to_the_server_that_is_given_if_it_names_none(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `LLM_BACKEND_API_KEY=… llmbackend backup --url …` in docs/deployment.md needs it."""
    monkeypatch.delenv("LLM_BACKEND_URL", raising=False)
    monkeypatch.setenv("LLM_BACKEND_API_KEY", KEY)
    with LLMBackendClient(server_url) as client:
        assert client.list_collections() is not None
    with LLMBackendClient(server_url, "another") as client, pytest.raises(Unauthorized):
        client.list_collections()
