"""Chat and models, on both transports."""

from __future__ import annotations

import pytest

from llmbackend import InvalidRequest, LLMBackendClient, NotFound


def test_a_message_gets_a_reply(client: LLMBackendClient) -> None:
    reply = client.chat("What is the capital of France?", temperature=0, max_tokens=30)
    assert "Paris" in reply
    assert reply.model == "SmolLM2-135M-Instruct"
    assert reply.finish_reason == "stop"
    assert reply.usage.completion_tokens > 0


def test_a_stream_ends_with_the_whole_reply(client: LLMBackendClient) -> None:
    stream = client.chat("What is the capital of France?", temperature=0, max_tokens=30, stream=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.reply
    assert "Paris" in stream.reply
    assert stream.reply.usage.completion_tokens == len(pieces) + 1  # the last token is the end


def test_an_unknown_model_is_not_found(client: LLMBackendClient) -> None:
    with pytest.raises(NotFound, match="no-such-model"):
        client.chat("hello", model="no-such-model")
    with pytest.raises(NotFound, match="no-such-model"):
        client.chat("hello", model="no-such-model", stream=True)


def test_a_prompt_beyond_the_context_tells_both_numbers(client: LLMBackendClient) -> None:
    with pytest.raises(InvalidRequest) as caught:
        client.chat("word " * 5000)
    assert caught.value.details["tokens"] > caught.value.details["context"] == 2048


def test_several_choices_come_whole(client: LLMBackendClient) -> None:
    messages = [{"role": "user", "content": "Say hello."}]
    completion = client._call("chat", messages=messages, n=2, max_tokens=8)
    assert [choice["index"] for choice in completion["choices"]] == [0, 1]
    assert all(choice["message"]["content"] for choice in completion["choices"])
