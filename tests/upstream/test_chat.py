"""Chat by a model server that misbehaves: typed errors, in time, few retries, and its key stays secret."""

from __future__ import annotations

import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

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
    TransportError,
)
from tests.server import KEY as SERVER_KEY
from tests.upstream.conftest import ATTEMPTS, Connect, fails
from tests.upstream.fake import REPLY, Upstream, closed_port


@pytest.mark.parametrize(
    ("model", "kind", "attempts"),
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
        ("drip", BackendTimeout, 1),
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
        ("empty", BackendError, 1),
        ("bare", BackendError, 1),
    ],
)
def test_a_failing_chat_model_is_a_typed_error(
    client: LLMBackendClient, upstream: Upstream, model: str, kind: type[LLMBackendError], attempts: int
) -> None:
    with fails(kind, backend="the OpenAI-compatible server"):
        client.chat("hello", model=model)
    assert len(upstream.seen) == attempts


@pytest.mark.parametrize(
    ("model", "kind", "attempts"),
    [
        ("401", BackendError, 1),
        ("404", NotFound, 1),
        ("429", Overloaded, 1),
        ("500", BackendError, ATTEMPTS),
        ("hang", BackendTimeout, 1),
        ("drip", BackendTimeout, 1),
        ("trickle", BackendTimeout, 1),
        ("pings", BackendTimeout, 1),
        ("late", BackendTimeout, 1),
        ("no-stream", BackendError, 1),
        ("doomed", BackendError, 1),
        ("html", BackendError, 1),
        ("not-json", BackendError, 1),
        ("other-json", BackendError, 1),
    ],
)
def test_a_stream_that_cannot_begin_is_the_same_error(
    client: LLMBackendClient, upstream: Upstream, model: str, kind: type[LLMBackendError], attempts: int
) -> None:
    with fails(kind, backend="the OpenAI-compatible server"):
        client.chat("hello", model=model, stream=True)
    assert len(upstream.seen) == attempts


def test_a_busy_model_tells_when_to_come_back(client: LLMBackendClient, upstream: Upstream) -> None:
    with fails(Overloaded, retry_after=2):
        client.chat("hello", model="429")


