"""Several chat servers: asked in their order, each left alone for a while once it failed."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from llmbackend import (
    BackendError,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    StreamInterrupted,
)
from tests.upstream.conftest import ATTEMPTS, KEY, Connect, fails
from tests.upstream.fake import REPLY, Upstream, closed_port, running


@pytest.fixture(scope="module")
def _second() -> Iterator[Upstream]:
    with running() as second:
        yield second


@pytest.fixture
def second(_second: Upstream) -> Upstream:
    """The server that comes after `upstream`."""
    _second.reset()
    return _second


@pytest.fixture
def both(connect: Connect, upstream: Upstream, second: Upstream) -> LLMBackendClient:
    return connect(
        vllm_url=upstream.url,
        vllm_api_key=KEY,
        litellm_url=second.url,
        litellm_api_key=KEY,
        openai_base_url=None,
        upstream_timeout=4,  # of which a quarter has to do for the lists of models
    )


def _asked(*servers: Upstream) -> list[int]:
    return [len(server.seen) for server in servers]


def test_the_first_is_asked_as_long_as_it_answers(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    for _ in range(3):
        assert both.chat("hello") == REPLY
    assert _asked(upstream, second) == [3, 0]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", ["500", "503", "429", "401", "hang"])
def test_where_it_fails_the_next_answers_and_it_is_left_alone(
    both: LLMBackendClient, upstream: Upstream, second: Upstream, fault: str, stream: bool
) -> None:
    both.chat("hello")  # the lists of models have been read
    upstream.faults = [fault]
    assert "".join(both.chat("hello", stream=stream)) == REPLY
    assert _asked(upstream, second) == [2, 1]
    assert both.chat("hello") == REPLY
    assert _asked(upstream, second) == [2, 2]


def test_an_answer_that_does_not_fit_is_a_failure_too(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    both.chat("hello")
    upstream.faults = ["html"]
    assert both.chat("hello") == REPLY
    assert _asked(upstream, second) == [2, 1]


@pytest.mark.parametrize("fault", ["late", "no-stream", "doomed", "html", "other-json"])
def test_a_stream_that_does_not_begin_is_a_failure_too(
    both: LLMBackendClient, upstream: Upstream, second: Upstream, fault: str
) -> None:
    both.chat("hello")
    upstream.faults = [fault]
    assert "".join(both.chat("hello", stream=True)) == REPLY
    assert _asked(upstream, second) == [2, 1]


def test_one_that_hangs_does_not_keep_the_others_from_answering(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    second.faults = ["hang"]  # when it is asked for its models
    assert both.chat("hello") == REPLY
    assert _asked(upstream, second) == [1, 0]


@pytest.mark.parametrize("fault", [None, "400", "404", "html"])
def test_one_that_lists_no_models_is_passed_over(
    connect: Connect, upstream: Upstream, second: Upstream, fault: str | None
) -> None:
    client = connect(vllm_url=upstream.url, openai_base_url=second.url, chat_model=None)
    upstream.models, upstream.faults = [], [fault] if fault else []
    assert client.chat("hello") == REPLY
    assert _asked(upstream, second) == [0, 1]


def test_it_is_asked_again_after_its_cool_down(
    connect: Connect, upstream: Upstream, second: Upstream
) -> None:
    client = connect(vllm_url=upstream.url, openai_base_url=second.url, chat_cool_down=0.3)
    client.chat("hello")
    upstream.faults = ["500"]
    client.chat("hello")
    time.sleep(0.4)
    client.chat("hello")
    assert _asked(upstream, second) == [3, 1]


def test_one_that_is_not_there_is_passed_over(connect: Connect, second: Upstream) -> None:
    client = connect(vllm_url=closed_port(), openai_base_url=second.url)
    assert client.chat("hello") == REPLY
    assert [one.id for one in client.models() if one.type == "chat"] == ["ok"]


def test_several_urls_of_one_kind_are_several_servers(
    connect: Connect, upstream: Upstream, second: Upstream
) -> None:
    client = connect(openai_base_url=f"{upstream.url}, {second.url}/v1/")
    client.chat("hello")
    upstream.faults = ["500"]
    assert client.chat("hello") == REPLY
    assert _asked(upstream, second) == [2, 1]


@pytest.mark.parametrize("fault", ["400", "422"])
def test_a_request_that_is_wrong_is_not_sent_to_the_next(
    both: LLMBackendClient, upstream: Upstream, second: Upstream, fault: str
) -> None:
    both.chat("hello")
    upstream.faults = [fault]
    with fails(InvalidRequest, backend="vLLM"):
        both.chat("hello")
    assert _asked(upstream, second) == [2, 0]


def test_where_all_fail_the_last_error_is_raised_after_few_requests(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    both.chat("hello")
    upstream.faults, second.faults = ["500"] * 9, ["500"] * 9
    with fails(BackendError, backend="LiteLLM"):
        both.chat("hello")
    assert _asked(upstream, second) == [2, ATTEMPTS]
    upstream.reset(), second.reset()  # both are resting: they are asked all the same
    assert both.chat("hello") == REPLY


def test_after_the_first_piece_nobody_else_is_asked(
    connect: Connect, upstream: Upstream, second: Upstream
) -> None:
    upstream.models = second.models = ["broken"]
    client = connect(vllm_url=upstream.url, openai_base_url=second.url, chat_model="broken")
    with fails(StreamInterrupted) as caught:
        list(client.chat("hello", stream=True))
    assert isinstance(caught.value, StreamInterrupted)
    assert caught.value.text == "The harbour "
    assert _asked(upstream, second) == [1, 0]


def test_a_model_is_asked_for_where_it_is_offered(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    second.models = ["ok", "large"]
    assert both.chat("hello", model="large").model == "large"
    assert _asked(upstream, second) == [0, 1]
    assert [one.id for one in both.models() if one.type == "chat"] == ["ok", "large"]


def test_a_model_that_none_offers_is_not_found(
    both: LLMBackendClient, upstream: Upstream, second: Upstream
) -> None:
    with pytest.raises(NotFound, match="no-such-model"):
        both.chat("hello", model="no-such-model")
    assert _asked(upstream, second) == [0, 0]


def test_each_is_asked_for_its_own_first_model_where_none_is_named(
    connect: Connect, upstream: Upstream, second: Upstream
) -> None:
    upstream.models, second.models = ["small"], ["large", "ok"]
    client = connect(vllm_url=upstream.url, openai_base_url=second.url, chat_model=None)
    assert client.chat("hello").model == "small"
    upstream.faults = ["500"]
    assert client.chat("hello").model == "large"


def test_where_no_list_can_be_had_the_error_is_the_servers(connect: Connect) -> None:
    client = connect(vllm_url=closed_port(), openai_base_url=closed_port(), chat_model=None)
    for call in (client.models, lambda: client.chat("hello")):
        with pytest.raises(LLMBackendError) as caught:
            call()
        assert type(caught.value) is BackendError
