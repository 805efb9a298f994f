"""A model server behind us that misbehaves: typed errors, in time, few retries, and its key stays secret."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
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
    StreamInterrupted,
)
from llmbackend.inference.batches import IN_FLIGHT
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.faults.upstream import KEY, REPLY, TEI_BYTES, Upstream, closed_port, running
from tests.server import KEY as SERVER_KEY
from tests.server import serving

TIMEOUT = 1
DEADLINE = 3 * TIMEOUT + 4  # three attempts, and the waits between them

Connect = Callable[..., LLMBackendClient]


@pytest.fixture(scope="module")
def _upstream() -> Iterator[Upstream]:
    with running() as upstream:
        yield upstream


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    _upstream.reset()
    return _upstream


def _options(upstream: Upstream) -> dict[str, Any]:
    return {
        "openai_base_url": upstream.url,
        "openai_api_key": KEY,
        "chat_model": "ok",
        "upstream_timeout": TIMEOUT,
    }


# The fixture `client` is made of these two, here with the fake for a chat model.


@pytest.fixture(scope="module")
def _local(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    options = Settings(data_dir=tmp_path_factory.mktemp("local"), **_options(_upstream))
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        yield client


@pytest.fixture(scope="module")
def _http(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLMBackendClient]:
    folder = tmp_path_factory.mktemp("server")
    with (
        serving(folder, api_key=SERVER_KEY, **_options(_upstream)) as server,
        LLMBackendClient(server.url, SERVER_KEY) as client,
    ):
        yield client


@pytest.fixture
def connect(upstream: Upstream, tmp_path: Path) -> Iterator[Connect]:
    """A client in this process with settings of its own; closed at the end."""
    opened: list[LLMBackendClient] = []

    def open_one(**settings: Any) -> LLMBackendClient:
        options = Settings(
            data_dir=tmp_path / str(len(opened)), **{**_options(upstream), "tei_api_key": KEY, **settings}
        )
        opened.append(LLMBackendClient(transport=LocalTransport(options)))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


@contextmanager
def fails(kind: type[LLMBackendError], **details: Any) -> Iterator[pytest.ExceptionInfo[LLMBackendError]]:
    """This very class, in time, with these details, and without the upstream's key."""
    began = time.monotonic()
    with pytest.raises(LLMBackendError) as caught:
        yield caught
    assert time.monotonic() - began < DEADLINE
    error = caught.value
    assert type(error) is kind, repr(error)
    assert {name: error.details.get(name) for name in details} == details
    assert KEY not in f"{error!r} {error} {json.dumps(error.to_dict())}"


# Chat

ATTEMPTS = 3


@pytest.mark.parametrize(
    ("model", "kind", "requests"),
    [
        ("400", InvalidRequest, 1),
        ("401", BackendError, 1),
        ("403", BackendError, 1),
        ("404", NotFound, 1),
        ("408", BackendTimeout, ATTEMPTS),
        ("409", BackendError, 1),
        ("422", InvalidRequest, 1),
        ("429", Overloaded, 1),
        ("500", BackendError, ATTEMPTS),
        ("hang", BackendTimeout, 1),
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
        ("empty", BackendError, 1),
    ],
)
def test_a_failing_chat_model_is_a_typed_error(
    client: LLMBackendClient, upstream: Upstream, model: str, kind: type[LLMBackendError], requests: int
) -> None:
    with fails(kind, backend="the OpenAI-compatible server"):
        client.chat("hello", model=model)
    assert len(upstream.seen) == requests


@pytest.mark.parametrize(
    ("model", "kind", "requests"),
    [
        ("401", BackendError, 1),
        ("404", NotFound, 1),
        ("429", Overloaded, 1),
        ("500", BackendError, ATTEMPTS),
        ("hang", BackendTimeout, 1),
    ],
)
def test_a_stream_that_cannot_begin_is_the_same_error(
    client: LLMBackendClient, upstream: Upstream, model: str, kind: type[LLMBackendError], requests: int
) -> None:
    with fails(kind, backend="the OpenAI-compatible server"):
        client.chat("hello", model=model, stream=True)
    assert len(upstream.seen) == requests


def test_a_busy_model_tells_when_to_come_back(client: LLMBackendClient, upstream: Upstream) -> None:
    with fails(Overloaded, retry_after=1):
        client.chat("hello", model="429")


@pytest.mark.parametrize("model", ["html", "not-json", "other-json"])
def test_a_stream_that_is_none_breaks_off(client: LLMBackendClient, upstream: Upstream, model: str) -> None:
    with fails(StreamInterrupted) as caught:
        list(client.chat("hello", model=model, stream=True))
    assert isinstance(caught.value, StreamInterrupted)
    assert caught.value.text == ""


@pytest.mark.parametrize(
    ("model", "code"),
    [("truncated", "stream_interrupted"), ("broken", "backend"), ("stalling", "backend_timeout")],
)
def test_a_stream_that_breaks_off_keeps_its_text_and_tells_why(
    client: LLMBackendClient, upstream: Upstream, model: str, code: str
) -> None:
    with fails(StreamInterrupted, code=code) as caught:
        list(client.chat("hello", model=model, stream=True))
    assert isinstance(caught.value, StreamInterrupted)
    assert caught.value.text == "The harbour "
    assert len(upstream.seen) == 1


