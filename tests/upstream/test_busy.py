"""A server that takes so many texts at a time: it gets no more, whoever asks, and what is refused is asked again."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from llmbackend import LLMBackendClient, Overloaded
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import REPLY, Upstream, running

SERVERS = {
    "TEI": {"tei_url": "{url}/ok"},
    "TEI that tells nothing": {"tei_url": "{url}/old"},
    "vLLM": {"embedding_model": "ok"},
}


def _connected(connect: Connect, upstream: Upstream, server: str, **settings: float) -> LLMBackendClient:
    named = {name: value.format(url=upstream.url) for name, value in SERVERS[server].items()}
    return connect(**named, openai_base_url=upstream.url, **{"upstream_timeout": 20, **settings})


@pytest.fixture
def busy() -> Upstream:
    """A server of its own, of which nothing has been learnt yet."""
    with running() as upstream:
        upstream.permits = 24
        yield upstream


@pytest.mark.parametrize("server", SERVERS)
def test_callers_together_send_no_more_than_it_takes(connect: Connect, busy: Upstream, server: str) -> None:
    client = _connected(connect, busy, server)

    def write(number: int) -> int:
        texts = [f"Ferry {number}.{place} leaves at nine." for place in range(60)]
        return int(client.rag_ingest(texts, f"town{number}").added)

    with ThreadPoolExecutor(6) as callers:
        assert list(callers.map(write, range(6))) == [60] * 6
    assert busy.most_under_way <= 24
    if server == "TEI":
        assert busy.refused == 0, "it has told how many it takes"


@pytest.mark.parametrize("server", SERVERS)
def test_a_server_that_stays_busy_fails_a_call_when_its_time_is_up(
    connect: Connect, busy: Upstream, server: str
) -> None:
    client = _connected(connect, busy, server, upstream_timeout=1.5)
    client.embed(["it is there"])
    busy.under_way = 24
    began = time.monotonic()
    with fails(Overloaded):
        client.embed(["a", "b", "c"])
    assert time.monotonic() - began > 0.4, "as long as another try fits in"
    assert busy.refused >= 2, "it is tried again"
    busy.under_way = 0
    assert len(client.embed(["a", "b", "c"])) == 3


def test_a_question_does_not_wait_for_an_ingest(connect: Connect, busy: Upstream) -> None:
    busy.work = 0.1
    client = _connected(connect, busy, "TEI", embedding_cache_mb=0)
    texts = [f"Ferry {place} leaves at nine." for place in range(400)]
    ingesting = threading.Thread(target=client.rag_ingest, args=(texts, "town"))
    client.embed(["it is there"])
    ingesting.start()
    while len(busy.seen) < 4:
        time.sleep(0.01)
    before = len(busy.seen)
    client.embed(["the question"])
    sent = [body["inputs"] for body in busy.seen[before:]]
    assert sent.index(["the question"]) <= 2, "of some twenty batches"
    ingesting.join()
    assert busy.refused == 0


def test_chats_beyond_what_a_server_takes_are_asked_again(connect: Connect, busy: Upstream) -> None:
    busy.permits, busy.work = 3, 0.05
    client = _connected(connect, busy, "vLLM")
    with ThreadPoolExecutor(8) as callers:
        replies = list(callers.map(lambda number: client.chat(f"hello {number}"), range(24)))
    assert replies == [REPLY] * 24


def test_a_busy_reranker_is_asked_in_parts(connect: Connect, busy: Upstream) -> None:
    busy.permits = 5
    client = connect(tei_rerank_url=f"{busy.url}/old", upstream_timeout=20)
    texts = ["x" * length for length in range(1, 21)]
    ranked = client.rerank("the longest", texts)
    assert [one.index for one in ranked] == list(range(19, -1, -1))
