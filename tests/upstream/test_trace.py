"""What a call cost: told in a header and a log line, without content, on both transports alike."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.backend import Backend
from llmbackend.local import LocalTransport
from llmbackend.server.app import create_app
from llmbackend.settings import Settings
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import Connect
from tests.upstream.fake import HANG, KEY, REPLY, USAGE, WORK, Upstream

LINE = re.compile(
    r"(?P<operation>\w+) (?P<outcome>\w+) id=(?P<id>\w{32}) caller=\S+ client=\S+ path=\S+ model=(?P<model>\S+) prompt_tokens=(?P<prompt>\d+) "
    r"completion_tokens=(?P<completion>\d+) total_ms=(?P<total>[\d.]+) upstream_ms=(?P<upstream>[\d.]+) "
    r"overhead_ms=(?P<overhead>[\d.]+)"
)
QUESTION = "What-nobody-may-read?"


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level("INFO", logger="llmbackend.calls")
    return caplog


def _lines(log: pytest.LogCaptureFixture) -> list[re.Match[str]]:
    found = [
        LINE.fullmatch(record.getMessage()) for record in log.records if record.name == "llmbackend.calls"
    ]
    assert all(found)
    return [line for line in found if line]


def _only_line(log: pytest.LogCaptureFixture) -> re.Match[str]:
    """Once it is there: a stream's reader may be ahead of its end."""
    deadline = time.monotonic() + 10
    while not (lines := _lines(log)) and time.monotonic() < deadline:
        time.sleep(0.01)
    [line] = lines
    return line


def test_a_call_leaves_one_line_without_content(connect: Connect, log: pytest.LogCaptureFixture) -> None:
    client = connect()
    client.chat(QUESTION)
    [line] = _lines(log)
    assert (line["operation"], line["outcome"], line["model"]) == ("chat", "ok", "ok")
    assert (int(line["prompt"]), int(line["completion"])) == (
        USAGE["prompt_tokens"],
        USAGE["completion_tokens"],
    )
    assert float(line["total"]) == pytest.approx(float(line["upstream"]) + float(line["overhead"]), abs=0.2)
    assert QUESTION not in log.text
    assert REPLY not in log.text
    assert KEY not in log.text


def test_a_stream_leaves_its_line_at_its_end(connect: Connect, log: pytest.LogCaptureFixture) -> None:
    list(connect().chat(QUESTION, stream=True))
    line = _only_line(log)
    assert (line["outcome"], line["model"]) == ("ok", "ok")
    assert int(line["completion"]) == USAGE["completion_tokens"]


def test_a_stream_that_is_left_leaves_its_line_then(connect: Connect, log: pytest.LogCaptureFixture) -> None:
    with connect(chat_model="endless").chat(QUESTION, stream=True) as stream:
        next(stream)
        assert _lines(log) == []
    assert _only_line(log)["outcome"] == "left"


def test_a_failed_call_is_logged_under_the_id_that_its_error_has(
    connect: Connect, log: pytest.LogCaptureFixture
) -> None:
    client = connect()
    with pytest.raises(InvalidRequest) as caught:
        client.chat(QUESTION, model="400")
    with pytest.raises(InvalidRequest):
        client.chat(QUESTION, temperature=9)
    first, second = _lines(log)
    assert (first["outcome"], second["outcome"]) == ("invalid_request", "invalid_request")
    assert first["id"] == caught.value.request_id


def test_the_servers_log_does_not_quote_what_a_model_wrote(
    upstream: Upstream, tmp_path: Path, log: pytest.LogCaptureFixture
) -> None:
    asked = {"messages": [{"role": "user", "content": QUESTION}], "schema": {"type": "array"}}
    upstream.replies = ['"The harbour"'] * 2

    async def post() -> str:
        options = Settings(data_dir=tmp_path, openai_base_url=upstream.url, chat_model="ok")
        backend = await Backend.open(options)
        try:
            transport = httpx.ASGITransport(create_app(backend))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return (await client.post("/v1/chat/completions", json=asked)).text
        finally:
            await backend.close()

    assert "The harbour" in asyncio.run(post())
    assert "/v1/chat/completions: backend" in log.text
    assert "The harbour" not in log.text


def test_several_requests_at_once_count_as_the_time_they_took(
    connect: Connect, log: pytest.LogCaptureFixture, upstream: Upstream
) -> None:
    connect(embedding_model="ok").embed([f"text {number}" for number in range(300)])
    [line] = _lines(log)
    assert len(upstream.seen) == 5
    assert WORK * 1000 < float(line["upstream"]) <= float(line["total"])
    assert int(line["prompt"]) > 0


@pytest.fixture(scope="module")
def url(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    settings = {"openai_base_url": _upstream.url, "openai_api_key": KEY, "chat_model": "ok"}
    with serving(tmp_path_factory.mktemp("server"), api_key=SERVER_KEY, **settings) as server:
        yield server.url


@pytest.mark.parametrize("model", ["ok", "400", "stalling"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_reply_tells_our_part_of_the_time(url: str, upstream: Upstream, model: str, stream: bool) -> None:
    reply = requests.post(
        f"{url}/v1/chat/completions",
        json={"model": model, "messages": [{"role": "user", "content": "hello"}], "stream": stream},
        headers={"Authorization": f"Bearer {SERVER_KEY}"},
        timeout=10,
        stream=True,
    )
    overhead = float(reply.headers["X-LLMBackend-Overhead-Ms"])
    assert 0 < overhead < HANG * 1000
    assert len(reply.headers["X-Request-Id"]) == 32
    reply.close()


def test_errors_have_the_request_id_that_the_header_tells(url: str, upstream: Upstream) -> None:
    reply = requests.post(
        f"{url}/v1/chat/completions",
        json={"model": "400", "messages": [{"role": "user", "content": "hello"}]},
        headers={"Authorization": f"Bearer {SERVER_KEY}"},
        timeout=10,
    )
    assert reply.json()["error"]["request_id"] == reply.headers["X-Request-Id"]


def test_embedded_models_count_as_upstream(
    tmp_path: Path, models_dir: Path, log: pytest.LogCaptureFixture
) -> None:
    options = Settings(data_dir=tmp_path, models_dir=models_dir)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.chat("Say hello.", max_tokens=4)
        list(client.chat("Say hello.", max_tokens=4, stream=True))
        client.embed(["a text"])
    for line in _lines(log):
        assert line["outcome"] == "ok"
        assert float(line["upstream"]) > 0
        assert line["model"] != "-"
        assert int(line["prompt"]) > 0


def test_a_streamed_answer_is_noted_with_its_tokens_and_its_models_time(
    connect: Connect, log: pytest.LogCaptureFixture
) -> None:
    client = connect()
    client.rag_ingest("The quay opens at nine.", collection="c")
    log.clear()
    "".join(client.rag_query("When does the quay open?", collection="c", stream=True))
    line = _only_line(log)
    assert (line["operation"], line["outcome"], line["model"]) == ("rag_query", "ok", "ok")
    assert int(line["prompt"]) > 0
    assert int(line["completion"]) > 0
    assert float(line["upstream"]) > 0


def test_a_job_that_begins_at_once_is_not_part_of_the_call_that_submitted_it(
    connect: Connect, log: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmbackend import tracing
    from llmbackend.job_types import chats

    seen: list[str] = []
    reply = chats._reply

    async def noting(*given: object) -> object:
        seen.append(tracing.current().operation)
        return await reply(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(chats, "_reply", noting)
    client = connect()
    client.wait_for_job(client.submit_job("batch_chat", {"prompts": ["Hello"]}), 60)
    assert seen == ["batch_chat"], "it has a trace of its own"
