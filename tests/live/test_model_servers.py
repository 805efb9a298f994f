"""Chat, answers and analyses by a real vLLM and a real LiteLLM, on both transports."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
import requests
from pydantic import BaseModel

from llm_client import Record
from llmbackend import (
    Answer,
    BackendError,
    InvalidRequest,
    LLMBackendClient,
    LLMBackendError,
    NotFound,
    Reply,
)
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.live.conftest import LITELLM_URL, VLLM_URL, ModelServer, needs
from tests.server import KEY, serving

pytestmark = pytest.mark.live

HELLO = "Say hello."


@contextmanager
def fails(*kinds: type[LLMBackendError]) -> Iterator[pytest.ExceptionInfo[LLMBackendError]]:
    """One of these very classes."""
    with pytest.raises(LLMBackendError) as caught:
        yield caught
    assert type(caught.value) in kinds, repr(caught.value)


def _outcome(call: Callable[[], Any]) -> Any:
    """What comes back, or the error."""
    try:
        return call()
    except LLMBackendError as error:
        return error


def _check_usage(usage: Record, most: int) -> None:
    assert usage.prompt_tokens > 0
    assert 0 < usage.completion_tokens <= most
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


# Chat


def test_its_models_are_listed(client: LLMBackendClient, upstream: ModelServer) -> None:
    listed = {one.id for one in client.models() if one.type == "chat"}
    key = upstream.settings.get("litellm_api_key")
    offered = requests.get(
        f"{upstream.url.removesuffix('/v1')}/v1/models",
        headers={"Authorization": f"Bearer {key}"} if key else None,
        timeout=10,
    )
    assert listed == {one["id"] for one in offered.json()["data"]}
    assert listed


def test_the_doctor_finds_it_well(client: LLMBackendClient, upstream: ModelServer, model: str) -> None:
    diagnosis = client.doctor()
    assert diagnosis.ok, diagnosis
    [chat] = [check for check in diagnosis.checks if check.name == "chat"]
    assert chat.server == upstream.name
    assert model in chat.models
    if upstream.name == "vLLM":
        assert chat.version
        assert chat.limits.context >= 512


def test_a_model_is_found_by_its_name(client: LLMBackendClient, model: str) -> None:
    assert client.get_model(model).type == "chat"


def test_a_message_gets_a_reply(client: LLMBackendClient, model: str) -> None:
    reply = client.chat(HELLO, temperature=0, max_tokens=8)
    assert isinstance(reply, Reply)
    assert reply.strip()
    assert reply.model == model
    assert reply.finish_reason in ("stop", "length")
    _check_usage(reply.usage, 8)


def test_a_model_can_be_named(client: LLMBackendClient, model: str) -> None:
    assert client.chat(HELLO, model=model, max_tokens=4).model == model


def test_the_limit_on_tokens_is_kept(client: LLMBackendClient) -> None:
    reply = client.chat("Count from one to a thousand.", temperature=0, max_tokens=4)
    assert (reply.usage.completion_tokens, reply.finish_reason) == (4, "length")


def test_the_system_message_is_read(client: LLMBackendClient) -> None:
    brief = client.chat(HELLO, system="Be kind.", max_tokens=4)
    verbose = client.chat(HELLO, system="Be kind. " * 20, max_tokens=4)
    assert verbose.usage.prompt_tokens >= brief.usage.prompt_tokens + 19 * 3


def test_every_message_of_a_conversation_is_read(client: LLMBackendClient) -> None:
    turns = [
        {"role": "user", "content": "My name is Ada."},
        {"role": "assistant", "content": "Good morning, Ada."},
        {"role": "user", "content": "What is my name?"},
    ]
    whole = client.chat(turns, temperature=0, max_tokens=8)
    last = client.chat(turns[-1:], temperature=0, max_tokens=8)
    assert whole.strip()
    assert whole.usage.prompt_tokens >= last.usage.prompt_tokens + 10


def test_a_stream_ends_with_the_whole_reply(client: LLMBackendClient, model: str) -> None:
    stream = client.chat(HELLO, temperature=0, max_tokens=16, stream=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.reply
    assert stream.reply.strip()
    assert stream.reply.model == model
    assert stream.reply.finish_reason in ("stop", "length")
    _check_usage(stream.reply.usage, 16)


# One property: tiny models lose themselves in the white space that vLLM allows between several.
SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"enum": ["positive", "negative"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}
LATE = "Judge: 'The ferry was late again.'"


def test_a_schema_in_openais_field_is_passed_on(client: LLMBackendClient) -> None:
    completion = client._call(
        "chat",
        messages=[{"role": "user", "content": LATE}],
        temperature=0,
        max_tokens=60,
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "judgement", "schema": SCHEMA, "strict": True},
        },
    )
    judged = json.loads(completion.choices[0].message.content)
    assert judged in ({"sentiment": "positive"}, {"sentiment": "negative"})


class Judgement(BaseModel):
    sentiment: Literal["positive", "negative"]


def test_a_schema_gives_data_that_fits(client: LLMBackendClient, model: str) -> None:
    reply = client.chat(LATE, schema=SCHEMA, temperature=0, max_tokens=60)
    assert reply.parsed in ({"sentiment": "positive"}, {"sentiment": "negative"})
    assert json.loads(reply) == reply.parsed
    assert reply.model == model
    _check_usage(reply.usage, 60)


def test_a_schema_of_pydantic_gives_an_instance(client: LLMBackendClient) -> None:
    reply = client.chat(LATE, schema=Judgement, temperature=0, max_tokens=60)
    assert isinstance(reply.parsed, Judgement)


def test_a_schema_gives_a_number(client: LLMBackendClient) -> None:
    schema = {"type": "integer", "minimum": 1, "maximum": 5}
    reply = client.chat("From 1 to 5, how late is late?", schema=schema, temperature=0, max_tokens=10)
    assert reply.parsed in range(1, 6)


def test_a_schema_that_the_server_refuses_is_asked_for_in_words(client: LLMBackendClient) -> None:
    """vLLM knows no uniqueItems. A tiny model may fail at it, but in this one way only."""
    schema = {"type": "array", "items": {"enum": [1, 2, 3]}, "minItems": 1, "uniqueItems": True}
    outcome = _outcome(
        lambda: client.chat("Some numbers.", schema=schema, temperature=0, max_tokens=30).parsed
    )
    if isinstance(outcome, LLMBackendError):
        assert type(outcome) is BackendError, repr(outcome)
        assert "did not answer in the shape asked for" in outcome.message
        assert outcome.details["problem"]
    else:
        assert set(outcome) <= {1, 2, 3}


def test_what_is_no_schema_is_refused(client: LLMBackendClient) -> None:
    with fails(InvalidRequest) as caught:
        client.chat(LATE, schema={"type": "strnig"}, max_tokens=10)
    assert "schema.type" in caught.value.message


def test_tools_are_passed_on(client: LLMBackendClient) -> None:
    """A server set up for tools calls the one it is told to; another's refusal shows that it was asked to."""
    tool = {
        "name": "tide_table",
        "description": "When the tide is high",
        "parameters": {
            "type": "object",
            "properties": {"harbour": {"enum": ["Aldersea", "Brill"]}},
            "required": ["harbour"],
        },
    }
    outcome = _outcome(
        lambda: client.chat(
            "When is high tide in Aldersea?",
            temperature=0,
            max_tokens=200,
            tools=[{"type": "function", "function": tool}],
            tool_choice={"type": "function", "function": {"name": "tide_table"}},
        )
    )
    if isinstance(outcome, LLMBackendError):
        assert type(outcome) is InvalidRequest, repr(outcome)
        assert "tool" in outcome.message
    else:
        [call] = outcome.tool_calls
        assert call.name == "tide_table"
        assert call.arguments.harbour in ("Aldersea", "Brill")


