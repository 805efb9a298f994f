"""Keys: nothing tells them, in whatever form, and nothing of a request leads one elsewhere."""

from __future__ import annotations

import ast
import base64
import json
import logging
import re
import socket
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest
import requests

import llmbackend
from llmbackend import LLMBackendClient, LLMBackendError
from llmbackend.agents.mcp import McpServers
from llmbackend.inference.server_errors import _without
from llmbackend.local import LocalTransport
from llmbackend.operations import OPERATIONS
from llmbackend.settings import Settings
from tests.server import KEY, announced, serving, start
from tests.upstream.fake import running

# Each is told apart by its first eight characters, and needs quoting in URLs.
SECRETS = {
    name: f"{name.replace('_', '')[:7]}Q/9+{number:02}=geheim"
    for number, name in enumerate(
        (
            *("api_key", "openai_api_key", "tei_api_key", "rerank_api_key", "qdrant_api_key"),
            *("webhook_secret", "mcp_server"),
        ),
        start=10,
    )
}


MCP = {
    "down": f"http://user:{quote(SECRETS['mcp_server'], safe='')}@127.0.0.1:1/mcp?token={quote(SECRETS['mcp_server'], safe='')}",
    "absent": f"no-such-command --token {SECRETS['mcp_server']}",
}
"""Servers of tools that cannot be reached, though their addresses have a key in them."""
OPTIONS = {
    **{name: one for name, one in SECRETS.items() if name != "mcp_server"},
    "agent_mcp": json.dumps(MCP),
}


@cache
def _forms(secret: str) -> set[str]:
    """A secret as it is, as in a URL, in base64 wherever it begins, and by its beginning."""
    found = {
        secret,
        quote(secret, safe=""),
        quote(secret),
        json.dumps(secret)[1:-1],
        secret[:8],
        repr(secret)[1:-1],
    }
    for before in range(3):
        coded = base64.b64encode(b"x" * before + secret.encode()).decode()
        found.add(coded[4 if before else 0 : -4])
        found.add(coded[4 if before else 0 : -4].translate(str.maketrans("+/", "-_")))
    return found


def _told(text: str) -> list[str]:
    return [name for name, secret in SECRETS.items() for form in _forms(secret) if form in text]


def test_the_forms_of_a_secret_are_found() -> None:
    secret = SECRETS["api_key"]
    for shown in (
        f"Authorization: Bearer {secret}",
        f"http://h/?key={quote(secret, safe='')}",
        f"Basic {base64.b64encode(f'user:{secret}'.encode()).decode()}",
        f"{secret[:8]}…",
    ):
        assert _told(shown) == ["api_key"] * len(_told(shown)) != []


@contextmanager
def _told_nothing(said: list[str]) -> Iterator[None]:
    """What these calls raise, with tracebacks, is among what was said."""
    try:
        yield
    except LLMBackendError as error:
        said += [
            repr(error),
            str(error),
            json.dumps(error.to_dict()),
            "".join(traceback.format_exception(error)),
        ]


def _session(client: LLMBackendClient, said: list[str]) -> None:
    """Calls that work and calls that fail, and all that they tell."""
    for model in ("ok", "401", "500", "failing", "truncated", "html", "doomed"):
        with _told_nothing(said):
            said.append(repr(client.chat("Hello", model=model)))
        with _told_nothing(said):
            said += list(client.chat("Hello", model=model, stream=True))
    for call in (
        lambda: client.embed(["a text"]),
        lambda: client.rerank("a", ["b"]),
        lambda: client.rag_ingest("The harbour is deep.", "town"),
        lambda: client.rag_query("How deep?", "town", explain=True),
        client.health,
        client.doctor,
        client.models,
        client.list_collections,
        client.list_schedules,
        client.list_agents,
        client.prompts,
        client.audit,
        client.usage,
        lambda: client.run_agent("How deep is the harbour?", collections=["town"]),
        lambda: list(client.run_agent("How deep is the harbour?", collections=["town"], stream=True)),
        lambda: client.run_agent("", agent="triage", input={"messages": ["hello"], "queues": ["a", "b"]}),
        lambda: client.batch_chat(["Hello"], plan=True),
    ):
        with _told_nothing(said):
            result: Any = call()
            said += [repr(result), json.dumps(result, default=str), getattr(result, "_repr_html_", str)()]
    for kind, params in (
        ("batch_chat", {"prompts": ["Hello"], "model": "401"}),
        ("batch_embed", {"texts": ["a"]}),
        ("respond", {"input": "Hello", "model": "401"}),
        ("respond", {"input": "Hello"}),
        ("run_agent", {"task": "How deep?", "collections": ["town"]}),
    ):
        with _told_nothing(said):
            job = client.submit_job(kind, params, webhook="http://192.0.2.7/hook")
            said.append(job)
        with _told_nothing(said):
            job = client.submit_job(kind, params)
            client.wait_for_job(job, timeout=30)
            said.append(repr(client.get_job_result(job)))
    said += [repr(client), json.dumps(client.list_jobs(), default=str), client.list_jobs()._repr_html_()]