@pytest.mark.parametrize(
    ("model", "code"),
    [
        ("truncated", "stream_interrupted"),
        ("torn", "stream_interrupted"),
        ("junk", "stream_interrupted"),
        ("broken", "backend"),
        ("stalling", "backend_timeout"),
    ],
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
    assert upstream.left.wait(1)


def test_a_stream_that_nobody_holds_any_more_stops_the_model(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    assert next(client.chat("hello", model="endless", stream=True)) == "The "
    assert upstream.left.wait(5)


def test_a_stream_is_left_from_another_thread_while_it_is_waited_for(
    patient: LLMBackendClient, upstream: Upstream
) -> None:
    stream = patient.chat("hello", model="quiet", stream=True)
    with ThreadPoolExecutor() as threads:
        reading = threads.submit(lambda: list(stream))
        while not upstream.seen or (reading.running() and stream.reply == ""):
            time.sleep(0.01)
        stream.close()
        with pytest.raises(StreamInterrupted):
            reading.result(20)
    assert upstream.left.wait(5)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_hangs_up_before_the_answer_stops_the_model(
    patient_server: str, upstream: Upstream, stream: bool
) -> None:
    """Within a second, of which half is for a reply that has just begun: its tokens are counted."""
    where = urlsplit(patient_server)
    asked = {"model": "waiting", "messages": [{"role": "user", "content": "hello"}], "stream": stream}
    seconds = []
    for _ in range(3):
        upstream.reset()
        connection = HTTPConnection(str(where.hostname), where.port, timeout=20)
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(asked),
            {"Authorization": f"Bearer {SERVER_KEY}", "Content-Type": "application/json"},
        )
        while not upstream.seen:
            time.sleep(0.01)
        connection.close()
        began = time.monotonic()
        assert upstream.left.wait(5)
        seconds.append(time.monotonic() - began)
    assert statistics.median(seconds) < 1


def test_closing_a_client_ends_a_call_of_another_thread(connect: Connect, upstream: Upstream) -> None:
    client = connect(upstream_timeout=60)
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(client.chat, "hello", model="waiting")
        while not upstream.seen:
            time.sleep(0.01)
        client.close()
        with pytest.raises(TransportError, match="closed before the answer"):
            waiting.result(20)
    assert upstream.left.wait(5)


def test_a_stream_whose_last_event_lacks_its_empty_line_is_whole(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    assert "".join(client.chat("hello", model="abrupt", stream=True)) == REPLY


def test_an_error_amid_a_stream_does_not_tell_the_key(client: LLMBackendClient, upstream: Upstream) -> None:
    with fails(StreamInterrupted) as caught:
        list(client.chat("hello", model="failing", stream=True))
    assert "the engine died of ***" in caught.value.message


def test_a_stream_that_begins_with_an_error_tells_which(client: LLMBackendClient) -> None:
    with fails(BackendError) as caught:
        client.chat("hello", model="doomed", stream=True)
    assert "the engine died of ***" in caught.value.message


@pytest.mark.parametrize("said", [{"content": "\ud83d"}, {"content": "Glück: \U0001f600"}])
def test_whatever_text_a_model_writes_arrives(
    client: LLMBackendClient, upstream: Upstream, said: dict[str, str]
) -> None:
    upstream.replies = [{"role": "assistant", **said}, {"role": "assistant", **said}]
    assert client.chat("hello") == said["content"]
    assert "".join(client.chat("hello", stream=True)) == said["content"]


def test_a_reply_arrives_with_all_that_its_server_put_in(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    """Known to OpenAI's client or not, null, and of another type than it has there."""
    message = {
        "role": "assistant",
        "content": None,
        "refusal": None,
        "reasoning_content": "hm",
        "annotations": [{"type": "url_citation", "url_citation": {"url": "https://tides.example"}}],
        "tool_calls": [
            {"id": 1, "type": "function", "function": {"name": "tide", "arguments": "{}", "x": 1}}
        ],
        "provider_specific_fields": {"thinking_blocks": [{"signature": None}]},
        "score": 0.1,
    }
    upstream.replies = [message]
    completion = client._call("chat", model="ok", messages=[{"role": "user", "content": "hello"}])
    assert completion["choices"] == [{"index": 0, "message": message, "finish_reason": "tool_calls"}]


def test_a_chat_model_that_is_not_there_is_a_backend_error(connect: Connect) -> None:
    client = connect(openai_base_url=closed_port())
    for stream in (False, True):
        with fails(BackendError, backend="the OpenAI-compatible server"):
            client.chat("hello", stream=stream)


def test_a_server_started_with_another_model_is_asked_for_that(connect: Connect, upstream: Upstream) -> None:
    client = connect(chat_model=None)
    client.chat("hello")
    upstream.models, upstream.faults = ["other"], ["404"]
    assert client.chat("hello").model == "other"
    upstream.faults = ["404"]  # though its list says otherwise
    with fails(NotFound):
        client.chat("hello")


@pytest.mark.parametrize("fault", ["400", "404", "html"])
def test_a_server_without_a_list_of_models_is_a_backend_error(
    connect: Connect, upstream: Upstream, fault: str
) -> None:
    upstream.faults = [fault]
    with fails(BackendError, backend="the OpenAI-compatible server"):
        connect(chat_model=None).chat("hello")
    upstream.models = []
    with fails(BackendError, backend="the OpenAI-compatible server"):
        connect(chat_model=None).chat("hello")


def test_the_first_model_offered_is_asked_where_none_is_named(connect: Connect, upstream: Upstream) -> None:
    reply = connect(chat_model=None).chat("hello")
    assert (reply, reply.model, reply.usage.total_tokens) == (REPLY, "ok", 28)


@pytest.mark.parametrize("usage", ["none", [1], {"prompt_tokens": 10**30, "completion_tokens": 2**63 - 1}])
def test_tokens_that_cannot_be_spoil_no_reply_and_no_count(
    client: LLMBackendClient, upstream: Upstream, usage: Any
) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": REPLY}, "finish_reason": "stop"}
    upstream.replies = [json.dumps({"id": "1", "choices": [choice], "usage": usage}).encode()]
    assert client.chat("hello") == REPLY
    assert all(row.prompt_tokens < 10**12 for row in client.usage())


def test_what_a_server_sets_as_a_cookie_goes_along_with_nobodys_calls(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.faults, upstream.headers = ["503"], {"Set-Cookie": "session=its-own; Path=/"}
    client.chat("hello")
    client.chat("hello again")
    assert len(upstream.sent) >= 3
    assert not [sent for sent in upstream.sent if "cookie" in sent]
