"""Embeddings by a server behind us, OpenAI-compatible or TEI, that may misbehave."""

from __future__ import annotations

import math
from typing import Any

import pytest

from llmbackend import (
    BackendError,
    BackendTimeout,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    Overloaded,
)
from llmbackend.inference.remote_embedders import TRIES
from llmbackend.inference.tei import tokens_told
from llmbackend.inference.upstream import AT_ONCE
from tests.upstream.conftest import ATTEMPTS, Connect, fails
from tests.upstream.fake import CONTEXT, TEI_BYTES, Upstream, closed_port, running

TEXTS = ["a ferry", "the harbour", "market"]


def _check_vectors(client: LLMBackendClient, texts: list[str] = TEXTS) -> None:
    for text, vector in zip(texts, client.embed(texts), strict=True):
        assert math.hypot(*vector) == pytest.approx(1)
        assert vector[1] / vector[0] == pytest.approx(len(text))


def test_vectors_come_in_the_order_of_the_texts(connect: Connect) -> None:
    _check_vectors(connect(embedding_model="ok"))


@pytest.mark.parametrize(
    ("model", "kind", "requests"),
    [
        ("401", BackendError, 1),
        ("404", NotFound, 1),
        ("429", Overloaded, 1),
        ("500", BackendError, ATTEMPTS),
        ("hang", BackendTimeout, 1),
        ("drip", BackendTimeout, 1),
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
        ("nan", BackendError, 1),
        ("null", BackendError, 1),
        ("null-row", BackendError, 1),
        ("huge", BackendError, 1),
        ("infinite", BackendError, 1),
        ("empty", BackendError, 1),
        ("text", BackendError, 1),
        ("digits", BackendError, 1),
        ("too-few", BackendError, 1),
        ("too-many", BackendError, 1),
        ("unequal", BackendError, 1),
        ("numbered", BackendError, 1),
        ("longer", BackendError, TRIES),
    ],
)
def test_a_failing_embedding_model_is_a_typed_error(
    connect: Connect, upstream: Upstream, model: str, kind: type[LLMBackendError], requests: int
) -> None:
    client = connect(embedding_model=model)
    with fails(kind, backend="the OpenAI-compatible server"):
        client.embed(TEXTS)
    assert len(upstream.seen) == requests


def test_a_server_that_points_elsewhere_is_not_followed(connect: Connect, upstream: Upstream) -> None:
    client = connect(embedding_model="ok")
    client.embed(["its list of models is read"])
    with running() as other:
        for call, path in (
            (lambda: client.embed(["a"]), "embeddings"),
            (lambda: client.chat("hello"), "chat/completions"),
        ):
            upstream.faults, upstream.headers = ["307"], {"Location": f"{other.url}/v1/{path}"}
            with fails(BackendError, status=307):
                call()
        assert other.seen == []


def test_a_server_may_give_numbers_where_base64_was_asked_for(connect: Connect) -> None:
    _check_vectors(connect(embedding_model="floats"))


def test_a_failed_ingest_leaves_no_collection_behind(connect: Connect) -> None:
    client = connect(embedding_model="401")
    with fails(BackendError):
        client.rag_ingest("The harbour was dredged in 1911.", "town")
    assert client.list_collections() == []


def test_tei_gives_vectors(connect: Connect, upstream: Upstream) -> None:
    _check_vectors(connect(tei_url=f"{upstream.url}/ok"))


@pytest.mark.parametrize(
    ("behaviour", "kind"),
    [
        ("401", BackendError),
        ("429", Overloaded),
        ("500", BackendError),
        ("hang", BackendTimeout),
        ("drip", BackendTimeout),
        ("html", BackendError),
        ("not-json", BackendError),
        ("other-json", BackendError),
        ("nan", BackendError),
        ("null", BackendError),
        ("null-row", BackendError),
        ("huge", BackendError),
        ("infinite", BackendError),
        ("empty", BackendError),
        ("text", BackendError),
        ("digits", BackendError),
        ("too-few", BackendError),
        ("too-many", BackendError),
        ("unequal", BackendError),
        ("longer", BackendError),
    ],
)
def test_a_failing_tei_is_a_typed_error(
    connect: Connect, upstream: Upstream, behaviour: str, kind: type[LLMBackendError]
) -> None:
    client = connect(tei_url=f"{upstream.url}/{behaviour}")
    with fails(kind, backend="TEI"):
        client.embed(TEXTS)
    assert 1 <= len(upstream.seen) <= ATTEMPTS


