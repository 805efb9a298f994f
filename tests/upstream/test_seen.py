"""What operators see: metrics, JSON logs, the state of each part, and spans of OpenTelemetry."""

from __future__ import annotations

import json
import logging
import re
import socket
import time
from pathlib import Path
from typing import Any

import pytest
import requests

from llmbackend import LLMBackendClient, LLMBackendError, dependencies, logs, tracing
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving
from tests.upstream.conftest import Connect
from tests.upstream.fake import KEY as UPSTREAM_KEY
from tests.upstream.fake import REPLY, USAGE, Upstream, closed_port

QUESTION = "What-nobody-may-read?"


def _value(text: str, name: str, **labels: str) -> float:
    """Of the line with these labels."""
    for line in text.splitlines():
        told = dict(re.findall(r'(\w+)="([^"]*)"', line))
        if re.match(rf"{name}(\{{| )", line) and labels.items() <= told.items():
            return float(line.rsplit(" ", 1)[1])
    raise AssertionError(f"{name} {labels} is not in\n{text}")


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def test_metrics_tell_calls_tokens_and_state_to_the_administrator_or_on_a_port_of_their_own(
    upstream: Upstream, tmp_path: Path
) -> None:
    options = {"openai_base_url": upstream.url, "openai_api_key": UPSTREAM_KEY, "chat_model": "ok"}
    port = _free_port()
    with serving(
        tmp_path, api_key=KEY, api_keys="hr:another", metrics_port=port, workers=0, **options
    ) as server:
        with LLMBackendClient(server.url, KEY) as client:
            client.chat(QUESTION)
            "".join(client.chat(QUESTION, stream=True))
            with pytest.raises(LLMBackendError):
                client.chat(QUESTION, model="500", temperature=0)
            client.rag_ingest("The quay opens at nine.", "c")
            client.submit_job("batch_chat", {"prompts": ["a"]})
        for headers, status in (({}, 401), ({"X-API-Key": "another"}, 403), ({"X-API-Key": KEY}, 200)):
            reply = requests.get(f"{server.url}/metrics", headers=headers, timeout=20)
            assert reply.status_code == status
        text = reply.text
        assert reply.headers["Content-Type"].startswith("text/plain")
        assert _value(text, "llmbackend_requests_total", operation="chat", outcome="ok") == 2
        assert _value(text, "llmbackend_requests_total", operation="chat", outcome="backend") == 1
        assert _value(text, "llmbackend_request_seconds_count", operation="chat") == 3
        assert 0 < _value(text, "llmbackend_overhead_seconds_sum", operation="chat") < 60
        prompt = _value(text, "llmbackend_tokens_total", model="ok", kind="prompt")
        assert prompt == 2 * USAGE["prompt_tokens"]
        assert _value(text, "llmbackend_upstream_errors_total", code="backend") >= 1
        assert _value(text, "llmbackend_jobs", type="batch_chat", status="queued") == 1
        assert _value(text, "llmbackend_job_age_seconds", type="batch_chat", status="queued") >= 0
        assert _value(text, "llmbackend_open_collections") == 1
        assert _value(text, "llmbackend_disk_free_bytes") > 0
        assert _value(text, "llmbackend_cache_texts_total", cached="no") >= 1
        assert _value(text, "llmbackend_refusals_total", status="403") == 1
        assert _value(text, "llmbackend_part_ok", part="database") == 1
        assert requests.get(f"http://127.0.0.1:{port}/metrics", timeout=20).status_code == 200
        assert requests.get(f"http://127.0.0.1:{port}/v1/models", timeout=20).status_code == 404
        for secret in (QUESTION, REPLY, KEY, UPSTREAM_KEY, "another"):
            assert secret not in text


def test_the_parts_of_health_tell_a_chat_server_that_failed(connect: Connect) -> None:
    client = connect()
    client.chat("hello")
    assert client.health().parts["the OpenAI-compatible server"] == "ok"
    with pytest.raises(LLMBackendError):
        client.chat("hello", model="500")
    health = client.health()
    assert (health.status, health.parts["the OpenAI-compatible server"]) == (
        "ok",
        "failed recently, and is asked last",
    )


