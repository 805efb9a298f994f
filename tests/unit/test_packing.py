"""What vectors weigh on the wire: bytes for our client, gzip for those who unpack it, neither for anything else."""

from __future__ import annotations

import asyncio
import gzip
import json
from typing import Any

import numpy as np
import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.server import replies
from tests.server import KEY

TEXTS = [f"a text to embed, number {number}" for number in range(500)]


def _post(url: str, path: str, body: dict[str, Any], accept: str | None) -> requests.Response:
    return requests.post(
        url + path,
        json=body,
        headers={"Authorization": f"Bearer {KEY}", "Accept-Encoding": accept},
        stream=True,
        timeout=60,
    )


@pytest.mark.parametrize("encoding", ["base64", "float"])
def test_whoever_unpacks_gets_vectors_packed(server_url: str, encoding: str) -> None:
    body = {"input": TEXTS, "encoding_format": encoding}
    packed = _post(server_url, "/v1/embeddings", body, "br, GZIP;q=0.5")
    assert packed.headers["Content-Encoding"] == "gzip"
    assert packed.headers["Vary"] == "Accept-Encoding"
    sent = packed.raw.read(decode_content=False)
    plain = _post(server_url, "/v1/embeddings", body, None)
    assert "Content-Encoding" not in plain.headers
    assert plain.headers["Vary"] == "Accept-Encoding"
    assert gzip.decompress(sent) == plain.content
    assert len(sent) < 0.8 * len(plain.content)


def test_base64_packed_weighs_little_more_than_its_floats(server_url: str) -> None:
    body = {"input": TEXTS, "encoding_format": "base64"}
    sent = _post(server_url, "/v1/embeddings", body, "gzip").raw.read(decode_content=False)
    assert len(sent) <= 1.1 * len(TEXTS) * 256 * 4


@pytest.mark.parametrize("accept", [None, "identity", "gzip;q=0", "br, gzip; q=0.0", "notgzip"])
def test_whoever_does_not_unpack_gets_them_as_they_are(server_url: str, accept: str | None) -> None:
    reply = _post(server_url, "/v1/embeddings", {"input": TEXTS}, accept)
    assert "Content-Encoding" not in reply.headers
    assert len(reply.json()["data"]) == len(TEXTS)


def test_little_replies_streams_and_other_operations_are_not_packed(server_url: str) -> None:
    chat = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4}
    for path, body in (
        ("/v1/embeddings", {"input": "a text"}),
        ("/v1/chat/completions", chat),
        ("/v1/chat/completions", {**chat, "stream": True}),
    ):
        reply = _post(server_url, path, body, "gzip")
        assert reply.status_code == 200
        assert "Content-Encoding" not in reply.headers
        assert reply.content


def test_a_block_is_a_line_of_json_and_the_floats(server_url: str) -> None:
    body = {"input": TEXTS, "encoding_format": "bytes"}
    reply = _post(server_url, "/v1/embeddings", body, "gzip")
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert "Content-Encoding" not in reply.headers
    head, _, block = reply.content.partition(b"\n")
    described = json.loads(head)
    assert described.keys() == {"object", "model", "usage", "cut", "dimension"}
    values = np.frombuffer(block, "<f4").reshape(len(TEXTS), described["dimension"])
    with LLMBackendClient(server_url, KEY) as client:
        assert np.array_equal(client.embed(TEXTS).numpy(), values)


@pytest.mark.parametrize("size", [0, 1, replies.PIECE, replies.PIECE + 1, 3 * replies.PIECE])
def test_a_large_result_is_sent_in_pieces(size: int) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing more is asked of the caller")

    body = bytes(range(256)) * (size // 256 + 1)
    asyncio.run(replies.Result(body[:size])({"type": "http"}, receive, send))
    start, *pieces = sent
    assert (b"content-length", str(size).encode()) in start["headers"]
    assert b"".join(piece["body"] for piece in pieces) == body[:size]
    assert max(len(piece["body"]) for piece in pieces) <= replies.PIECE
    assert [piece["more_body"] for piece in pieces] == [True] * (len(pieces) - 1) + [False]
