"""Chat by a model server that misbehaves: typed errors, in time, few retries, and its key stays secret."""

from __future__ import annotations

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
from tests.upstream.conftest import ATTEMPTS, Connect, fails
from tests.upstream.fake import REPLY, Upstream, closed_port


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