def test_leaving_a_stream_stops_the_model(client: LLMBackendClient, upstream: Upstream) -> None:
    with client.chat("hello", model="endless", stream=True) as stream:
        assert next(stream) == "The "
    assert upstream.left.wait(2)


def test_a_chat_model_that_is_not_there_is_a_backend_error(connect: Connect) -> None:
    client = connect(openai_base_url=closed_port())
    for stream in (False, True):
        with fails(BackendError, backend="the OpenAI-compatible server"):
            client.chat("hello", stream=stream)


def test_the_first_model_offered_is_asked_where_none_is_named(connect: Connect, upstream: Upstream) -> None:
    reply = connect(chat_model=None).chat("hello")
    assert (reply, reply.model, reply.usage.total_tokens) == (REPLY, "ok", 28)


# Answers from documents

DOCUMENTS = [
    {"id": "harbour", "text": "The harbour of Aldersea was dredged in 1911 to let larger ships in."},
    {"id": "market", "text": "The fish market opens at five in the morning, except on Sundays."},
]
QUESTION = "When was the harbour dredged?"


def test_an_answer_is_the_models_words_from_the_passages(
    client: LLMBackendClient, upstream: Upstream, collection: str
) -> None:
    client.rag_ingest(DOCUMENTS, collection)
    answer = client.rag_query(QUESTION, collection)
    assert (answer, answer.model, answer.usage.total_tokens) == (REPLY, "ok", 28)
    assert [source.document_id for source in answer.sources] == ["harbour", "market"]
    assert answer.sources[0].quote == DOCUMENTS[0]["text"]
    [request] = upstream.seen
    prompt = request["messages"][-1]["content"]
    assert all(document["text"] in prompt for document in DOCUMENTS)
    assert QUESTION in prompt


def test_a_streamed_answer_has_its_sources_first(
    client: LLMBackendClient, upstream: Upstream, collection: str
) -> None:
    client.rag_ingest(DOCUMENTS, collection)
    stream = client.rag_query(QUESTION, collection, stream=True)
    assert [source.document_id for source in stream.sources] == ["harbour", "market"]
    assert len(list(stream)) > 1
    assert (stream.answer, stream.answer.model, stream.answer.found) == (REPLY, "ok", True)
    assert len(upstream.seen) == 1


@pytest.mark.parametrize(
    ("model", "kind", "code_in_stream"),
    [
        ("401", BackendError, "backend"),
        ("429", Overloaded, "overloaded"),
        ("500", BackendError, "backend"),
        ("truncated", BackendError, "stream_interrupted"),
        ("broken", BackendError, "backend"),
    ],
)
def test_a_question_to_a_failing_model_is_a_typed_error(
    connect: Connect, upstream: Upstream, model: str, kind: type[LLMBackendError], code_in_stream: str
) -> None:
    client = connect(chat_model=model)
    client.rag_ingest(DOCUMENTS, "town")
    with fails(kind):
        client.rag_query(QUESTION, "town")
    stream = client.rag_query(QUESTION, "town", stream=True)
    with fails(StreamInterrupted, code=code_in_stream):
        list(stream)
    assert len(upstream.seen) <= 2 * ATTEMPTS


# Analysis

NOTES = json.dumps({"key_points": ["The ferry was late again.", "Nobody told the passengers why."]})
CONCLUSION = json.dumps(
    {
        "summary": "A passenger complains of a late ferry.",
        "sentiment": "negative",
        "strength": "clear",
    }
)


