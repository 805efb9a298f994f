"""One caller cannot use up what all share: memory, connections, and the time of the loop."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from llm_client import encoded
from llmbackend import (
    BackendError,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    MethodNotAllowed,
    Overloaded,
    RequestTimeout,
    TooLarge,
    json_reading,
)
from llmbackend.operations import LARGE, OPERATIONS
from tests.server import Server, serving

MB = 2**20
KEYS = {"a": "key-of-a", "b": "key-of-b"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One with room for two large bodies, of which one key has one, and for few connections."""
    keys = ",".join(f"{owner}:{key}" for owner, key in KEYS.items())
    folder = tmp_path_factory.mktemp("limits")
    with serving(
        folder, api_keys=keys, max_body_bytes=64 * MB, max_bodies_bytes=128 * MB, max_connections=40
    ) as one:
        yield one


class Slow:
    """Clients that take their time, each in a thread, on a server of their own: they are waited for side by side."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connection = connected(server)
        threads = ThreadPoolExecutor(3)
        self.body = threads.submit(self._trickle)
        self.closed = threads.submit(self._linger)
        self.heads = threads.submit(self._heads)

    def _trickle(self) -> tuple[int, LLMBackendError, float]:
        """Status and error of a body that does not come, and after how many seconds."""
        began = time.monotonic()
        self._connection.settimeout(60)
        self._connection.sendall(head("/v1/embeddings", 1000) + b"{")
        status, _, error = reply_of(self._connection)
        return status, error, time.monotonic() - began

    def _linger(self) -> bool:
        """Whether that connection ends, though what is left of the body goes on coming."""
        self.body.result()
        return ends(self._connection, b"x", 60, wait=0.5)

    def _heads(self) -> int:
        """How many connections are left after 45 seconds of heads that come byte by byte."""
        slow = [connected(self._server) for _ in range(30)]
        for one in slow:
            one.sendall(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        until = time.monotonic() + 45
        while slow and time.monotonic() < until:
            time.sleep(1)
            slow = [one for one in slow if not ends(one, b"a", 1)]
        return len(slow)


@pytest.fixture(scope="module", autouse=True)
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slow]:
    with serving(tmp_path_factory.mktemp("slow"), api_keys=f"a:{KEYS['a']}") as one:
        yield Slow(one)


def connected(server: Server) -> socket.socket:
    where = urlsplit(server.url)
    return socket.create_connection((where.hostname, where.port), timeout=60)


def head(path: str, length: int, key: str = KEYS["a"]) -> bytes:
    lines = (f"POST {path} HTTP/1.1", "Host: x", f"X-API-Key: {key}", f"Content-Length: {length}")
    return "\r\n".join([*lines, "", ""]).encode()


def sends_on(connection: socket.socket, path: str, length: int) -> None:
    """Send the head of a request, and wait until the server has admitted it and asks for its body, or refuses it."""
    connection.sendall(head(path, length).removesuffix(b"\r\n") + b"Expect: 100-continue\r\n\r\n")
    connection.settimeout(60)
    connection.recv(1024)


def until_well(server: Server) -> None:
    """Wait until the server has noticed that connections were closed."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return is_well(server)
        except (AssertionError, requests.ConnectionError):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def reply_of(connection: socket.socket) -> tuple[int, dict[str, str], LLMBackendError]:
    """Status, headers and error of a reply."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    first, _, rest = received.partition(b"\r\n")
    lines, _, body = rest.partition(b"\r\n\r\n")
    headers = {
        name.lower(): value
        for name, _, value in (line.partition(": ") for line in lines.decode().split("\r\n"))
    }
    while len(body) < int(headers["content-length"]):
        body += connection.recv(65536)
    return int(first.split()[1]), headers, LLMBackendError.from_dict(json.loads(body)["error"])


def ends(connection: socket.socket, piece: bytes, times: int, wait: float = 0.005) -> bool:
    """Whether the server answers or closes while this is being sent to it time and again."""
    for _ in range(times):
        try:
            connection.settimeout(10)
            connection.sendall(piece)
            connection.settimeout(wait)
            received = connection.recv(1024)
        except TimeoutError:
            continue
        except OSError:
            return True
        return received == b"" or b" 429 " in received or b" 431 " in received
    return False


def is_well(server: Server, key: str = KEYS["b"]) -> None:
    assert requests.get(f"{server.url}/health/live", timeout=60).status_code == 200
    assert (
        requests.get(f"{server.url}/v1/collections", headers={"X-API-Key": key}, timeout=60).status_code
        == 200
    )


# Bodies


def test_a_body_of_many_small_messages_is_refused_before_they_are_made(server: Server) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    messages = b",".join([b'{"role":"user","content":"a"}'] * 2_000_000)
    body = b'{"messages":[' + messages + b"]}"
    peak = 0
    done = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.02):
            peak = max(peak, psutil.Process(server.process.pid).memory_info().rss)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        headers = {"X-API-Key": KEYS["a"]}
        reply = requests.post(f"{server.url}/v1/chat/completions", data=body, headers=headers, timeout=60)
    finally:
        done.set()
        watching.join()
    assert reply.status_code == 413
    assert reply.json()["error"]["details"]["limit"] == json_reading.CONTAINERS
    assert peak - before < 512 * MB


@pytest.mark.parametrize(
    ("items", "kind"),
    [
        ([1] * (json_reading.VALUES + 1), TooLarge),
        ([[]] * (json_reading.CONTAINERS + 1), TooLarge),
        (["a,[{"] * 3, None),
        (['"],[' * 200_000, "\\" * 300_001, '\\"' * 200_000], None),
    ],
    ids=["values", "containers", "texts with brackets", "texts that look like structure"],
)
def test_the_values_of_a_request_are_limited(
    client: LLMBackendClient, items: list[Any], kind: type[LLMBackendError] | None
) -> None:
    """On both transports; what a text says does not count."""
    if kind is None:
        with pytest.raises(BackendError, match="no reranker"):  # so it has been read
            client.rerank("a", items)
        return
    with pytest.raises(kind) as refused:
        client.submit_job("batch_embed", {"texts": items})
    assert refused.value.details["limit"] in (json_reading.VALUES, json_reading.CONTAINERS)


def test_what_is_far_too_much_is_refused_in_little_memory(server: Server) -> None:
    process = psutil.Process(server.process.pid)
    is_well(server)
    before = process.memory_info().rss
    hello = [{"role": "user", "content": "a"}]
    asked = {
        "n": ("chat/completions", {"messages": hello, "n": 16_384}, 422),
        "top_logprobs": ("chat/completions", {"messages": hello, "top_logprobs": 10**6}, 422),
        "top_k": ("rag/search", {"collection": "c", "query": "a", "top_k": 10**9}, 422),
        "below zero": ("rag/search", {"collection": "c", "query": "a", "top_k": -1}, 422),
        "k": ("rag/evaluate", {"collection": "c", "questions": [{"question": "a", "gold": "a"}], "k": 10**9}, 422),
        "collections": ("rag/search", {"collection": ["c"] * 10**5, "query": "a"}, 422),
        "texts": ("embeddings", {"input": ["a"] * 10**6}, 413),
        "token ids": ("embeddings", {"input": [1] * 10**6}, 413),
        "a million lists": ("embeddings", {"input": [[1]] * 10**6}, 413),
        "fields": ("embeddings", {"input": "a", **dict.fromkeys(map(str, range(100_000)), 1)}, 413),
        "dimensions": ("embeddings", {"input": "a", "dimensions": 10**18}, 422),
        "chunk_size": ("rag/ingest", {"collection": "c", "documents": ["a"], "chunk_size": 10**9}, 422),
        "nested lists": ("embeddings", b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 422),
        "nested objects": ("jobs", b'{"params": ' + b'{"a":' * 100_000 + b"1" + b"}" * 100_001, 422),
    }  # fmt: skip
    for name, (path, body, status) in asked.items():
        data = body if isinstance(body, bytes) else json.dumps(body)
        reply = requests.post(
            f"{server.url}/v1/{path}", data=data, headers={"X-API-Key": KEYS["a"]}, timeout=30
        )
        assert (reply.status_code, name) == (status, name), reply.text
    for row in OPERATIONS.values():
        for number in (-1, 0, 10**9) if "limit" in row.request.model_fields else ():
            path, given = re.sub(r"{\w+}", "x", row.path), {"limit": number}
            sent = {"json": given} if row.method == "POST" else {"params": given}
            reply = requests.request(
                row.method, f"{server.url}{path}", headers={"X-API-Key": KEYS["a"]}, timeout=30, **sent
            )
            assert (reply.status_code, "limit" in reply.json()["error"]["message"]) == (422, True), row.name
    for length in (10 * 2**30, 2**63, 10**30):
        with connected(server) as huge:
            huge.sendall(head("/v1/embeddings", length))
            assert reply_of(huge)[0] in (400, 413), length
    assert process.memory_info().rss - before < 256 * MB
    is_well(server)


@pytest.mark.parametrize("size", [0, LARGE])
def test_json_that_is_nested_too_deep_is_refused(client: LLMBackendClient, size: int) -> None:
    deep: Any = "x" * size
    for _ in range(json_reading.MAX_NESTING):
        deep = {"a": [deep]}
    with pytest.raises(InvalidRequest, match="nested") as refused:
        client.submit_job("batch_embed", deep)
    assert refused.value.details == {"limit": json_reading.MAX_NESTING}


@pytest.mark.parametrize(
    ("operation", "given", "field", "limit"),
    [
        ("chat", {"messages": [{"role": "user", "content": "a"}] * 10_001}, "messages", 10_000),
        (
            "chat",
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 1001}]},
            "content",
            1000,
        ),
        ("rag_ingest", {"documents": ["a"] * 100_001, "collection": "c"}, "documents", 100_000),
        ("embed", {"input": [[1] * 100_001]}, "input", 100_000),
        ("rerank", {"query": "a", "documents": ["a"] * 10_001}, "documents", 10_000),
    ],
    ids=["messages", "parts", "documents", "token ids", "rerank"],
)
def test_an_error_about_a_long_list_names_its_limit(
    client: LLMBackendClient, operation: str, given: dict[str, Any], field: str, limit: int
) -> None:
    with pytest.raises(InvalidRequest, match=f"{field}.*at most {limit} items"):
        client._transport.call(operation, given)


@pytest.mark.parametrize(
    ("operation", "given"),
    [
        ("rag_ingest", {"collection": "c", "documents": [1] * 50_000}),
        ("rag_ingest", {"collection": "c", "documents": ["a"] * 100 + [{"a": 1}] * 50_000}),
        ("batch_chat", {"prompts": [[1] * 10] * 20_000}),
        ("embed", {"input": [["a"] * 50_000] * 4}),
        ("rag_ingest_files", {"collection": "c", "files": [{"name": 1}] * 9_000}),
    ],
)
def test_of_a_list_the_first_wrong_item_alone_is_told(
    client: LLMBackendClient, operation: str, given: dict[str, Any]
) -> None:
    """What is wrong with each of 900,000 took eight seconds, three of them without a turn for anybody else."""
    with pytest.raises(InvalidRequest) as refused:
        client._transport.call(operation, given)
    items = {tuple(error["loc"][:2]) for error in refused.value.details["errors"]}
    assert len(items) == 1


def test_a_large_body_says_what_is_wrong_in_the_same_words_as_a_small_one(client: LLMBackendClient) -> None:
    for size in (1, LARGE):
        filler = "x" * size
        for wrong, said in (
            (
                {"documents": [{"id": "a", "text": filler, "metadata": 1}]},
                "metadata: Input should be an object",
            ),
            ({"documents": [{"id": "a", "text": [filler]}]}, "text: Input should be a valid string"),
            ({"documents": [filler], "colour": 1}, "colour: Extra inputs are not permitted"),
        ):
            with pytest.raises(InvalidRequest, match=said):
                client._transport.call("rag_ingest", {"collection": "c", **wrong})


def test_large_json_is_read_as_json_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut wherever it can be."""
    texts = ["", "é", '"', "\\", '\\"', "],[", "{", "\n", "a" * 50]
    value = {
        "a": [texts, {"b": [[1, 2.5, None], [], texts]}, "x"],
        "c": {"d": [{"e": text} for text in texts], "f": [True, [False]]},
        "g": texts * 3,
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False, indent=1)):
        body = text.encode()
        for step in (1, 2, 3, 5, 8, 64):
            monkeypatch.setattr(json_reading, "SLICE", step)
            monkeypatch.setattr(json_reading, "PIECE", step)
            assert json_reading.read(body, "x") == value
            for broken in (
                body[:-1],
                body + b"]",
                body.replace(b"[", b"[,", 1),
                body.replace(b"true", b"tru", 1),
            ):
                with pytest.raises(InvalidRequest):
                    json_reading.read(broken, "x")


