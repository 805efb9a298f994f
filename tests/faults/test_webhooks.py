"""URLs that are told of a job's end: signed, until they take it, and none of this network."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
import yarl
from anyio.from_thread import start_blocking_portal
from typer.testing import CliRunner

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.backend import Backend
from llmbackend.cli.commands import app
from llmbackend.jobs import webhooks
from llmbackend.local import Core, LocalTransport
from llmbackend.outbound import addresses, sending, signatures
from llmbackend.settings import Settings
from tests.access.door import Door
from tests.receiver import Receiver, receiver
from tests.server import serving

__all__ = ["receiver"]

SECRET = "a-secret-to-sign-with"


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
        "http://127。0。0。1:8/x",
        "http://①②⑦.⓪.⓪.①:8/x",
        "http://１２７.0.0.1/x",
        "http://169。254。169。254/x",
        "http://127.1/x",
        "http://0x7f.1/x",
        "http://0177.0.0.1/x",
        "http://2130706433/x",
        "http://127.0.0.1./x",
        "http://127%2e0.0.1/x",
        "http://good.example\\@127.0.0.1/x",
        "http://[::ffff:7f00:1]/x",
        "http://[64:ff9b::7f00:1]/x",
        "http://[64:ff9b:1::7f00:1]/x",
        "http://[2002:7f00:1::]/x",
        "http://[2001:0:7f00:1::]/x",
        "http://[::7f00:1]/x",
        "http://[fe80::1%25eth0]/x",
        "http://[fec0::1]/x",
        "http://[ff02::1]/x",
        "http://100.64.0.1/x",
        "http://224.0.0.1/x",
        "http://exa mple.com/x",
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
        assert error == webhooks.UNDELIVERED
        assert receiver.seen == []


def test_open_closed_and_refused_ports_look_the_same(tmp_path: Path, receiver: Receiver) -> None:
    """Else a webhook could be used to look around in this network."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    receiver.answers = [500] * 50
    told = set()
    for private, url in (
        (True, receiver.url),
        (True, f"http://127.0.0.1:{port}/"),
        (False, receiver.url.replace("127.0.0.1", "localhost")),
    ):
        with _client(tmp_path / str(len(told)) / str(private), webhook_private=private) as client:
            job_id = client.submit_job("count_words", {"texts": ["a"]}, webhook=url)
            deadline = time.monotonic() + 60
            while (hook := client.get_job_status(job_id).webhook).tries < 2 or not hook.error:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            told.add(hook.error)
    assert told == {webhooks.UNDELIVERED}


def test_every_connection_is_judged_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the host looked like, and whatever its name means by then."""
    answers = {
        "private.test": "192.168.0.1",
        "metadata.test": "169.254.169.254",
        "mapped.test": "::ffff:10.0.0.1",
        "::ffff:7f00:1": "::ffff:7f00:1",
        "127.0.0.1": "127.0.0.1",
    }
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, port, *_, **__: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (answers[host], port))],
    )
    hosts = [*list(answers)[:3], "127。0。0。1", "１２７.0.0.1", "[::ffff:127.0.0.1]"]
    for host in hosts:
        with pytest.raises(addresses.Refused):
            asyncio.run(sending.connected(yarl.URL(f"http://{host}:9/"), private=False))


ANSWERS: dict[str, tuple[bytes, Any]] = {
    "interim answers first": (b"HTTP/1.1 102 Processing\r\nA: b\r\n\r\nHTTP/1.1 204 Done\r\n\r\n", 204),
    "no reason": (b"HTTP/1.0 302\r\n\r\n", 302),
    "interim answers only": (b"HTTP/1.1 102 Processing\r\n\r\n" * 100_000, ValueError),
    "a line without end": (b"HTTP/1.1 " + b"0" * 3_000_000, ValueError),
    "headers only": (b"a: b\r\n" * 500_000, ValueError),
    "nothing": (b"", ValueError),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_of_an_answer_only_the_status_is_read(what: str) -> None:
    """Even if the receiver reads nothing of what it is sent."""
    answer, expected = ANSWERS[what]

    def talk() -> None:
        connection, _ = listening.accept()
        with connection, suppress(OSError):
            connection.sendall(answer)
            if expected is not ValueError:
                connection.recv(1)
                time.sleep(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        receiving = threading.Thread(target=talk)
        receiving.start()
        posting = sending.posted(
            f"http://127.0.0.1:{listening.getsockname()[1]}/", b"x" * 20_000_000, {}, 10, private=True
        )
        try:
            if expected is ValueError:
                with pytest.raises((ValueError, ConnectionError)):
                    asyncio.run(posting)
            else:
                assert asyncio.run(posting) == expected
        finally:
            receiving.join()


@pytest.fixture
def silent() -> Iterator[list[str]]:
    """URLs of receivers that take connections and say nothing."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(4)]
    yield [f"http://127.0.0.1:{one.getsockname()[1]}/" for one in sockets]
    for one in sockets:
        one.close()