# Leaving a stream


def _running() -> float:
    """How many requests vLLM works on."""
    metrics = requests.get(f"{VLLM_URL.removesuffix('/v1')}/metrics", timeout=10).text
    return sum(map(float, re.findall(r"^vllm:num_requests_running\S* (\S+)", metrics, re.MULTILINE)))


def test_leaving_a_stream_stops_the_model(client: LLMBackendClient, upstream: ModelServer) -> None:
    if not VLLM_URL:
        pytest.skip("set LIVE_VLLM_URL to run this: only vLLM tells whether it still works")
    with client.chat("Write a very long story about the sea.", max_tokens=800, stream=True) as stream:
        next(stream)
        if not _running() and upstream.name != "vLLM":
            pytest.skip("LIVE_LITELLM_URL does not lead to LIVE_VLLM_URL: what it does cannot be seen")
        assert _running()
    deadline = time.monotonic() + 2
    while _running():
        assert time.monotonic() < deadline, "still at work 2 s after the stream was closed"
        time.sleep(0.05)


# Refusals


def test_an_unknown_model_is_a_typed_error(client: LLMBackendClient, upstream: ModelServer) -> None:
    for stream in (False, True):
        with fails(NotFound) as caught:
            client.chat(HELLO, model="no-such-model", max_tokens=4, stream=stream)
        assert "no-such-model" in caught.value.message
        assert caught.value.details["backend"] == upstream.name


