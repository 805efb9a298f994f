"""Prompts beyond the context of a model on a server: both numbers are told, whatever the server says."""

from __future__ import annotations

import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import CONTEXT, Upstream


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_beyond_the_context_tells_both_numbers(
    client: LLMBackendClient, upstream: Upstream, stream: bool
) -> None:
    with fails(
        InvalidRequest, tokens=5000, context=CONTEXT, backend="the OpenAI-compatible server"
    ) as caught:
        client.chat("word " * 5000, stream=stream)
    assert "5000 tokens" in caught.value.message
    assert f"takes {CONTEXT}" in caught.value.message
    assert len(upstream.seen) == 1


def test_the_system_message_is_counted_too(client: LLMBackendClient) -> None:
    with fails(InvalidRequest, tokens=CONTEXT + 2):
        client.chat("word " * CONTEXT, system="Be brief.")


@pytest.mark.parametrize("model", ["silent", "lost"])
def test_a_server_that_does_not_count_in_time_is_quoted(client: LLMBackendClient, model: str) -> None:
    with fails(InvalidRequest, tokens=CONTEXT + 1, context=CONTEXT) as caught:
        client.chat("word " * 5000, model=model)
    assert f"at least {CONTEXT + 1} tokens" in caught.value.message


def test_a_reply_that_cannot_fit_is_told_apart(client: LLMBackendClient) -> None:
    with fails(InvalidRequest, tokens=2, context=CONTEXT, max_tokens=4000) as caught:
        client.chat("Hello there", max_tokens=4000)
    assert "max_tokens=4000" in caught.value.message


def test_another_refusal_is_passed_on_as_it_is(client: LLMBackendClient) -> None:
    with fails(InvalidRequest, context=None) as caught:
        client.chat("hello", model="400")
    assert "400 for you" in caught.value.message


def test_an_answer_keeps_to_the_context_that_the_server_tells(connect: Connect, upstream: Upstream) -> None:
    client = connect()
    client.rag_ingest([f"Harbour {number}. " + "The quay is long. " * 60 for number in range(20)], "town")
    client.rag_query("How long is the quay of harbour 7?", "town", top_k=20)
    [request] = upstream.seen
    words = sum(len(message["content"].split()) for message in request["messages"])
    assert CONTEXT / 10 < words < CONTEXT * 3 / 8
    roomy = connect(chat_context=8000)
    roomy.rag_ingest([f"Harbour {number}. " + "The quay is long. " * 60 for number in range(3)], "town")
    upstream.reset()
    roomy.rag_query("How long is the quay of harbour 7?", "town", top_k=3)
    assert sum(len(message["content"].split()) for message in upstream.seen[0]["messages"]) > words