def test_the_parts_of_health_tell_each_server_that_is_set_up_and_wait_for_none(
    upstream: Upstream, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs is told once its time is over, and keeps neither the others nor the caller waiting."""
    monkeypatch.setattr(dependencies, "AGE_SECONDS", 0.0)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        client = connect(
            rerank_url=f"{upstream.url}/v1",
            qdrant_url=f"http://127.0.0.1:{hanging.getsockname()[1]}, {closed_port()}",
        )
        for _ in range(2):  # the second finds the first's question to the one that hangs under way
            health = client.health()
            assert health.status == "ok"
            assert "Qdrant" not in health.parts
            assert health.parts["Qdrant 2"] == "cannot be reached (ClientConnectorError)"
            assert health.parts["rerank"] == "ok"
        deadline = time.monotonic() + 30
        while "Qdrant" not in (parts := client.health().parts):
            assert time.monotonic() < deadline
        assert parts["Qdrant"] == "no answer within 2 s"


def test_a_log_as_json_has_a_call_s_numbers_by_name(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing, "AS_JSON", True)
    handler = logging.StreamHandler()
    handler.setFormatter(logs._JSON())
    calls = logging.getLogger("llmbackend.calls")
    monkeypatch.setattr(calls, "level", logging.INFO)
    calls._cache.clear()  # type: ignore[attr-defined]
    calls.addHandler(handler)
    try:
        connect().chat(QUESTION)
    finally:
        calls.removeHandler(handler)
        calls._cache.clear()  # type: ignore[attr-defined]
    line = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert (
        line.items()
        >= {"operation": "chat", "outcome": "ok", "model": "ok", "level": "info", **_tokens()}.items()
    )
    assert line["total_ms"] >= line["overhead_ms"] >= 0
    assert len(line["request_id"]) == 32
    assert QUESTION not in json.dumps(line)


def _tokens() -> dict[str, int]:
    return {name: USAGE[name] for name in ("prompt_tokens", "completion_tokens")}


def test_a_server_writes_json_lines_if_told_to(tmp_path: Path) -> None:
    with serving(tmp_path, log_format="json") as server:
        requests.get(f"{server.url}/nowhere\n{{", timeout=20)
        requests.get(f"{server.url}/v1/models", timeout=20)
        lines: list[dict[str, Any]] = []
        deadline = time.monotonic() + 20
        while not any(line.get("operation") == "models" for line in lines) and time.monotonic() < deadline:
            said = server.process.said.get(timeout=20)
            lines.append(json.loads(said))
    assert any(line["logger"] == "llmbackend.requests" for line in lines)
    assert lines[-1]["operation"] == "models"


def test_calls_are_spans_of_opentelemetry_without_content(
    upstream: Upstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from opentelemetry import trace as api
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    monkeypatch.setattr(api, "get_tracer", lambda name, version: provider.get_tracer(name, version))
    options = Settings(data_dir=tmp_path, openai_base_url=upstream.url, chat_model="ok", otel=True)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.chat(QUESTION)
        with pytest.raises(LLMBackendError):
            client.chat(QUESTION, model="400")
        client.run_agent(QUESTION)
    spans = {span.name: span for span in kept.get_finished_spans()}
    span = spans["chat ok"]
    assert span.attributes is not None
    assert span.attributes["gen_ai.operation.name"] == "chat"
    assert span.attributes["gen_ai.response.model"] == "ok"
    assert span.attributes["gen_ai.usage.input_tokens"] == USAGE["prompt_tokens"]
    assert span.attributes["gen_ai.usage.output_tokens"] == USAGE["completion_tokens"]
    assert span.end_time is not None
    assert span.start_time is not None
    assert span.end_time > span.start_time
    run, agent, model = (spans[name] for name in ("run_agent ok", "invoke_agent researcher", "chat model"))
    assert agent.parent is not None
    assert run.context is not None
    assert agent.parent.span_id == run.context.span_id
    assert model.parent is not None
    assert agent.context is not None
    assert model.parent.span_id == agent.context.span_id
    failed = spans["chat"]
    assert failed.status.status_code == api.StatusCode.ERROR
    for one in kept.get_finished_spans():
        assert QUESTION not in one.to_json()
        assert REPLY not in one.to_json()
