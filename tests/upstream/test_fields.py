"""What of a chat request reaches the model's server: the fields that the schema names, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import openai.types.chat.completion_create_params as openai_params
import pytest

from llmbackend import InvalidRequest, LLMBackendClient
from llmbackend.schemas import ChatRequest
from tests.upstream.conftest import Connect
from tests.upstream.fake import REPLY, Upstream

ASKED: dict[str, Any] = {"model": "ok", "messages": [{"role": "user", "content": "hello"}]}
ELSEWHERE = "http://elsewhere.example/v1"
TOOL = {
    "type": "function",
    "function": {
        "name": "tide",
        "description": "When the tide is high",
        "parameters": {"type": "object", "properties": {"at": {"enum": ["Brill", None]}}, "default": None},
        "strict": True,
    },
}

PASSED: dict[str, Any] = {
    "temperature": 0.5,
    "top_p": 0.9,
    "max_tokens": 5,
    "max_completion_tokens": 5,
    "n": 2,
    "stop": ["a", "b"],
    "seed": 7,
    "frequency_penalty": -1,
    "presence_penalty": 1.5,
    "logit_bias": {"50256": -100},
    "logprobs": True,
    "top_logprobs": 3,
    "tools": [TOOL, {"type": "custom", "custom": {"name": "code", "format": {"type": "text"}}}],
    "tool_choice": {"type": "function", "function": {"name": "tide"}},
    "parallel_tool_calls": False,
    "response_format": {
        "type": "json_schema",
        "json_schema": {
            "name": "it",
            "schema": {"type": ["string", "null"], "default": None},
            "strict": True,
        },
    },
    "reasoning_effort": "low",
    "verbosity": "high",
    "prediction": {"type": "content", "content": [{"type": "text", "text": "hello"}]},
    "modalities": ["text"],
    "user": "u",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
    "stream_options": {"include_usage": True},
    "top_k": 20,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "chat_template_kwargs": {"enable_thinking": False},
    "structured_outputs": {"choice": ["yes", "no"]},
}

LEFT_OUT: dict[str, Any] = {
    "metadata": {"langfuse_host": ELSEWHERE, "tags": ["x"]},
    "store": True,
    "service_tier": "priority",
    "prompt_cache_options": {"mode": "explicit"},
    "prompt_cache_retention": "24h",
}

REFUSED: dict[str, Any] = {
    "functions": [TOOL["function"]],
    "function_call": "auto",
    "audio": {"voice": "alloy", "format": "wav"},
    "web_search_options": {},
    "moderation": {"model": "omni-moderation-latest"},
}

# Fields by which LiteLLM and vLLM can be led astray, and one that nobody knows.
UNKNOWN: dict[str, Any] = {
    "api_base": ELSEWHERE,
    "base_url": ELSEWHERE,
    "api_key": "sk-mine",
    "api_version": "1",
    "extra_body": {"api_base": ELSEWHERE},
    "extra_headers": {"X-Forwarded-Host": "elsewhere.example"},
    "user_config": {"model_list": []},
    "model_list": [{"model_name": "ok", "litellm_params": {"api_base": ELSEWHERE}}],
    "fallbacks": [{"model": "ok", "api_base": ELSEWHERE}],
    "mock_response": "planted",
    "litellm_metadata": {"langfuse_host": ELSEWHERE},
    "langfuse_host": ELSEWHERE,
    "custom_llm_provider": "openai",
    "chat_template": "{{ planted }}",
    "mm_processor_kwargs": {},
    "prompt_embeds": "AAAA",
    "priority": -1,
    "colour": "red",
}


def _called(further: dict[str, Any]) -> dict[str, Any]:
    call = {"id": "1", "type": "function", "function": {"name": "tide", "arguments": "{}"}, **further}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


SMUGGLED: dict[str, dict[str, Any]] = {
    "in a message": {"messages": [{"role": "user", "content": "x", "api_base": ELSEWHERE}]},
    "in a part": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "url": ELSEWHERE}]}]
    },
    "in an image": {
        "messages": [
            {
                "role": "user",
                "content": [{"type": "image_url", "image_url": {"url": "data:,", "headers": {"Host": "x"}}}],
            }
        ]
    },
    "a file of the server": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "file:///etc/passwd"}}]}
        ]
    },
    "tensors": {
        "messages": [{"role": "user", "content": [{"type": "image_embeds", "image_embeds": "AAAA"}]}]
    },
    "a tool elsewhere": {"tools": [{"type": "mcp", "server_label": "x", "server_url": ELSEWHERE}]},
    "a tool without a type": {"tools": [{"urlContext": {}}]},
    "in a tool": {"tools": [{**TOOL, "server_url": ELSEWHERE}]},
    "in a tool's choice": {"tool_choice": {"type": "mcp", "server_label": "x"}},
    "in a response format": {"response_format": {"type": "json_object", "api_base": ELSEWHERE}},
    "in stream options": {"stream_options": {"include_usage": True, "api_base": ELSEWHERE}},
    "a template": {"chat_template_kwargs": {"chat_template": "{{ planted }}"}},
    "in what a server put into its reply": {
        "messages": [
            {
                "role": "assistant",
                "content": "x",
                "provider_specific_fields": {"litellm": [{"api_base": ELSEWHERE}]},
            }
        ]
    },
    "a server in a reply's extra content": {
        "messages": [{"role": "assistant", "content": "x", "extra_content": {"extra-headers": {"Host": "x"}}}]
    },
    "in a tool call": {"messages": [_called({"extra_content": {"google": {"API_KEY": "sk-mine"}}})]},
    "an unknown field in a tool call": {"messages": [_called({"api_base": ELSEWHERE})]},
    "a field of a reply in a user's message": {
        "messages": [
            {"role": "user", "content": "x", "provider_specific_fields": {"thought_signatures": ["x"]}}
        ]
    },
    "too much in a reply": {
        "messages": [{"role": "assistant", "content": "x", "reasoning_details": [{"data": "x" * 2**20}]}]
    },
    "a reply nested too deep": {
        "messages": [{"role": "assistant", "content": "x", "citations": json.loads("[" * 17 + "]" * 17)}]
    },
    "in structured outputs": {"structured_outputs": {"structural_tag": "{}"}},
}


def test_every_field_of_openais_is_decided_upon() -> None:
    theirs = set(openai_params.CompletionCreateParamsBase.__annotations__) | {"stream"}
    assert theirs - set(ChatRequest.model_fields) == set()


def test_every_field_of_ours_is_tested_here() -> None:
    elsewhere = {"stream", "json_schema"}
    listed = {*ASKED, *elsewhere, *PASSED, *LEFT_OUT, *REFUSED}
    assert set(ChatRequest.model_fields) == listed


@pytest.mark.parametrize("field", PASSED)
def test_a_field_is_passed_on_as_it_came(client: LLMBackendClient, upstream: Upstream, field: str) -> None:
    client._call("chat", **ASKED, **{field: PASSED[field]})
    assert upstream.seen == [{**ASKED, field: PASSED[field]}]


@pytest.mark.parametrize("field", LEFT_OUT)
def test_a_field_about_openais_service_is_left_out(
    client: LLMBackendClient, upstream: Upstream, field: str
) -> None:
    client._call("chat", **ASKED, **{field: LEFT_OUT[field]})
    assert upstream.seen == [ASKED]


def test_a_field_that_is_null_is_none(client: LLMBackendClient, upstream: Upstream) -> None:
    client._call("chat", **ASKED, **dict.fromkeys({**PASSED, **LEFT_OUT, **REFUSED}), stream=None)
    assert upstream.seen == [ASKED]


@pytest.mark.parametrize("field", REFUSED)
def test_a_field_is_refused_with_the_reason(client: LLMBackendClient, upstream: Upstream, field: str) -> None:
    with pytest.raises(InvalidRequest, match=rf"^chat: {field}: \w+ .*\w$") as caught:
        client._call("chat", **ASKED, **{field: REFUSED[field]})
    assert "Extra inputs" not in caught.value.message
    assert upstream.seen == []


@pytest.mark.parametrize("field", UNKNOWN)
def test_an_unknown_field_is_refused(client: LLMBackendClient, upstream: Upstream, field: str) -> None:
    with pytest.raises(InvalidRequest, match=field):
        client._call("chat", **ASKED, **{field: UNKNOWN[field]})
    assert upstream.seen == []


@pytest.mark.parametrize("where", SMUGGLED)
def test_nothing_is_smuggled_within_a_field(client: LLMBackendClient, upstream: Upstream, where: str) -> None:
    with pytest.raises(InvalidRequest):
        client._call("chat", **{**ASKED, **SMUGGLED[where]})
    assert upstream.seen == []


def test_every_kind_of_message_is_passed_on(client: LLMBackendClient, upstream: Upstream) -> None:
    called = {"name": "tide", "arguments": '{"at": "Brill"}'}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
        {
            "role": "user",
            "name": "ada",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://93.184.216.34/1.png"}},
                {"type": "video_url", "video_url": {"url": "https://93.184.216.34/1.mp4"}},
                {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                {
                    "type": "file",
                    "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"},
                },
            ],
        },
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning": "The tide, perhaps.",
            "tool_calls": [
                {"id": "1", "type": "function", "function": called},
                {"id": "2", "type": "custom", "custom": {"name": "code", "input": "1 + 1"}},
            ],
        },
        {"role": "tool", "tool_call_id": "1", "content": "at noon"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "2"}]},
        {"role": "assistant", "refusal": "No."},
    ]
    client._call("chat", model="ok", messages=messages)
    assert upstream.seen == [{"model": "ok", "messages": messages}]


def test_a_reply_may_be_sent_back_as_it_came(client: LLMBackendClient, upstream: Upstream) -> None:
    """With whatever vLLM and LiteLLM put beside the text."""
    reply = {
        "role": "assistant",
        "content": "hello",
        "refusal": None,
        "annotations": [],
        "audio": None,
        "function_call": None,
        "tool_calls": [],
        "reasoning": None,
        "reasoning_content": None,
        "images": [],
        "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "x"}],
        "provider_specific_fields": {"refusal": None},
    }
    client._call("chat", model="ok", messages=[*ASKED["messages"], reply])
    [seen] = upstream.seen
    assert seen["messages"][1] == {
        "role": "assistant",
        "content": "hello",
        "thinking_blocks": reply["thinking_blocks"],
        "provider_specific_fields": {"refusal": None},
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_is_sent_nothing_that_the_environment_has_for_openai(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    for name in ("API_KEY", "ADMIN_KEY", "ORG_ID", "PROJECT_ID"):
        monkeypatch.setenv(f"OPENAI_{name}", "planted")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Planted: planted\nAuthorization: planted")
    monkeypatch.setenv("OPENAI_BASE_URL", ELSEWHERE)
    monkeypatch.setenv("HTTP_PROXY", ELSEWHERE)
    client = connect(openai_api_key=None, embedding_model="ok")
    assert "".join(client.chat("hello", stream=stream)) == REPLY
    client.embed("hello")
    assert len(upstream.sent) == 2
    assert "planted" not in str(upstream.sent)
    assert "linux" not in str(upstream.sent).lower()
