"""Reranking by a server behind us, TEI or one of Jina's wire, that may misbehave."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from llm_client import Record, Records
from llmbackend import (
    BackendError,
    BackendTimeout,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    Overloaded,
)
from llmbackend.inference.upstream import AT_ONCE
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import ATTEMPTS, TIMEOUT, Connect, fails
from tests.upstream.fake import KEY, TEI_BYTES, TEI_TEXTS, USAGE, Upstream, closed_port

QUERY = "When was the harbour dredged?"
TEXTS = ["market", "the harbour", "a ferry", "the harbour"]
BEST_FIRST = [
    (1, 0.011, "the harbour"),
    (3, 0.011, "the harbour"),
    (2, 0.007, "a ferry"),
    (0, 0.006, "market"),
]
MANY = [f"{number:x<{number}}" for number in range(1, 301)]


def _settings(wire: str, upstream: Upstream, behaviour: str = "ok") -> dict[str, Any]:
    if wire == "TEI":
        return {"tei_rerank_url": f"{upstream.url}/{behaviour}"}
    return {"rerank_url": f"{upstream.url}/v1", "rerank_model": behaviour}


def _rows(ranked: Records) -> list[tuple[int, float, str]]:
    return [(one.index, one.score, one.text) for one in ranked]


def _sent(upstream: Upstream) -> list[list[str]]:
    """The texts of each request."""
    return [body.get("texts") or body["documents"] for body in upstream.seen]


wires = pytest.mark.parametrize("wire", ["TEI", "Jina"])


@wires
def test_texts_come_best_first(connect: Connect, upstream: Upstream, wire: str) -> None:
    client = connect(**_settings(wire, upstream))
    ranked = client.rerank(QUERY, TEXTS)
    assert _rows(ranked) == BEST_FIRST
    assert type(ranked) is Records
    assert all(isinstance(one, Record) for one in ranked)
    assert _rows(client.rerank(QUERY, TEXTS, top_n=2)) == BEST_FIRST[:2]
    assert _rows(client.rerank(QUERY, TEXTS, top_n=99)) == BEST_FIRST
    assert _rows(client.rerank(QUERY, (text for text in TEXTS))) == BEST_FIRST  # type: ignore[arg-type]
    # A text that is there twice was sent once.
    assert _sent(upstream) == [["market", "the harbour", "a ferry"]] * 4
    assert {body["query"] for body in upstream.seen} == {QUERY}


@wires
@pytest.mark.parametrize(
    ("behaviour", "kind", "tries"),
    [
        ("401", BackendError, 1),
        ("404", NotFound, 1),
        ("424", BackendError, 1),
        ("429", Overloaded, 1),
        ("500", BackendError, ATTEMPTS),
        ("hang", BackendTimeout, 1),
        ("drip", BackendTimeout, 1),
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
        ("nan", BackendError, 1),
        ("null", BackendError, 1),
        ("too-few", BackendError, 1),
        ("too-many", BackendError, 1),
        ("twice", BackendError, 1),
        ("beyond", BackendError, 1),
    ],
)
def test_a_failing_reranker_is_a_typed_error(
    connect: Connect, upstream: Upstream, wire: str, behaviour: str, kind: type[LLMBackendError], tries: int
) -> None:
    client = connect(**_settings(wire, upstream, behaviour))
    with fails(kind, backend={"TEI": "TEI", "Jina": "the rerank server"}[wire]):
        client.rerank(QUERY, TEXTS)
    assert len(upstream.seen) == tries


@pytest.mark.parametrize("setting", ["TEI_RERANK", "RERANK"])
def test_a_refused_key_names_its_setting(connect: Connect, upstream: Upstream, setting: str) -> None:
    wire = "TEI" if setting == "TEI_RERANK" else "Jina"
    with fails(BackendError, status=401) as caught:
        connect(**_settings(wire, upstream, "401")).rerank(QUERY, TEXTS)
    assert f"check {setting}_API_KEY" in caught.value.message


@pytest.mark.parametrize("setting", ["tei_rerank_url", "rerank_url"])
def test_a_reranker_that_is_not_there_is_a_backend_error(connect: Connect, setting: str) -> None:
    with fails(BackendError):
        connect(**{setting: closed_port()}).rerank(QUERY, TEXTS)


@wires
def test_a_busy_reranker_is_asked_again_when_it_says(connect: Connect, upstream: Upstream, wire: str) -> None:
    upstream.faults = ["429"]
    client = connect(**_settings(wire, upstream), upstream_timeout=5)
    began = time.monotonic()
    assert _rows(client.rerank(QUERY, TEXTS)) == BEST_FIRST
    assert time.monotonic() - began >= 1
    assert len(upstream.seen) == 2


def test_what_was_learned_of_a_busy_server_ends_with_its_client(connect: Connect, upstream: Upstream) -> None:
    upstream.faults = ["429"]
    gc.disable()  # a closed client may be there for long
    try:
        client = connect(**_settings("TEI", upstream), upstream_timeout=5)
        client.rerank(QUERY, TEXTS)
        client.close()
        upstream.seen.clear()
        connect(**_settings("TEI", upstream)).rerank(QUERY, MANY[:TEI_TEXTS])
    finally:
        gc.enable()
    assert list(map(len, _sent(upstream))) == [TEI_TEXTS], "not cut for a server that is busy"


# Many texts


def test_many_texts_go_to_tei_in_batches_some_at_once(connect: Connect, upstream: Upstream) -> None:
    upstream.work = 0.1  # so that they meet, however slowly they are sent
    ranked = connect(**_settings("TEI", upstream)).rerank(QUERY, MANY)
    assert [one.text for one in ranked] == MANY[::-1]
    assert [one.index for one in ranked] == list(range(299, -1, -1))
    assert max(map(len, _sent(upstream))) <= TEI_TEXTS
    assert sorted((text for batch in _sent(upstream) for text in batch), key=len) == MANY
    assert 1 < upstream.most_at_work <= AT_ONCE
    assert all(body["truncate"] is True and body["raw_scores"] is False for body in upstream.seen)


def test_a_server_of_jinas_wire_compares_many_texts_at_once(connect: Connect, upstream: Upstream) -> None:
    ranked = connect(**_settings("Jina", upstream)).rerank(QUERY, MANY, top_n=3)
    assert [one.text for one in ranked] == MANY[:-4:-1]
    assert _sent(upstream) == [MANY]
    assert upstream.seen[0]["return_documents"] is False


def test_a_batch_that_is_too_large_for_tei_is_halved(connect: Connect, upstream: Upstream) -> None:
    upstream.tei_texts = 8
    ranked = connect(**_settings("TEI", upstream, "old")).rerank(QUERY, MANY[:32])
    assert [one.text for one in ranked] == MANY[31::-1]
    assert sorted(map(len, _sent(upstream))) == [8, 8, 8, 8, 16, 16, 32]


def test_a_text_that_is_too_large_by_itself_is_named(connect: Connect, upstream: Upstream) -> None:
    with fails(InvalidRequest, backend="TEI", index=2) as caught:
        connect(**_settings("TEI", upstream)).rerank(QUERY, ["a", "a", "x" * TEI_BYTES, "b"])
    assert "documents[2]" in str(caught.value)


def test_the_first_failure_ends_the_rest(connect: Connect, upstream: Upstream) -> None:
    upstream.faults, upstream.work = ["401"], 0.5
    with fails(BackendError, status=401):
        connect(**_settings("TEI", upstream)).rerank(QUERY, MANY)
    assert len(upstream.seen) <= AT_ONCE


def test_all_batches_have_one_deadline(connect: Connect, upstream: Upstream) -> None:
    client = connect(**_settings("TEI", upstream), upstream_timeout=2 * TIMEOUT)
    texts = MANY[: 2 * AT_ONCE * TEI_TEXTS]
    # Two rounds, each with a pause of two seconds: the second would end after four.
    upstream.faults = ["429"] * AT_ONCE + ["ok"] * AT_ONCE + ["429"] * AT_ONCE
    with fails(Overloaded):
        client.rerank(QUERY, texts)


# Models


def test_jinas_wire_is_told_the_model(connect: Connect, upstream: Upstream) -> None:
    client = connect(rerank_url=f"{upstream.url}/v1")
    client.rerank(QUERY, TEXTS)
    assert "model" not in upstream.seen[-1], "a server of one model takes that"
    client.rerank(QUERY, TEXTS, model="another")
    assert upstream.seen[-1]["model"] == "another"
    connect(**_settings("Jina", upstream, "mine")).rerank(QUERY, TEXTS)
    assert upstream.seen[-1]["model"] == "mine"


def test_tei_serves_one_model(connect: Connect, upstream: Upstream) -> None:
    client = connect(**_settings("TEI", upstream))
    assert _rows(client.rerank(QUERY, TEXTS, model="fake")) == BEST_FIRST
    with fails(NotFound, model="another"):
        client.rerank(QUERY, TEXTS, model="another")
    assert len(upstream.seen) == 1
    client = connect(**_settings("TEI", upstream), rerank_model="mine")
    assert _rows(client.rerank(QUERY, TEXTS, model="mine")) == BEST_FIRST


# Over HTTP


@pytest.fixture
def url(upstream: Upstream, tmp_path: Path) -> Iterator[str]:
    """Our server, with a reranker of Jina's wire behind it."""
    with serving(tmp_path, api_key=SERVER_KEY, **_settings("Jina", upstream), rerank_api_key=KEY) as server:
        yield server.url


