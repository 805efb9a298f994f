"""Trying again: what is worth it, how often, and until when."""

from __future__ import annotations

import time

from llmbackend import (
    BackendError,
    LLMBackendClient,
)
from tests.upstream.conftest import Connect, fails
from tests.upstream.fake import REPLY, Upstream


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
