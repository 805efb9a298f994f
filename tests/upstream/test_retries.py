"""Trying again: what is worth it, how often, and until when."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from llmbackend import BackendError, LLMBackendClient, backoff
from tests.upstream.conftest import TIMEOUT, Connect, fails
from tests.upstream.fake import REPLY, Upstream


def test_a_server_that_recovers_is_asked_again(
    client: LLMBackendClient, connect: Connect, upstream: Upstream
) -> None:
    upstream.faults = ["503", "500"]
    assert connect(upstream_timeout=20).chat("hello") == REPLY
    assert len(upstream.seen) == 3
    upstream.reset()
    upstream.faults = ["503"]
    assert "".join(client.chat("hello", stream=True)) == REPLY
    assert len(upstream.seen) == 2


def test_a_busy_server_is_asked_again_when_it_says(connect: Connect, upstream: Upstream) -> None:
    client = connect(chat_model="ok", upstream_timeout=20)
    upstream.faults = ["429"]
    began = time.monotonic()
    assert client.chat("hello") == REPLY
    assert time.monotonic() - began >= 2  # its Retry-After
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("dated", [False, True])
@pytest.mark.parametrize("status", ["429", "503"])
def test_a_server_may_say_when_by_seconds_or_by_a_date(
    connect: Connect, upstream: Upstream, status: str, dated: bool
) -> None:
    client = connect(upstream_timeout=20)
    until = datetime.now(UTC) + timedelta(seconds=3)  # a date is of whole seconds
    upstream.headers = {"Retry-After": format_datetime(until, usegmt=True) if dated else "2"}
    upstream.faults = [status]
    began = time.monotonic()
    assert client.chat("hello") == REPLY
    assert time.monotonic() - began >= 1.5
    assert len(upstream.seen) == 2


@pytest.mark.parametrize("said", ["9" * 400, "nan", "-1", "soon", "\xb2"])
def test_a_retry_after_that_says_nothing_is_passed_over(
    patient: LLMBackendClient, upstream: Upstream, said: str
) -> None:
    upstream.faults, upstream.headers = ["429"] * 2, {"Retry-After": said}
    assert patient.chat("hello") == REPLY
    assert len(upstream.seen) == 3


def test_tries_end_with_the_deadline(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backoff, "FIRST_PAUSE", TIMEOUT)
    client = connect(chat_model="ok")
    upstream.faults = ["503", "503", "503"]
    with fails(BackendError, backend="the OpenAI-compatible server"):
        client.chat("hello")
    assert len(upstream.seen) == 1  # the pause before the second would outlast the deadline