def test_a_prompt_beyond_the_context_tells_both_numbers(
    client: LLMBackendClient, upstream: ModelServer
) -> None:
    for stream in (False, True):
        with fails(InvalidRequest) as caught:
            client.chat("word " * 3000, max_tokens=4, stream=stream)
        about = caught.value.details
        assert about["backend"] == upstream.name
        assert about["tokens"] > about["context"] >= 512
        assert f"takes {about['context']}" in caught.value.message
        if upstream.name == "vLLM":
            assert about["tokens"] >= 3000  # it counts


def test_a_reply_beyond_the_context_is_told_apart(client: LLMBackendClient, upstream: ModelServer) -> None:
    with fails(InvalidRequest) as caught:
        client.chat(HELLO, max_tokens=10_000_000)
    assert caught.value.details["backend"] == upstream.name
    assert "max_tokens=10000000" in caught.value.message


WRONG_KEY = "sk-a-key-that-fits-no-lock"


@pytest.fixture(params=[pytest.param(name, marks=needs("LIVE_LITELLM_URL")) for name in ("local", "http")])
def stranger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LLMBackendClient]:
    """A client whose LiteLLM key is a wrong one."""
    settings: dict[str, Any] = {"litellm_url": LITELLM_URL, "litellm_api_key": WRONG_KEY}
    if request.param == "local":
        options = Settings(data_dir=tmp_path, **settings)
        with LLMBackendClient(transport=LocalTransport(options)) as client:
            yield client
    else:
        with (
            serving(tmp_path, api_key=KEY, **settings) as server,
            LLMBackendClient(server.url, KEY) as client,
        ):
            yield client


CALLS: list[Callable[[LLMBackendClient], object]] = [
    lambda client: client.models(),
    lambda client: client.chat(HELLO, max_tokens=4),
    lambda client: client.chat(HELLO, model="any", max_tokens=4),
    lambda client: client.chat(HELLO, model="any", max_tokens=4, stream=True),
]


def test_a_wrong_key_is_never_shown(stranger: LLMBackendClient) -> None:
    for call in CALLS:
        with pytest.raises(LLMBackendError) as caught:
            call(stranger)
        assert WRONG_KEY not in f"{caught.value!r} {caught.value} {json.dumps(caught.value.to_dict())}"


def test_a_wrong_key_is_our_fault_and_not_the_callers(stranger: LLMBackendClient) -> None:
    for call in CALLS:
        with fails(BackendError):
            call(stranger)


# Answers from documents

DOCUMENTS = [
    {"id": "harbour", "text": "The harbour of Aldersea was dredged in 1911 to let larger ships in."},
    {"id": "market", "text": "The fish market opens at five in the morning, except on Sundays."},
]
QUESTION = "When was the harbour dredged?"
REPLY_TOKENS = 256


def _check_answer(answer: Answer, model: str) -> None:
    assert isinstance(answer, Answer)
    assert answer.strip()
    assert answer.found
    assert answer.model == model
    assert [(source.number, source.document_id) for source in answer.sources] == [
        (1, "harbour"),
        (2, "market"),
    ]
    assert answer.sources[0].quote == DOCUMENTS[0]["text"]
    _check_usage(answer.usage, REPLY_TOKENS)
    assert answer.usage.prompt_tokens > 60  # instructions, both passages and the question


def test_an_answer_is_the_models(client: LLMBackendClient, model: str, collection: str) -> None:
    assert client.rag_ingest(DOCUMENTS, collection).added == 2
    _check_answer(client.rag_query(QUESTION, collection), model)


def test_a_streamed_answer_is_the_models(client: LLMBackendClient, model: str, collection: str) -> None:
    client.rag_ingest(DOCUMENTS, collection)
    stream = client.rag_query(QUESTION, collection, stream=True)
    assert [source.document_id for source in stream.sources] == ["harbour", "market"]
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces).strip() == stream.answer
    _check_answer(stream.answer, model)


# Analysis


def test_an_analysis_is_whole_or_its_shape_is_the_error(client: LLMBackendClient, model: str) -> None:
    """A tiny model may fail at it, but in this one way only."""
    text = "The ferry was late again. Nobody told the passengers why."
    outcome = _outcome(lambda: client.analyze_document(text))
    if isinstance(outcome, LLMBackendError):
        assert type(outcome) is BackendError, repr(outcome)
        assert "did not answer in the shape asked for" in outcome.message
        assert outcome.details["text"]
    else:
        assert set(outcome) == {"sentiment", "sentiment_score", "key_points", "summary", "model"}
        assert outcome.sentiment in ("positive", "negative", "neutral", "mixed")
        assert -1 <= outcome.sentiment_score <= 1
        assert outcome.key_points
        assert all(isinstance(point, str) and point for point in outcome.key_points)
        assert outcome.summary
        assert outcome.model == model