def test_a_key_that_stands_twice_in_large_json_never_brings_another_value(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last counts, as elsewhere, or it is told."""
    for text in (
        '{"a": [1], "b": [2], "a": [3, 4, 5], "c": 1}',
        '{"a": "x", "b": "why", "a": "a long text", "c": 1}',
        '{"a": {"x": 1}, "b": {"y": 2}, "a": {"z": 3, "w": [4, 5]}}',
        '[{"a": [[1]], "b": [["2"]], "a": [[3, 4], ["long", "texts"]]}]',
        '{"a": {"x": "1"}, "b": {"x": "2"}, "a": {"y": 3, "x": "long text", "y": 4}}',
    ):
        for step in (1, 2, 3, 5, 8, 64):
            monkeypatch.setattr(json_reading, "SLICE", step)
            monkeypatch.setattr(json_reading, "PIECE", step)
            with suppress(InvalidRequest):
                assert json_reading.read(text.encode(), "x") == json.loads(text)


def test_unfinished_bodies_of_one_key_leave_room_for_others(server: Server) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(connected(server))
        sends_on(first, "/v1/rag/ingest", 60 * MB)
        first.sendall(b"x" * 1000)
        for _ in range(5):
            more = stack.enter_context(connected(server))
            more.sendall(head("/v1/rag/ingest", 60 * MB))
            status, headers, error = reply_of(more)
            assert status == 429
            assert isinstance(error, Overloaded)
            assert int(headers["retry-after"]) == error.details["retry_after"] == 1
        # Without telling its size, a body counts as it comes.
        chunked = stack.enter_context(connected(server))
        chunked.sendall(
            f"POST /v1/rag/ingest HTTP/1.1\r\nHost: x\r\nX-API-Key: {KEYS['a']}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        )
        piece = b"%x\r\n" % MB + b"x" * MB + b"\r\n"
        assert ends(chunked, piece, 60)
        is_well(server, KEYS["a"])
        body = encoded("rag_ingest", {"documents": ["y" * 300_000], "collection": "c", "plan": True})
        reply = requests.post(
            f"{server.url}/v1/rag/ingest", data=body, headers={"X-API-Key": KEYS["b"]}, timeout=60
        )
        assert reply.status_code == 200, reply.text
    deadline = time.monotonic() + 60
    while True:  # its room is free once the first has gone
        with connected(server) as again:
            again.sendall(head("/v1/rag/ingest", 60 * MB))
            again.settimeout(0.5)
            try:
                assert b" 429 " in again.recv(1024)
            except TimeoutError:
                break
        assert time.monotonic() < deadline


def test_what_a_request_takes_counts_and_not_the_bytes_of_its_body_alone(server: Server) -> None:
    def planned(documents: list[Any], owner: str) -> int:
        body = {"documents": documents, "collection": "c", "plan": True}
        headers = {"X-API-Key": KEYS[owner]}
        return requests.post(
            f"{server.url}/v1/rag/ingest", json=body, headers=headers, timeout=60
        ).status_code

    def embedded(owner: str) -> int:
        """Of a request of ten kilobytes, whose result has some megabytes."""
        headers = {"X-API-Key": KEYS[owner]}
        body = {"input": ["y"] * 2000}
        return requests.post(
            f"{server.url}/v1/embeddings", json=body, headers=headers, timeout=60
        ).status_code

    text = ["y" * 1_000_000]
    values: list[Any] = [
        {"id": str(number), "text": "y", "metadata": {"n": number}} for number in range(4000)
    ]
    assert len(json.dumps(values)) < 1_000_000
    with connected(server) as first:
        sends_on(first, "/v1/rag/ingest", 60 * MB)  # of 64 that a project may have
        assert planned(text, "a") == 200
        assert planned(values, "a") == 429
        assert planned(values, "b") == 200
        assert embedded("a") == 429
        assert embedded("b") == 200
    until_well(server)
    assert planned(values, "a") == 200


def test_a_body_that_trickles_in_is_given_up(slow: Slow) -> None:
    status, error, seconds = slow.body.result(timeout=60)
    assert status == 408
    assert isinstance(error, RequestTimeout)
    assert seconds < 30
    assert slow.closed.result(timeout=60)


# Connections


def test_idle_connections_make_room_and_health_always_answers(server: Server) -> None:
    with ExitStack() as stack:
        for _ in range(150):
            stack.enter_context(connected(server))
        for _ in range(3):
            is_well(server)


def test_where_all_connections_are_at_work_health_still_answers(server: Server) -> None:
    with ExitStack() as stack:
        working = [stack.enter_context(connected(server)) for _ in range(40)]
        for one in working:
            sends_on(one, "/v1/embeddings", 1000)
        assert requests.get(f"{server.url}/health/live", timeout=60).status_code == 200
        reply = requests.get(f"{server.url}/v1/collections", headers={"X-API-Key": KEYS["b"]}, timeout=60)
        assert reply.status_code == 429
        assert reply.json()["error"]["code"] == "overloaded"
        assert reply.headers["retry-after"]
    until_well(server)


def test_slow_heads_end(slow: Slow) -> None:
    assert slow.heads.result(timeout=60) == 0


@pytest.mark.parametrize("what", ["one endless header", "many headers", "a long line"])
def test_a_head_has_a_limit(server: Server, what: str) -> None:
    before = psutil.Process(server.process.pid).memory_info().rss
    begin, more = {
        "one endless header": (b"GET /health/live HTTP/1.1\r\nX: ", b"a" * 65536),
        "many headers": (b"GET /health/live HTTP/1.1\r\n", b"X: y\r\n" * 10_000),
        "a long line": (b"GET /health/live?", b"a" * 65536),
    }[what]
    with connected(server) as flood:
        flood.sendall(begin)
        assert ends(flood, more, 2000)
    assert psutil.Process(server.process.pid).memory_info().rss - before < 64 * MB
    is_well(server)


def test_too_many_headers_are_told_as_such(server: Server) -> None:
    headers = {f"X-{number}": "y" for number in range(150)}
    reply = requests.get(f"{server.url}/health/live", headers=headers, timeout=60)
    assert (reply.status_code, reply.json()["error"]["code"]) == (431, "too_large")


def test_requests_sent_far_ahead_of_their_replies_end_the_connection(server: Server) -> None:
    with connected(server) as eager, suppress(ConnectionResetError):
        eager.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n" * 2000)
        while eager.recv(65536):  # until the end
            pass
    is_well(server)


def test_requests_of_one_key_leave_room_for_others(tmp_path: Path) -> None:
    keys = ",".join(f"{owner}:{key}" for owner, key in KEYS.items())
    with serving(tmp_path, api_keys=keys, max_requests=4) as server, ExitStack() as stack:
        for _ in range(2):
            one = stack.enter_context(connected(server))
            sends_on(one, "/v1/embeddings", 1000)
        with LLMBackendClient(server.url, KEYS["a"]) as client, pytest.raises(Overloaded) as refused:
            client.list_collections()
        assert refused.value.details["retry_after"] == 1
        is_well(server, KEYS["b"])


def test_few_file_descriptors_stop_no_one(tmp_path: Path) -> None:
    """Connections leave half of them to the rest."""
    import resource

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        process = serving(tmp_path, warm=False, api_keys=f"b:{KEYS['b']}")
        server = process.__enter__()
        psutil.Process(server.process.pid).rlimit(psutil.RLIMIT_NOFILE, (256, 256))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        with ExitStack() as stack:
            for _ in range(400):
                stack.enter_context(connected(server))
            used = psutil.Process(server.process.pid).cpu_times().user
            time.sleep(1)
            assert psutil.Process(server.process.pid).cpu_times().user - used < 0.7  # it does not spin
        until_well(server)
    finally:
        process.__exit__(None, None, None)


# What is told


def test_a_wrong_method_has_a_code_of_its_own(server: Server) -> None:
    reply = requests.put(f"{server.url}/v1/collections", headers={"X-API-Key": KEYS["a"]}, timeout=60)
    assert reply.status_code == 405
    assert set(reply.headers["allow"].split(", ")) >= {"POST"}
    assert isinstance(LLMBackendError.from_dict(reply.json()["error"]), MethodNotAllowed)


def test_refusals_are_logged_on_one_line_and_not_without_end(tmp_path: Path) -> None:
    with serving(tmp_path, api_keys=f"a:{KEYS['a']}") as server:
        for _ in range(60):
            requests.get(f"{server.url}/v1/models?secret=1", headers={"X-API-Key": "wrong"}, timeout=60)
        given = {"X-API-Key": KEYS["a"]}
        requests.get(f"{server.url}/nowhere%0A2026-01-01 ERROR forged", headers=given, timeout=60)
        requests.put(f"{server.url}/v1/collections", headers=given, timeout=60)
        requests.get(f"{server.url}/v1/collections/none", headers=given, timeout=60)
        process = server.process
    said = iter(process.said.get, None)
    lines = [line for line in said if "llmbackend.requests" in line]
    unauthorized = [line for line in lines if "refused 401" in line]
    assert 1 <= len(unauthorized) <= 30
    assert all("caller=- client=127.0.0.1 GET /v1/models " in line for line in unauthorized)
    assert any("refused 404 caller=a client=127.0.0.1 GET /nowhere%0A2026" in line for line in lines)
    assert any("refused 404 caller=a client=127.0.0.1 GET /v1/collections/none" in line for line in lines)
    assert any("refused 405 caller=a client=127.0.0.1 PUT /v1/collections" in line for line in lines)
    assert not any("forged" in line and "refused" not in line for line in lines)
