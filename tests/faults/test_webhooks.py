"""URLs that are told of a job's end: signed, until they take it, and none of this network."""

from __future__ import annotations

import base64
import hashlib
import hmac
import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.jobs import webhooks
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import serving

SECRET = "a-secret-to-sign-with"


class Receiver:
    """Notes what it is sent; answers with the next of `answers`, or 204."""

    def __init__(self) -> None:
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.answers: list[int] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.seen.append(({name.lower(): value for name, value in self.headers.items()}, body))
                self.send_response(receiver.answers.pop(0) if receiver.answers else 204)
                self.send_header("Location", receiver.url)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.server.serve_forever)
    thread.start()
    yield receiver
    receiver.server.shutdown()
    thread.join()
    receiver.server.server_close()


def _client(folder: Path, **settings: Any) -> LLMBackendClient:
    options = {"webhook_secret": SECRET, "webhook_private": True, **settings}
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **options)))


def _until_told(client: LLMBackendClient, job_id: str) -> Any:
    deadline = time.monotonic() + 60
    while not (hook := client.get_job_status(job_id).webhook).delivered_at:
        assert time.monotonic() < deadline, hook
        time.sleep(0.05)
    return hook


def test_a_url_is_told_of_the_end_and_can_verify_it(tmp_path: Path, receiver: Receiver) -> None:
    with _client(tmp_path) as client:
        job_id = client.submit_job("count_words", {"texts": ["a b"]}, webhook=receiver.url)
        client.wait_for_job(job_id, 60)
        assert _until_told(client, job_id).tries == 1
        [(headers, body)] = receiver.seen
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert abs(int(headers["webhook-timestamp"]) - time.time()) < 60
        event = json.loads(body)
        assert (event["type"], event["data"]["id"], event["data"]["status"]) == (
            "job.completed",
            job_id,
            "completed",
        )
        # Jobs that end otherwise are told of as well.
        later = "2999-01-01T00:00:00+00:00"
        job_id = client.submit_job("count_words", {"texts": ["a"]}, run_at=later, webhook=receiver.url)
        client.cancel_job(job_id)
        _until_told(client, job_id)
        assert json.loads(receiver.seen[-1][1])["type"] == "job.cancelled"


def test_what_was_not_taken_is_sent_again(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [500, 302]  # a redirect is not followed
    with _client(tmp_path) as client:
        job_id = client.submit_job("count_words", {"texts": ["a b"]}, webhook=receiver.url)
        assert _until_told(client, job_id).tries == 3
        assert len(receiver.seen) == 3
        assert len({headers["webhook-id"] for headers, _ in receiver.seen}) == 1


def test_a_webhook_outlives_its_process(tmp_path: Path, receiver: Receiver) -> None:
    receiver.answers = [500]
    options = {"webhook_secret": SECRET, "webhook_private": True}
    with serving(tmp_path, **options) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("count_words", {"texts": ["a b"]}, webhook=receiver.url)
        client.wait_for_job(job_id, 60)
        deadline = time.monotonic() + 60
        while not receiver.seen:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        server.process.kill()
        server.process.wait()
    with serving(tmp_path, **options) as server, LLMBackendClient(server.url) as client:
        _until_told(client, job_id)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x",
        "http://[::1]/x",
        "http://10.0.0.1/x",
        "http://169.254.169.254/x",
        "http://[::ffff:10.0.0.1]/x",
        "http://0.0.0.0/x",
        "ftp://example.com/x",
        "http:///x",
        "http://a:b@example.com/x",
        "nonsense",
    ],
)
def test_addresses_of_this_network_are_refused_at_once(tmp_path: Path, url: str) -> None:
    with _client(tmp_path, webhook_private=False) as client, pytest.raises(InvalidRequest, match="webhook"):
        client.submit_job("count_words", {"texts": ["a"]}, webhook=url)


def test_without_a_secret_there_are_none(tmp_path: Path, receiver: Receiver) -> None:
    with (
        _client(tmp_path, webhook_secret=None) as client,
        pytest.raises(InvalidRequest, match="WEBHOOK_SECRET"),
    ):
        client.submit_job("count_words", {"texts": ["a"]}, webhook=receiver.url)


def test_a_name_that_means_such_an_address_is_refused(tmp_path: Path, receiver: Receiver) -> None:
    with _client(tmp_path, webhook_private=False) as client:
        url = receiver.url.replace("127.0.0.1", "localhost")
        job_id = client.submit_job("count_words", {"texts": ["a"]}, webhook=url)
        deadline = time.monotonic() + 60
        while not (error := client.get_job_status(job_id).webhook.error):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert "no public address" in error
        assert receiver.seen == []


async def _resolved(host: str) -> Any:
    return await webhooks._PublicOnly().resolve(host, 443)


def test_a_name_is_connected_to_at_the_addresses_that_were_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    answers = {"good.test": ["1.1.1.1", "8.8.8.8"], "mixed.test": ["1.1.1.1", "192.168.0.1"]}

    def look_up(host: str, port: int, *_: Any, **__: Any) -> Any:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answers[host]]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    assert [one["host"] for one in asyncio.run(_resolved("good.test"))] == answers["good.test"]
    with pytest.raises(OSError, match=r"192\.168\.0\.1"):
        asyncio.run(_resolved("mixed.test"))
