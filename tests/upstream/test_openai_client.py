"""OpenAI's own client on our server, with a model server behind it that misbehaves: its errors, and its own retries."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from llmbackend import LLMBackendClient
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import ATTEMPTS, _options
from tests.upstream.fake import KEY, Upstream

ASKED: Any = {"messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(scope="module")
def official(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[openai.OpenAI]:
    """As people set it up, with its two retries."""
    folder: Path = tmp_path_factory.mktemp("server")
    with (
        serving(folder, api_key=SERVER_KEY, **_options(_upstream)) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key=SERVER_KEY) as client,
    ):
        yield client


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("model", "kind", "code", "requests"),
    [
        ("400", openai.UnprocessableEntityError, "invalid_request", 1),
        ("401", openai.InternalServerError, "backend", 1),
        ("404", openai.NotFoundError, "not_found", 1),
        ("409", openai.InternalServerError, "backend", 1),
        ("500", openai.InternalServerError, "backend", ATTEMPTS),
        ("hang", openai.InternalServerError, "backend_timeout", 1),
    ],
)
def test_a_failure_is_openais_error_and_not_repeated(
    official: openai.OpenAI,
    upstream: Upstream,
    model: str,
    kind: type[openai.APIStatusError],
    code: str,
    requests: int,
    stream: bool,
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        official.chat.completions.create(model=model, stream=stream, **ASKED)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.request_id) == (code, error.response.headers["x-request-id"])
    assert error.type == ("invalid_request_error" if error.status_code < 500 else "server_error")
    assert "the OpenAI-compatible server" in error.message
    assert KEY not in str(error)
    assert len(upstream.seen) == requests


def test_a_busy_model_is_asked_again_when_it_says(official: openai.OpenAI, upstream: Upstream) -> None:
    upstream.faults += ["429"]
    assert official.chat.completions.create(model="ok", **ASKED).choices[0].message.content
    assert len(upstream.seen) == 2


def test_a_model_that_stays_busy_is_a_rate_limit(official: openai.OpenAI, upstream: Upstream) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        official.with_options(max_retries=0).chat.completions.create(model="429", **ASKED)
    assert (caught.value.code, caught.value.type) == ("overloaded", "rate_limit_error")
    assert caught.value.response.headers["retry-after"] == "2"


@pytest.mark.parametrize(
    ("model", "code"),
    [("truncated", "stream_interrupted"), ("broken", "backend"), ("stalling", "backend_timeout")],
)
def test_a_stream_that_breaks_off_is_an_error_after_its_text(
    official: openai.OpenAI, upstream: Upstream, model: str, code: str
) -> None:
    stream = official.chat.completions.create(model=model, stream=True, **ASKED)
    text = ""
    with pytest.raises(openai.APIError) as caught:  # noqa: PT012
        for chunk in stream:
            text += chunk.choices[0].delta.content or ""
    assert text == "The harbour "
    assert type(caught.value) is openai.APIError
    assert (caught.value.code, caught.value.type) == (code, "server_error")
    assert caught.value.message
    assert len(upstream.seen) == 1


def test_an_agent_s_tool_waits_for_the_word_of_openais_client(
    official: openai.OpenAI, upstream: Upstream
) -> None:
    with LLMBackendClient(str(official.base_url).removesuffix("/v1/"), SERVER_KEY) as client:
        client.rag_ingest([{"id": "tides", "text": "High tide is at nine."}], collection="waiting")
    call = {"name": "delete_collection", "arguments": '{"collection": "waiting"}'}
    upstream.replies += [
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_0", "type": "function", "function": call}],
        },
        "It is left as it is.",
    ]
    asked: dict[str, Any] = {
        "model": "agent/researcher",
        "tools": [{"type": "mcp", "server_label": "llmbackend", "allowed_tools": ["delete_collection"]}],
    }
    first = official.responses.create(input="Delete it.", **asked)
    [request] = [item for item in first.output if item.type == "mcp_approval_request"]
    assert (request.name, request.server_label) == ("delete_collection", "llmbackend")
    second = official.responses.create(
        input=[{"type": "mcp_approval_response", "approval_request_id": request.id, "approve": False}],
        previous_response_id=first.id,
        **asked,
    )
    assert second.output_text == "It is left as it is."
