"""Paths, headers and methods that mean the same, or nothing, never open what the plain request does not."""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from llmbackend import LLMBackendClient
from tests.server import serving

ADMIN, HR, SUPPORT = "administrators-key", "key-of-hr", "key-of-support"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models_dir: Path) -> Iterator[tuple[str, list[str]]]:
    """A server's URL, and what it writes into its log; hr has the collection `policies`."""
    keys = f"hr:{HR},support:{SUPPORT}"
    folder = tmp_path_factory.mktemp("tricks")
    with serving(folder, models_dir=models_dir, api_key=ADMIN, api_keys=keys, log_level="debug") as found:
        lines: list[str] = []
        with LLMBackendClient(found.url, HR) as hr:
            hr.rag_ingest(["Every employee has 28 days of vacation."], collection="policies")
        yield found.url, lines
        while not found.process.said.empty():
            lines.append(found.process.said.get() or "")
        log = "".join(lines)
        assert "refused 40" in log
        assert [key for key in (ADMIN, HR, SUPPORT) if key in log] == []
        assert "llmb_hr_abcdefgh_" + "s" * 43 not in log


def _raw(url: str, line: str, *headers: str) -> tuple[int, bytes]:
    where = urlsplit(url)
    head = [line, "Host: localhost", *headers, "Connection: close", "", ""]
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall("\r\n".join(head).encode())
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(reply.split(b" ", 2)[1]), reply


PATHS = [
    "/v1/collections/hr/policies",
    "/v1/collections/hr%2Fpolicies",
    "/v1/collections/hr%2fpolicies",
    "/v1/collections//policies",
    "/v1/collections/hr//policies",
    "/v1/collections/./hr/policies",
    "/v1/collections/hr/../hr/policies",
    "/v1/collections/support/../hr/policies",
    "/v1/collections/%2e%2e/collections/hr/policies",
    "/v1/collections/support%2f..%2fhr%2fpolicies",
    "/v1/collections/hr/policies/",
    "/v1/collections/hr/policies/documents",
    "/v1/collections/hr/policies/export",
    "/v1/collections/hr%2Fpolicies%00",
    "/v1/../v1/collections/hr/policies",
    "//v1/collections/hr/policies",
    "/V1/collections/hr/policies",
    "/v1/models/rag/hr/policies",
    "/v1/models/rag%2Fhr%2Fpolicies",
    "/v1/models/rag//hr/policies",
    "http://localhost/v1/collections/hr/policies",
    "http://hr.example/v1/collections/hr/policies",
    "/health/ready/../../v1/collections/hr/policies",
    "/v1/collections/hr/policies?collection=policies",
    "/v1/collections/policies?collection=hr/policies",
]


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE"])
@pytest.mark.parametrize("path", PATHS)
def test_however_a_path_is_written_it_opens_no_wall(
    server: tuple[str, list[str]], path: str, method: str
) -> None:
    url, _ = server
    status, reply = _raw(url, f"{method} {path} HTTP/1.1", f"X-API-Key: {SUPPORT}")
    # A redirect is to the plain path, which tells no more.
    assert status in ((307,) if path.endswith("/") else (400, 404, 405, 422)), reply
    assert b"28 days" not in reply
    assert b"embedding_model" not in reply
    bare, reply = _raw(url, f"{method} {path} HTTP/1.1")
    assert bare in (400, 401), reply  # without a key nothing is told, not even which paths there are
    there, reply = _raw(url, "GET /v1/collections/policies HTTP/1.1", f"X-API-Key: {HR}")
    assert there == 200, reply


def test_a_part_of_a_collection_is_no_collection_of_a_project_by_that_name(
    server: tuple[str, list[str]],
) -> None:
    """The administrator's `DELETE /v1/collections/hr/documents` would delete hr's collection `documents`."""
    url, _ = server
    with LLMBackendClient(url, HR) as hr, LLMBackendClient(url, ADMIN) as admin:
        for part in ("documents", "document", "export", "chunks", "import", "indexes", "reindex", "shares"):
            hr.create_collection(part)
            path = f"/v1/collections/hr/{part}"
            status, reply = _raw(url, f"DELETE {path} HTTP/1.1", f"X-API-Key: {ADMIN}")
            allowed = b"GET, HEAD" if part in ("documents", "document", "export") else b"POST"
            assert (status, b"allow: " + allowed + b"\r\n" in reply) == (405, True), reply
            assert admin.get_collection(f"hr/{part}").name == f"hr/{part}"
            admin.rag_ingest("The vault is below the chapel.", f"hr/{part}")
            assert len(admin.list_documents(f"hr/{part}")) == 1
            assert admin.delete_collection(f"hr/{part}").deleted == f"hr/{part}"


@pytest.mark.parametrize(
    "headers",
    [
        [f"X-API-Key: {SUPPORT}", f"X-API-Key: {HR}"],
        [f"X-API-Key: {HR}", f"X-API-Key: {SUPPORT}"],
        [f"Authorization: Bearer {SUPPORT}", f"Authorization: Bearer {HR}"],
        [f"Authorization: Bearer {HR}", f"X-API-Key: {SUPPORT}"],
        [f"Authorization: Bearer {SUPPORT}", f"X-API-Key: {HR}"],
        [f"X-API-Key: {HR}, {SUPPORT}"],
        [f"Authorization: Basic {HR}"],
        [f"Authorization: Bearer{HR}"],
        [f"Cookie: X-API-Key={HR}"],
        [f"X_API_Key: {HR}"],
        [f"Proxy-Authorization: Bearer {HR}"],
        ["X-API-Key: "],
        ["Authorization: Bearer "],
    ],
)
def test_several_keys_or_odd_ones_open_nothing(server: tuple[str, list[str]], headers: list[str]) -> None:
    status, reply = _raw(server[0], "GET /v1/collections/policies HTTP/1.1", *headers)
    assert status == 401, reply


def test_one_key_twice_is_one_key(server: tuple[str, list[str]]) -> None:
    headers = [f"Authorization: bearer {HR}", f"X-API-Key: {HR}", "Authorization: Basic eA=="]
    status, reply = _raw(server[0], "GET /v1/collections/policies HTTP/1.1", *headers)
    assert status == 200, reply


@pytest.mark.parametrize(
    "query", [f"api_key={HR}", f"key={HR}", f"X-API-Key={HR}", f"access_token={HR}", f"collection={HR}"]
)
def test_a_key_in_a_url_opens_nothing_and_is_not_logged(server: tuple[str, list[str]], query: str) -> None:
    status, _ = _raw(server[0], f"GET /v1/collections/policies?{query} HTTP/1.1")
    assert status == 401
    _raw(server[0], f"GET /v1/collections?{query} HTTP/1.1", f"X-API-Key: {SUPPORT}")
    secret = "llmb_hr_abcdefgh_" + "s" * 43
    for path in (f"/v1/keys/{secret}", f"/v1/collections/{secret}", f"/nowhere/{secret}"):
        status, _ = _raw(server[0], f"GET {path} HTTP/1.1", f"X-API-Key: {SUPPORT}")
        assert status in (404, 405)


def test_the_logger_of_calls_writes_no_key(caplog: pytest.LogCaptureFixture) -> None:
    from llmbackend.tracing import Trace

    secret = "llmb_hr_abcdefgh_" + "s" * 43
    with caplog.at_level(logging.INFO, "llmbackend.calls"):
        Trace("chat", path=f"/v1/models/{secret}").finish("ok")
    assert "s" * 8 not in caplog.text
    assert "llmb_hr_abcdefgh_" in caplog.text