def test_embedding_servers_that_are_not_there_are_backend_errors(connect: Connect) -> None:
    for settings in (
        {"openai_base_url": closed_port(), "embedding_model": "ok"},
        {"tei_url": closed_port()},
    ):
        with fails(BackendError):
            connect(**settings).embed(TEXTS)


# Many texts to embed

MANY = [f"{number:x<{number}}" for number in range(1, 301)]


@pytest.fixture(params=["OpenAI", "TEI"])
def embedding(request: pytest.FixtureRequest, connect: Connect, upstream: Upstream) -> LLMBackendClient:
    """A client with each kind of embedding server."""
    if request.param == "TEI":
        return connect(tei_url=f"{upstream.url}/ok")
    return connect(embedding_model="ok")


def _sent(upstream: Upstream) -> list[list[str]]:
    """The texts of each request."""
    return [body.get("inputs") or body["input"] for body in upstream.seen]


def test_many_texts_go_in_batches_some_at_once_and_come_in_order(
    embedding: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.work = 0.1  # so that they meet, however slowly they are sent
    _check_vectors(embedding, MANY)
    assert len(_sent(upstream)) > AT_ONCE
    assert sorted((text for batch in _sent(upstream) for text in batch), key=len) == MANY
    assert 1 < upstream.most_at_work <= AT_ONCE


def test_a_text_that_comes_again_is_sent_once(embedding: LLMBackendClient, upstream: Upstream) -> None:
    _check_vectors(embedding, TEXTS * 50)
    assert _sent(upstream) == [TEXTS]


def test_the_first_failure_is_raised_and_ends_the_rest(
    embedding: LLMBackendClient, upstream: Upstream
) -> None:
    embedding.embed(["its list of models is read"])
    upstream.faults, upstream.work = ["401"], 0.5
    with fails(BackendError, status=401):
        embedding.embed(MANY)
    assert len(upstream.seen) <= 1 + AT_ONCE


def test_long_texts_go_in_smaller_batches(connect: Connect, upstream: Upstream) -> None:
    texts = [f"{number} " + "x" * 100_000 for number in range(9)]
    connect(embedding_model="ok").embed(texts)
    assert sorted(map(len, _sent(upstream))) == [1, 4, 4]


def test_batches_are_as_large_as_tei_says(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_url=f"{upstream.url}/ok")
    upstream.tei_texts = 8
    _check_vectors(client, MANY[:20])
    assert sorted(map(len, _sent(upstream))) == [6, 7, 7]
    # It is asked only once.
    upstream.reset()
    _check_vectors(client, MANY[20:40])
    assert sorted(map(len, _sent(upstream))) == [6, 7, 7]


def test_a_tei_that_says_nothing_of_itself_is_sent_its_default(connect: Connect, upstream: Upstream) -> None:
    _check_vectors(connect(tei_url=f"{upstream.url}/old"), MANY[:70])
    assert sorted(map(len, _sent(upstream))) == [23, 23, 24]


@pytest.mark.parametrize(
    "told",
    [
        {"max_client_batch_size": 0},
        {"max_input_length": 0},
        {"max_batch_tokens": -1},
        {"max_concurrent_requests": "many"},
        {"model_id": 5},
    ],
)
def test_a_tei_that_tells_nonsense_of_itself_is_a_typed_error(
    connect: Connect, upstream: Upstream, told: dict[str, Any]
) -> None:
    upstream.tei_told = told
    with fails(BackendError, backend="TEI") as caught:
        connect(tei_url=f"{upstream.url}/ok").embed(["a", "b " * CONTEXT * 2])
    assert "unexpected answer" in str(caught.value)


def test_a_number_of_tokens_that_cannot_be_is_not_told() -> None:
    assert [tokens_told({"x-compute-tokens": told}) for told in ("12", "9" * 5000, "many")] == [
        12,
        None,
        None,
    ]


def test_a_batch_that_is_too_large_is_halved(connect: Connect, upstream: Upstream) -> None:
    upstream.tei_texts = 8
    _check_vectors(connect(tei_url=f"{upstream.url}/old"), MANY[:32])
    assert sorted(map(len, _sent(upstream))) == [8, 8, 8, 8, 16, 16, 32]
    upstream.reset()
    texts = [f"{number} " + "x" * 5000 for number in range(32)]
    _check_vectors(connect(tei_url=f"{upstream.url}/ok"), texts)
    assert sorted(map(len, _sent(upstream))) == [16, 16, 32]


def test_a_text_that_is_too_large_by_itself_is_named(connect: Connect, upstream: Upstream) -> None:
    with fails(InvalidRequest, backend="TEI", index=2) as caught:
        connect(tei_url=f"{upstream.url}/old").embed(["a", "a", "x" * TEI_BYTES, "b"])
    assert "input[2]:" in str(caught.value)


def test_a_busy_tei_is_asked_again(connect: Connect, upstream: Upstream) -> None:
    upstream.faults = ["429"]
    _check_vectors(connect(tei_url=f"{upstream.url}/ok", upstream_timeout=5))
    assert _sent(upstream) == [TEXTS, TEXTS]


# Dimensions


@pytest.mark.parametrize("server", ["OpenAI", "TEI"])
def test_dimensions_are_asked_of_the_server(connect: Connect, upstream: Upstream, server: str) -> None:
    settings = {"embedding_model": "short"} if server == "OpenAI" else {"tei_url": f"{upstream.url}/short"}
    client = connect(**settings)
    vectors = client.embed(TEXTS, dimensions=2)
    assert (vectors.dimension, len(vectors)) == (2, 3)
    assert upstream.seen[-1]["dimensions"] == 2
    assert math.hypot(*vectors[0]) == pytest.approx(1)
    _check_vectors(client)  # the whole ones are others
    assert "dimensions" not in upstream.seen[-1]


@pytest.mark.parametrize("server", ["OpenAI", "TEI"])
def test_dimensions_that_a_server_does_not_heed_are_refused(
    connect: Connect, upstream: Upstream, server: str
) -> None:
    settings = {"embedding_model": "ok"} if server == "OpenAI" else {"tei_url": f"{upstream.url}/ok"}
    with fails(InvalidRequest, dimensions=2, possible=[3]):
        connect(**settings).embed(TEXTS, dimensions=2)


# Token ids, as LangChain's OpenAIEmbeddings sends unless told otherwise

IDS = [[101, 2023, 102], [7, 8], [101, 2023, 102]]


def test_token_ids_pass_to_an_openai_compatible_server(connect: Connect, upstream: Upstream) -> None:
    client = connect(embedding_model="ok")
    vectors = client.embed(IDS)  # type: ignore[arg-type]
    assert [round(row[2] / row[0]) for row in vectors] == [101, 7, 101]
    assert [body["input"] for body in upstream.seen] == [[[101, 2023, 102], [7, 8]]]
    assert client.embed([101, 2023, 102])[0] == vectors[0]  # type: ignore[list-item]
    with fails(InvalidRequest, index=1, limit=CONTEXT) as caught:
        client.embed([[1], [2] * (CONTEXT + 1)])  # type: ignore[list-item]
    assert "input[1]: " in str(caught.value)


def test_token_ids_to_tei_are_refused_with_the_remedy(connect: Connect, upstream: Upstream) -> None:
    with fails(InvalidRequest) as caught:
        connect(tei_url=f"{upstream.url}/ok").embed(IDS)  # type: ignore[arg-type]
    assert "check_embedding_ctx_length=False" in str(caught.value)
    assert upstream.seen == []


def test_an_unchanged_document_is_not_embedded_again(connect: Connect, upstream: Upstream) -> None:
    client = connect(embedding_model="ok", embedding_cache_mb=0)
    documents = [{"id": str(number), "text": f"Ferry {number} leaves at nine."} for number in range(10)]
    assert client.rag_ingest(documents, "town").added == 10
    upstream.reset()
    assert client.rag_ingest(documents, "town").unchanged == 10
    assert upstream.seen == []
