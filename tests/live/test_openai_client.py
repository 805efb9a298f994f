"""OpenAI's own client on our server, with a real model server behind it."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.server import KEY

pytestmark = pytest.mark.live


@pytest.fixture
def official(server_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def name(official: openai.OpenAI) -> str:
    """The first model listed: a chat model."""
    return next(iter(official.models.list())).id


def test_models_are_listed(official: openai.OpenAI) -> None:
    listed = list(official.models.list())
    assert len({one.id for one in listed}) == len(listed) > 1  # its chat model, and our embedding model
    assert all(one.object == "model" for one in listed)


def test_a_model_is_retrieved(official: openai.OpenAI, name: str) -> None:
    assert official.models.retrieve(name).id == name
    with pytest.raises(openai.NotFoundError, match="rag/no-such-collection"):
        official.models.retrieve("rag/no-such-collection")


def test_a_message_gets_a_completion(official: openai.OpenAI, name: str) -> None:
    completion = official.chat.completions.create(
        model=name, messages=[{"role": "user", "content": "Say hello."}], temperature=0, max_tokens=8
    )
    assert (completion.object, completion.model) == ("chat.completion", name)
    [choice] = completion.choices
    assert choice.message.role == "assistant"
    assert choice.message.content
    assert choice.finish_reason in ("stop", "length")
    assert completion.usage is not None
    assert 0 < completion.usage.completion_tokens <= 8
    assert completion.usage.total_tokens > completion.usage.completion_tokens


def test_a_stream_ends_with_its_usage(official: openai.OpenAI, name: str) -> None:
    stream = official.chat.completions.create(
        model=name,
        messages=[{"role": "user", "content": "Say hello."}],
        temperature=0,
        max_tokens=16,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", name)}
    pieces = [choice.delta.content for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert len(pieces) > 1
    reasons = [choice.finish_reason for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert reasons in (["stop"], ["length"])
    [usage] = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert chunks[-1].usage is usage
    assert 0 < usage.completion_tokens <= 16
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_an_unknown_model_is_openais_error(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        official.chat.completions.create(
            model="no-such-model", messages=[{"role": "user", "content": "Say hello."}], max_tokens=4
        )