def test_the_server_speaks_jinas_wire_too(url: str, upstream: Upstream) -> None:
    def post(**fields: Any) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {SERVER_KEY}"}
        body = {"query": QUERY, "documents": TEXTS, **fields}
        reply = requests.post(f"{url}/v1/rerank", json=body, headers=headers, timeout=10)
        assert reply.status_code == 200, reply.text
        data: dict[str, Any] = reply.json()
        return data

    tokens = USAGE["prompt_tokens"]
    assert post(top_n=1, model="ok") == {
        "model": "ok",
        "results": [{"index": 1, "relevance_score": 0.011, "document": {"text": "the harbour"}}],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    assert [one["document"] for one in post(return_documents=False)["results"]] == [None] * 4
    with LLMBackendClient(url, SERVER_KEY) as client:
        assert _rows(client.rerank(QUERY, TEXTS)) == BEST_FIRST
        with fails(BackendError, backend="the rerank server", status=500):
            client.rerank(QUERY, TEXTS, model="500")


def test_one_of_our_servers_may_be_anothers_reranker(url: str, connect: Connect) -> None:
    client = connect(rerank_url=f"{url}/v1", rerank_api_key=SERVER_KEY)
    assert _rows(client.rerank(QUERY, TEXTS)) == BEST_FIRST


def test_a_rerank_is_in_the_trace(
    connect: Connect, upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="llmbackend.calls")
    connect(**_settings("Jina", upstream)).rerank(QUERY, TEXTS)
    assert "rerank ok id=" in caplog.text
    assert f"model=ok prompt_tokens={USAGE['prompt_tokens']} " in caplog.text
    assert QUERY not in caplog.text