def test_nothing_tells_a_key(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    said: list[str] = []
    with running() as upstream:
        settings = {
            **OPTIONS,
            "openai_base_url": f"{upstream.url}/v1",
            "chat_model": "ok",
            "tei_url": f"{upstream.url}/401",
            "rerank_url": f"{upstream.url}/v1",
            "rerank_model": "401",
            "upstream_timeout": 2,
        }
        local = {**settings, "data_dir": tmp_path / "local"}
        with (
            caplog.at_level(logging.DEBUG),
            LLMBackendClient(transport=LocalTransport(Settings(**local))) as client,
        ):
            _session(client, said)
        process = start(tmp_path / "server", warm=True, log_level="debug", **settings)
        try:
            url = announced(process, " at http").split(" at ", 1)[1].split()[0]
            with LLMBackendClient(url, SECRETS["api_key"]) as client:
                _session(client, said)
            for body in (
                {"input": "Hello"},
                {"input": "Hello", "stream": True},
                {"input": "a", "model": "401"},
            ):
                headers = {"X-API-Key": SECRETS["api_key"]}
                said.append(requests.post(f"{url}/v1/responses", json=body, headers=headers, timeout=30).text)
            for path in (
                "/openapi.json",
                "/metrics",
                "/v1/prompts",
                "/v1/agents",
                "/health/live",
                "/health/ready",
                "/v1/models",
                "/nowhere",
                "/v1/doctor",
            ):
                for headers in (
                    {},
                    {"X-API-Key": SECRETS["api_key"]},
                    {"X-API-Key": SECRETS["api_key"] + "x"},
                ):
                    reply = requests.get(url + path, headers=headers, timeout=30)
                    said += [reply.text, str(reply.headers)]
        finally:
            process.terminate()
            process.wait(timeout=30)
        assert any(sent.get("authorization") for sent in upstream.sent), "the key was used"
    for name in ("local", "server"):
        for file in (tmp_path / name).rglob("*"):
            if file.is_file():  # of the engine's, most is room for what is to come
                said.append(re.sub(rb"\0{16,}", b"\0", file.read_bytes()).decode("latin-1"))
    assert "openai._base_client" in {one.name for one in caplog.records}
    said += caplog.text.splitlines()
    assert len(said) > 100
    assert [(name, text[:300]) for text in said for name in _told(text)] == []


def test_libraries_log_urls_of_mcp_servers_without_keys(caplog: pytest.LogCaptureFixture) -> None:
    key = quote(SECRETS["mcp_server"], safe="")
    urls = {
        f"http://user:{key}@{host}/mcp?token={key}": f"http://{host}/mcp" for host in ("h.test:9", "[::1]:9")
    }
    other = "https://other.test/?page=2"
    for url in urls:
        McpServers({"it": url}, 1)._client("it")
    with caplog.at_level(logging.INFO):
        for url in (*urls, other, "http://["):
            logging.getLogger("httpx2").info('HTTP Request: POST %s "HTTP/1.1 200 OK"', url)
    shown = [*urls.values(), other, "http://["]
    assert caplog.messages == [f'HTTP Request: POST {url} "HTTP/1.1 200 OK"' for url in shown]


def test_the_log_at_debug_tells_no_key(tmp_path: Path) -> None:
    """The whole of a server's log, which other tests read in part."""
    with running() as upstream:
        given = {
            **OPTIONS,
            "log_level": "debug",
            "openai_base_url": f"{upstream.url}/v1",
            "chat_model": "ok",
            "embedding_model": "401",
            "upstream_timeout": 2,
        }
        with serving(tmp_path, **given) as server:
            with LLMBackendClient(server.url, SECRETS["api_key"]) as client:
                _session(client, [])
            wrong = LLMBackendClient(server.url, SECRETS["api_key"][:-1])
            with pytest.raises(LLMBackendError):
                wrong.models()
    text = server.process.stdout.read() + "".join(iter(server.process.said.get, None))
    assert "chat" in text
    assert _told(text) == []


# Odd keys


@pytest.mark.parametrize("key", ["", "é", "ключ", "x" * 4_000, KEY + "\u200b", KEY.swapcase(), KEY[::-1]])
def test_an_odd_key_is_refused_at_once(server_url: str, key: str) -> None:
    for header in ("X-API-Key", "Authorization"):
        value = f"Bearer {key}" if header == "Authorization" else key
        began = time.monotonic()
        reply = requests.get(f"{server_url}/v1/models", headers={header: value.encode()}, timeout=30)
        assert time.monotonic() - began < 5
        assert reply.status_code in (400, 401), reply.text
        assert KEY not in reply.text


def test_a_key_of_a_megabyte_is_refused(server_url: str) -> None:
    where = urlsplit(server_url)
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        try:
            connection.sendall(
                b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-API-Key: " + b"x" * 2**20 + b"\r\n\r\n"
            )
            status = connection.recv(64).split(b" ")[1]
        except (ConnectionError, IndexError):
            status = b"closed"
    assert status in (b"400", b"401", b"431", b"closed")


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("other", ["Authorization: Bearer", "X-API-Key:"])
def test_of_two_keys_none_counts(server_url: str, order: int, other: str) -> None:
    where = urlsplit(server_url)
    lines = [f"Authorization: Bearer {KEY}".encode(), f"{other} wrong".encode()][::order]
    request = b"\r\n".join(
        [b"GET /v1/models HTTP/1.1", b"Host: localhost", *lines, b"Connection: close", b"", b""]
    )
    with socket.create_connection((where.hostname, where.port), timeout=30) as connection:
        connection.sendall(request)
        reply = b"".join(iter(lambda: connection.recv(65536), b""))
    assert reply.split(b" ", 2)[1] == b"401"
    assert KEY.encode() not in reply


@pytest.mark.parametrize(
    "method", ["HEAD", "OPTIONS", "GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "PROPFIND"]
)
@pytest.mark.parametrize(
    "path", ["/v1/models", "/v1/models/", "/v1/collections/x", "/v1/jobs/../models", "/nowhere"]
)
def test_no_method_gets_around_the_key(server_url: str, method: str, path: str) -> None:
    reply = requests.request(method, server_url + path, timeout=30, allow_redirects=False)
    assert reply.status_code in (400, 401, 404, 405)
    assert "SmolLM2" not in reply.text


def test_secrets_are_compared_in_constant_time_only() -> None:
    """No `==` on what has a secret's name, in the server's code."""
    for file in Path(llmbackend.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq) for op in node.ops):
                names = {ast.unparse(side) for side in (node.left, *node.comparators)}
                secret = re.compile(
                    r"\b(?:api_key|keys?_given|bearer|given|signature|secret\w*|get_secret_value\(\))\Z"
                )
                assert not any(secret.search(name) for name in names), f"{file}:{node.lineno}: {names}"


# What a caller may not name


@pytest.mark.parametrize(
    "field",
    [
        "base_url",
        "api_base",
        "api_key",
        "api_version",
        "extra_headers",
        "headers",
        "custom_llm_provider",
        "proxy",
        "timeout",
    ],
)
def test_no_operation_takes_a_server_or_a_key(server_url: str, field: str) -> None:
    for row in OPERATIONS.values():
        if row.method != "POST":
            continue
        path = re.sub(r"\{\w+\}", "x", row.path)
        fields = {field: {"X": "http://192.0.2.7"} if "headers" in field else "http://192.0.2.7"}
        reply = requests.post(server_url + path, json=fields, headers={"X-API-Key": KEY}, timeout=30)
        assert reply.status_code == 422, (row.name, reply.text)
        places = [error["loc"] for error in reply.json()["error"]["details"]["errors"]]
        assert [field] in places, row.name


@pytest.mark.parametrize("name", SECRETS)
def test_a_key_that_a_server_quotes_is_left_out_in_any_form(name: str) -> None:
    secret = SECRETS[name]
    for form in (*_forms(secret), f"{secret[:8]}****{secret[-4:]}", secret[:12]):
        said = _without(secret, f"Incorrect API key provided: {form}. You can find it at /keys.")
        assert _told(said) == []
        assert secret[-6:] not in said
        assert said.startswith("Incorrect API key provided: ***")
        assert said.endswith(" You can find it at /keys.")
    assert _without(secret, "the engine has 8 keys, and no room") == "the engine has 8 keys, and no room"


@pytest.mark.parametrize("headers", [{}, {"X-API-Key": "wrong"}], ids=["no key", "a wrong key"])
def test_every_operation_but_the_public_ones_takes_a_key(server_url: str, headers: dict[str, str]) -> None:
    """From the table, so that no new operation is forgotten."""
    for row in OPERATIONS.values():
        path = re.sub(r"\{\w+\}", "x", row.path)
        reply = requests.request(row.method, server_url + path, headers=headers, timeout=30)
        assert (reply.status_code == 401) == (row.scope != "public"), row.name