def test_an_analysis_is_the_models(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [NOTES, CONCLUSION]
    analysis = client.analyze_document("The ferry was late again, and nobody told us why.")
    assert analysis.sentiment == "negative"
    assert analysis.sentiment_score == -0.6
    assert analysis.key_points == ["The ferry was late again.", "Nobody told the passengers why."]
    assert analysis.summary == "A passenger complains of a late ferry."
    assert analysis.model == "ok"
    assert [request["response_format"]["type"] for request in upstream.seen] == ["json_schema"] * 2


def test_an_answer_out_of_shape_is_asked_for_once_more(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = ["Sure! Here are the points:", NOTES, CONCLUSION]
    assert client.analyze_document("The ferry was late again.").sentiment == "negative"
    assert len(upstream.seen) == 3


def test_answers_always_out_of_shape_are_a_backend_error(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = ["Sure!", "Here are the points:"]
    with fails(BackendError, text="Here are the points:"):
        client.analyze_document("The ferry was late again.")
    assert len(upstream.seen) == 2


def test_an_analysis_by_a_failing_model_is_its_error(connect: Connect, upstream: Upstream) -> None:
    with fails(BackendError, backend="the OpenAI-compatible server"):
        connect(chat_model="401").analyze_document("The ferry was late again.")
    assert len(upstream.seen) == 1


# Embeddings

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
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
        ("nan", BackendError, 1),
        ("too-few", BackendError, 1),
        ("unequal", BackendError, 1),
    ],
)
def test_a_failing_embedding_model_is_a_typed_error(
    connect: Connect, upstream: Upstream, model: str, kind: type[LLMBackendError], requests: int
) -> None:
    client = connect(embedding_model=model)
    with fails(kind, backend="the OpenAI-compatible server"):
        client.embed(TEXTS)
    assert len(upstream.seen) == requests


def test_a_failed_ingest_leaves_no_collection_behind(connect: Connect) -> None:
    client = connect(embedding_model="401")
    with fails(BackendError):
        client.rag_ingest(DOCUMENTS, "town")
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
        ("html", BackendError),
        ("not-json", BackendError),
        ("other-json", BackendError),
        ("nan", BackendError),
        ("too-few", BackendError),
        ("unequal", BackendError),
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
    _check_vectors(embedding, MANY)
    assert len(_sent(upstream)) > IN_FLIGHT
    assert sorted((text for batch in _sent(upstream) for text in batch), key=len) == MANY
    assert upstream.most_at_work == IN_FLIGHT


def test_a_text_that_comes_again_is_sent_once(embedding: LLMBackendClient, upstream: Upstream) -> None:
    _check_vectors(embedding, TEXTS * 50)
    assert _sent(upstream) == [TEXTS]


def test_the_first_failure_is_raised_and_ends_the_rest(
    embedding: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.faults = ["401"]
    with fails(BackendError, status=401):
        embedding.embed(MANY)
    assert len(upstream.seen) <= IN_FLIGHT


def test_long_texts_go_in_smaller_batches(connect: Connect, upstream: Upstream) -> None:
    texts = [f"{number} " + "x" * 100_000 for number in range(9)]
    connect(embedding_model="ok").embed(texts)
    assert sorted(map(len, _sent(upstream))) == [1, 4, 4]


def test_batches_are_as_large_as_tei_says(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_url=f"{upstream.url}/ok")
    upstream.tei_texts = 8
    _check_vectors(client, MANY[:20])
    assert sorted(map(len, _sent(upstream))) == [4, 8, 8]
    # It is asked only once.
    upstream.reset()
    _check_vectors(client, MANY[:20])
    assert sorted(map(len, _sent(upstream))) == [4, 8, 8]


def test_a_tei_that_says_nothing_of_itself_is_sent_its_default(connect: Connect, upstream: Upstream) -> None:
    _check_vectors(connect(tei_url=f"{upstream.url}/old"), MANY[:70])
    assert sorted(map(len, _sent(upstream))) == [6, 32, 32]


def test_a_batch_that_is_too_large_is_halved(connect: Connect, upstream: Upstream) -> None:
    upstream.tei_texts = 8
    _check_vectors(connect(tei_url=f"{upstream.url}/old"), MANY[:32])
    assert sorted(map(len, _sent(upstream))) == [8, 8, 8, 8, 16, 16, 32]
    upstream.reset()
    texts = [f"{number} " + "x" * 5000 for number in range(32)]
    _check_vectors(connect(tei_url=f"{upstream.url}/ok"), texts)
    assert sorted(map(len, _sent(upstream))) == [16, 16, 32]


def test_a_text_that_is_too_large_by_itself_is_named(connect: Connect, upstream: Upstream) -> None:
    with fails(InvalidRequest, backend="TEI", text=2) as caught:
        connect(tei_url=f"{upstream.url}/ok").embed(["a", "a", "x" * TEI_BYTES, "b"])
    assert "text 2 " in str(caught.value)


def test_a_busy_tei_is_asked_again(connect: Connect, upstream: Upstream) -> None:
    upstream.faults = ["429"]
    _check_vectors(connect(tei_url=f"{upstream.url}/ok", upstream_timeout=5))
    assert _sent(upstream) == [TEXTS, TEXTS]


# Trying again


def test_a_server_that_recovers_is_asked_again(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.faults = ["503", "500"]
    assert client.chat("hello") == REPLY
    assert len(upstream.seen) == 3
    upstream.reset()
    upstream.faults = ["503"]
    assert "".join(client.chat("hello", stream=True)) == REPLY
    assert len(upstream.seen) == 2


def test_a_busy_server_is_asked_again_when_it_says(connect: Connect, upstream: Upstream) -> None:
    client = connect(chat_model="ok", upstream_timeout=5)
    upstream.faults = ["429"]
    began = time.monotonic()
    assert client.chat("hello") == REPLY
    assert time.monotonic() - began >= 1  # its Retry-After
    assert len(upstream.seen) == 2


def test_tries_end_with_the_deadline(connect: Connect, upstream: Upstream) -> None:
    client = connect(chat_model="ok", upstream_timeout=0.1)
    upstream.faults = ["503", "503", "503"]
    with fails(BackendError, backend="the OpenAI-compatible server"):
        client.chat("hello")
    assert len(upstream.seen) == 1  # the pause before the second would outlast the deadline