def test_silent_receivers_delay_nobody_else(tmp_path: Path, receiver: Receiver, silent: list[str]) -> None:
    with _client(tmp_path) as client:
        for url in silent:
            for _ in range(6):  # more than one host may have under way
                client.submit_job("count_words", {"texts": ["a"]}, webhook=url)
        job_id = client.submit_job("count_words", {"texts": ["a"]}, webhook=receiver.url)
        client.wait_for_job(job_id, 60)
        began = time.monotonic()
        _until_told(client, job_id)
        assert time.monotonic() - began < webhooks.TIMEOUT * 2 / 3
        [core] = [one for one in Core._all.values() if one.settings.data_dir == tmp_path]
        under_way = core.backend._jobs.deliveries._hosts
        assert set(under_way.values()) == {webhooks.AT_ONCE_BY_HOST}


BEFORE = """
DROP TABLE llmbackend_version;
DROP TABLE job_schedules;
CREATE TABLE job_schedules (
    owner VARCHAR(128) NOT NULL, name VARCHAR(128) NOT NULL, cron VARCHAR(128) NOT NULL, timezone VARCHAR(64) NOT NULL,
    type VARCHAR(64) NOT NULL, params TEXT NOT NULL, place VARCHAR(64) NOT NULL, priority INTEGER NOT NULL,
    next_at FLOAT NOT NULL, created_at VARCHAR(32) NOT NULL, PRIMARY KEY (owner, name)
);
CREATE INDEX ix_job_schedules_next_at ON job_schedules (next_at);
DROP TABLE job_webhooks;
CREATE TABLE job_webhooks (
    job INTEGER NOT NULL, url TEXT NOT NULL, due_at FLOAT, tries INTEGER NOT NULL, delivered_at VARCHAR(32), error TEXT,
    PRIMARY KEY (job), FOREIGN KEY(job) REFERENCES jobs (number)
);
CREATE INDEX ix_job_webhooks_due_at ON job_webhooks (due_at);
PRAGMA user_version = 0;
"""
"""How schedules and webhooks were kept before each told its error and its host."""


def test_schedules_and_webhooks_of_before_go_on(tmp_path: Path, receiver: Receiver) -> None:
    with _client(tmp_path) as client:
        waiting = client.submit_job("count_words", {"texts": ["a"]}, run_at="2999-01-01T00:00:00+00:00")
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection, connection:
        connection.executescript(BEFORE)
        connection.execute(
            "INSERT INTO job_schedules VALUES "
            "('local', 'nightly', '* * * * *', 'UTC', 'count_words', '{\"texts\": [\"a b\"]}', '', 0, 1, '')"
        )
        connection.execute(
            "INSERT INTO job_webhooks SELECT number, ?, NULL, 0, NULL, NULL FROM jobs WHERE id = ?",
            (receiver.url, waiting),
        )
    with _client(tmp_path) as client:
        [schedule] = client.list_schedules()
        assert (schedule.name, schedule.error) == ("nightly", None)
        client.cancel_job(waiting)
        assert _until_told(client, waiting).tries == 1
        deadline = time.monotonic() + 60
        while not (others := [job for job in client.list_jobs() if job.id != waiting]):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.wait_for_job(others[0].id, 60)


def test_no_project_can_sign_for_another(
    tmp_path: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is signed with a secret of its own, which its receivers are given; default's is the server's."""
    options: dict[str, Any] = {"webhook_secret": SECRET, "webhook_private": True}
    keys = {"hr": "key-of-hr", "support": "key-of-support", "default": "the-administrators-key"}
    settings = Settings(
        data_dir=tmp_path,
        api_key=keys["default"],
        api_keys="hr:key-of-hr,support:key-of-support",
        **options,
    )
    job = {"job_type": "count_words", "params": {"texts": ["a"]}, "webhook": receiver.url}
    sent: dict[str, tuple[str, bytes]] = {}
    with start_blocking_portal() as portal:
        backend = portal.call(Backend.open, settings)
        door = Door(portal, backend)
        for project, key in keys.items():
            job_id = door.ask("POST", "/v1/jobs", key, job).json()["id"]
            deadline = time.monotonic() + 60
            while not door.ask("GET", f"/v1/jobs/{job_id}", key).json()["webhook"]["delivered_at"]:
                assert time.monotonic() < deadline
                time.sleep(0.02)
            headers, body = receiver.seen[-1]
            signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
            sent[project] = headers["webhook-signature"], signed
        portal.call(backend.close)
    monkeypatch.setenv("WEBHOOK_SECRET", SECRET)
    told = {}
    for project in keys:
        printed = CliRunner().invoke(app, ["keys", "webhooks", project])
        assert printed.exit_code == 0, printed.output
        told[project] = signatures.key(printed.output.strip())
    assert told["default"] == SECRET.encode()
    assert len(set(told.values())) == 3
    for project, (signature, signed) in sent.items():
        fits = {
            name
            for name, secret in told.items()
            if signature
            == "v1," + base64.b64encode(hmac.new(secret, signed, hashlib.sha256).digest()).decode()
        }
        assert fits == {project}
