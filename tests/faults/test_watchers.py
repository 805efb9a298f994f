"""Streams of events on which nothing happens for long, and many who watch at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import sqlalchemy
from sqlalchemy import event

from llmbackend import LLMBackendClient, NotFound
from llmbackend.local import Core, LocalTransport
from llmbackend.server.running import GRACE
from llmbackend.settings import Settings
from llmbackend.sse import HEARTBEAT
from tests.server import serving
from tests.upstream.fake import KEY, SLOW, running

BEAT = 0.2
LATER = "2999-01-01T00:00:00+00:00"


# The fixture `client` is made of these, here with a chat model that takes SLOW seconds.


@pytest.fixture(scope="module")
def _settings() -> Iterator[dict[str, Any]]:
    with running() as upstream:
        yield {
            "openai_base_url": upstream.url,
            "openai_api_key": KEY,
            "chat_model": "slow",
            "heartbeat_seconds": BEAT,
        }


@pytest.fixture(scope="module")
def _local(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), **_settings)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="module")
def _http(_settings: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, **_settings) as server, LLMBackendClient(server.url) as client:
        yield client


def test_an_unchanged_job_is_watched_for_many_times_the_timeout(
    client: LLMBackendClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without heartbeats, a client takes a server that says nothing for so long for gone."""
    monkeypatch.setitem(vars(client._transport), "timeout", 10 * BEAT)  # the other transport has none
    job_id = client.submit_job("count_words", {"texts": ["a"]}, run_at=LATER)
    calls: list[str] = []
    stream = client._transport.stream

    def counted(operation: str, given: dict[str, Any]) -> Iterator[bytes]:
        calls.append(operation)
        return stream(operation, given)

    monkeypatch.setattr(client._transport, "stream", counted)
    threading.Timer(40 * BEAT, client.cancel_job, [job_id]).start()
    assert [one.job.status for one in client.job_events(job_id)] == ["queued", "cancelled"]
    assert calls == ["job_events"]  # one stream from beginning to end


def test_heartbeats_longer_apart_than_the_clients_timeout_do_no_harm(tmp_path: Path) -> None:
    """Whoever comes back hears at once that the server is there."""
    with (
        serving(tmp_path, heartbeat_seconds=10) as server,
        LLMBackendClient(server.url, timeout=0.5) as client,
    ):
        job_id = client.submit_job("count_words", {"texts": ["a"]}, run_at=LATER)
        seen = client.job_events(job_id)
        number = next(seen).id
        began = time.monotonic()
        assert next(client._stream("job_events", job_id=job_id, last_event_id=number)) == HEARTBEAT
        assert time.monotonic() - began < 5


def test_a_server_that_is_watched_stops_at_once_and_the_next_one_is_watched(tmp_path: Path) -> None:
    with serving(tmp_path, heartbeat_seconds=15) as server, LLMBackendClient(server.url) as client:
        job_id = client.submit_job("count_words", {"texts": ["a"]}, run_at=LATER)
        seen = client.job_events(job_id)
        assert next(seen).job.status == "queued"
        began = time.monotonic()
        server.process.terminate()
        assert server.process.wait(timeout=30) == 0
        assert time.monotonic() - began < GRACE, "it does not wait for those who watch"
        with serving(tmp_path, port=urlsplit(server.url).port), LLMBackendClient(server.url) as other:
            other.cancel_job(job_id)
            assert [one.job.status for one in seen] == ["cancelled"]


@pytest.mark.parametrize("operation", ["chat", "rag_query", "rag", "rag_ingest", "job_events"])
def test_a_stream_that_waits_sends_heartbeats(
    client: LLMBackendClient, collection: str, operation: str
) -> None:
    client.rag_ingest("The quay opens at nine.", collection=collection)
    asked: dict[str, Any] = {
        "chat": {"messages": [{"role": "user", "content": "Hello"}]},
        "rag": {"messages": [{"role": "user", "content": "When?"}], "model": f"rag/{collection}"},
        "rag_query": {"question": "When does it open?", "collection": collection},
        "rag_ingest": {"documents": ["A text."], "collection": collection},
        "job_events": {"job_id": client.submit_job("count_words", {"texts": ["a"], "pause": SLOW})},
    }[operation]
    name = "chat" if operation == "rag" else operation
    chunks = b"".join(client._stream(name, **asked))
    assert b"[DONE]" in chunks
    assert b'data: {"error"' not in chunks
    # An ingest of a sentence may be over before a heartbeat is due.
    assert operation == "rag_ingest" or HEARTBEAT in chunks
    for part in chunks.split(b"\n\n"):
        assert part in (b"", HEARTBEAT.strip()) or part.startswith((b"data: ", b"id: "))


def test_a_job_that_there_is_not_is_told_at_once(client: LLMBackendClient) -> None:
    with pytest.raises(NotFound):
        list(client.job_events("nonsense"))


def test_watchers_share_one_look(tmp_path: Path) -> None:
    """400 of them look at the database no more often than one does."""
    looks = 0

    def count(*_: Any) -> None:
        nonlocal looks
        looks += 1

    with ExitStack() as stack:
        client = stack.enter_context(
            LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path, heartbeat_seconds=BEAT)))
        )
        [core] = [one for one in Core._all.values() if one.settings.data_dir == tmp_path]
        jobs = [client.submit_job("count_words", {"texts": ["a"]}, run_at=LATER) for _ in range(8)]
        streams = [client.job_events(jobs[number % len(jobs)]) for number in range(400)]
        for one in streams:
            assert next(one).job.status == "queued"
        engine: sqlalchemy.Engine = core.backend._database.engine
        event.listen(engine, "after_cursor_execute", count)
        time.sleep(2)
        event.remove(engine, "after_cursor_execute", count)
        assert (
            looks < 100
        )  # 5 a second for the watchers, and some for the worker; each on its own makes 4,000
        # Every one of them is told.
        for job_id in jobs:
            client.cancel_job(job_id)
        assert {next(one).job.status for one in streams} == {"cancelled"}
        del streams
