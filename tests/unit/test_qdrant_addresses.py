"""Several addresses of a Qdrant cluster, some of which do not answer."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from llmbackend import BackendError
from llmbackend.engines import qdrant_connection
from llmbackend.engines.qdrant_connection import Connection
from tests.qdrant import Prepared, Server, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def refusing() -> Iterator[str]:
    """An address at which nothing listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture
def silent() -> Iterator[str]:
    """An address at which no connection is made, nor refused: those that fit are taken."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(listening.getsockname())
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        for one in waiting:
            one.close()


def _collections(connection: Connection, *, again: bool) -> int:
    return len(connection.ask(lambda client: client.get_collections().collections, again=again))


@pytest.mark.parametrize("again", [True, False])
def test_each_is_asked_before_a_call_fails(server: Server, refusing: str, again: bool) -> None:
    connection = Connection(f"{refusing}, {server.url},{refusing}", None, 20)
    assert _collections(connection, again=again) == 0
    server.client.prepared.append(Prepared(503))
    with pytest.raises(BackendError):  # none has answered: the one that is there was busy
        _collections(connection, again=False)
    assert _collections(connection, again=again) == 0
    connection.close()


def test_one_that_takes_no_connection_is_left_soon(
    server: Server, silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_connection, "CONNECTING", 0.5)
    connection = Connection(f"{silent},{server.url}", None, 60)
    began = time.monotonic()
    assert _collections(connection, again=True) == 0
    assert time.monotonic() - began < 30
    connection.close()


def test_a_redirect_is_not_followed_and_told(server: Server) -> None:
    server.client.prepared.append(Prepared(308, headers={"Location": "https://qdrant.example/"}))
    connection = Connection(server.url, None, 20)
    with pytest.raises(BackendError, match=r"redirects to https://qdrant.example/: set QDRANT_URL"):
        _collections(connection, again=True)
    connection.close()
