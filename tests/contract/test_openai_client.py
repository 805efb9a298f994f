"""OpenAI's own client on our server with the embedded models. Of the wire only: it knows no other transport."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import openai
import pytest
import requests
from pydantic import BaseModel

from llmbackend import LLMBackendClient
from tests.server import KEY

MODEL = "SmolLM2-135M-Instruct"
EMBEDDINGS = "wordllama-l2-supercat-256"
ASKED: Any = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 60,
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "tide_table",
        "description": "When the tide is high",
        "parameters": {"type": "object", "properties": {"harbour": {"type": "string"}}},
    },
}


@pytest.fixture(scope="module")
def official(server_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server_url}/v1", api_key=KEY, max_retries=0) as client:
        yield client


# Chat


def test_a_message_gets_a_completion(official: openai.OpenAI) -> None:
    completion = official.chat.completions.create(**ASKED)
    assert (completion.object, completion.model) == ("chat.completion", MODEL)
    [choice] = completion.choices
    assert choice.message.role == "assistant"
    assert "Paris" in (choice.message.content or "")
    assert choice.finish_reason == "stop"
    usage = completion.usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > 1


def test_a_reply_may_be_sent_back_as_it_came(official: openai.OpenAI) -> None:
    first = official.chat.completions.create(**ASKED).choices[0].message
    messages = [*ASKED["messages"], first, {"role": "user", "content": "Say that again."}]
    assert official.chat.completions.create(**{**ASKED, "messages": messages}).choices[0].message.content


def test_what_other_servers_put_into_a_reply_is_taken(official: openai.OpenAI) -> None:
    reply: Any = {
        "role": "assistant",
        "content": "Paris.",
        "refusal": None,
        "audio": None,
        "function_call": None,
        "tool_calls": None,
        "reasoning_content": "An easy one.",
        "reasoning_details": [{"type": "reasoning.text", "text": "An easy one."}],
        "annotations": [],
        "citations": ["https://town.example"],
        "provider_specific_fields": {"refusal": None},
        "extra_content": {"google": {"thought_signature": "x"}},
    }
    messages = [*ASKED["messages"], reply, {"role": "user", "content": "Say that again."}]
    assert official.chat.completions.create(**{**ASKED, "messages": messages}).choices[0].message.content


def test_null_is_as_good_as_absent(official: openai.OpenAI) -> None:
    names = ("temperature", "top_p", "stop", "seed", "tools", "tool_choice", "response_format", "logit_bias")
    others = (
        "n",
        "user",
        "stream_options",
        "max_completion_tokens",
        "functions",
        "function_call",
        "metadata",
    )
    nulls: Any = dict.fromkeys([*names, *others])
    path = "/chat/completions"
    reply = official.post(path, body={**ASKED, **nulls, "max_tokens": 5, "stream": None}, cast_to=object)
    assert reply["choices"][0]["message"]["content"]  # type: ignore[index]
    nulls = dict.fromkeys(["model", "dimensions", "encoding_format", "user", "too_long"])
    vectors: Any = official.post("/embeddings", body={"input": ["tide"], **nulls}, cast_to=object)
    assert len(vectors["data"][0]["embedding"]) == 256
    options = {"stream": True, "stream_options": {"include_usage": None, "include_obfuscation": None}}
    for chunk in official.chat.completions.create(**ASKED, extra_body=options, stream=True):
        assert chunk.usage is None


def test_half_a_character_is_replaced(official: openai.OpenAI) -> None:
    body = b'{"input": ["tide \\ud83d", "tide \\ufffd"], "encoding_format": "float"}'
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
    data = requests.post(f"{official.base_url}embeddings", data=body, headers=headers, timeout=30).json()[
        "data"
    ]
    assert data[0]["embedding"] == data[1]["embedding"]


@pytest.mark.parametrize("include_usage", [True, False])
def test_a_stream_has_its_usage_at_the_end_if_asked(official: openai.OpenAI, include_usage: bool) -> None:
    whole = official.chat.completions.create(**ASKED)
    options: Any = {"include_usage": include_usage}
    chunks = list(official.chat.completions.create(**ASKED, stream=True, stream_options=options))
    assert {(chunk.object, chunk.model) for chunk in chunks} == {("chat.completion.chunk", MODEL)}
    pieces = [choice.delta.content or "" for chunk in chunks for choice in chunk.choices]
    assert "".join(pieces) == whole.choices[0].message.content
    usages = [chunk.usage for chunk in chunks if chunk.usage is not None]
    if include_usage:
        assert [usages[0].completion_tokens] == [whole.usage.completion_tokens if whole.usage else None]
        assert chunks[-1].usage is usages[-1]
        assert chunks[-1].choices == []
    else:
        assert usages == []


def test_several_choices_are_given(official: openai.OpenAI) -> None:
    choices = official.chat.completions.create(**ASKED, n=2).choices
    assert sorted(choice.index for choice in choices) == [0, 1]


@pytest.mark.parametrize("stop", ["Paris", ["Rome", "Paris"]])
def test_a_stop_word_ends_the_reply_and_is_not_in_it(official: openai.OpenAI, stop: Any) -> None:
    [choice] = official.chat.completions.create(**ASKED, stop=stop).choices
    assert choice.finish_reason == "stop"
    assert choice.message.content
    assert "Paris" not in choice.message.content


def test_a_seed_repeats_a_reply(official: openai.OpenAI) -> None:
    asked = {**ASKED, "messages": [{"role": "user", "content": "Tell a story."}], "temperature": 2}
    replies = {
        seed: {official.chat.completions.create(**asked, seed=seed).choices[0].message.content for _ in "12"}
        for seed in (1, 2)
    }
    assert {len(same) for same in replies.values()} == {1}
    assert replies[1] != replies[2]


def test_probabilities_come_with_the_tokens(official: openai.OpenAI) -> None:
    [choice] = official.chat.completions.create(**ASKED, logprobs=True, top_logprobs=3).choices
    assert choice.logprobs is not None
    tokens = choice.logprobs.content
    assert tokens
    assert "".join(token.token for token in tokens).strip() == choice.message.content
    assert all(token.logprob <= 0 and len(token.top_logprobs) == 3 for token in tokens)


def test_a_token_can_be_barred(official: openai.OpenAI) -> None:
    [choice] = official.chat.completions.create(**ASKED, logprobs=True, top_logprobs=1).choices
    assert choice.logprobs is not None
    assert choice.logprobs.content
    first: Any = choice.logprobs.content[0]
    barred = official.chat.completions.create(**ASKED, logit_bias={str(first.id): -100}).choices[0]
    assert not (barred.message.content or "").startswith(first.token)


def test_a_reply_is_json_when_asked(official: openai.OpenAI) -> None:
    asked = {**ASKED, "max_tokens": 300}
    content = official.chat.completions.create(**asked, response_format={"type": "json_object"})
    assert isinstance(json.loads(content.choices[0].message.content or ""), dict)


class Judgement(BaseModel):
    sentiment: Literal["positive", "negative"]
    urgent: bool


def test_a_reply_has_the_shape_of_a_class(official: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "Judge: 'The ferry was late again.'"}]
    completion = official.chat.completions.parse(
        model=MODEL, messages=messages, temperature=0, max_tokens=60, response_format=Judgement
    )
    assert isinstance(completion.choices[0].message.parsed, Judgement)


def test_tools_are_taken_and_their_results_read(official: openai.OpenAI) -> None:
    called = {"id": "1", "type": "function", "function": {"name": "tide_table", "arguments": "{}"}}
    messages = [
        *ASKED["messages"],
        {"role": "assistant", "content": None, "tool_calls": [called]},
        {"role": "tool", "tool_call_id": "1", "content": "High tide is at noon."},
    ]
    completion = official.chat.completions.create(**{**ASKED, "messages": messages}, tools=[TOOL])
    assert completion.choices[0].message.content


@pytest.mark.parametrize(
    ("field", "asked"),
    [
        ("tool_choice", {"tools": [TOOL], "tool_choice": "required"}),
        ("tools", {"tools": [{"type": "custom", "custom": {"name": "code"}}]}),
        ("structured_outputs", {"extra_body": {"structured_outputs": {"choice": ["yes", "no"]}}}),
        (
            "messages",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
                ]
            },
        ),
    ],
)
def test_what_the_embedded_model_cannot_do_is_refused(
    official: openai.OpenAI, field: str, asked: dict[str, Any]
) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match=f"{field}: {MODEL}"):
        official.chat.completions.create(**{**ASKED, **asked})


# Embeddings and models


def test_vectors_are_the_same_as_base64_and_as_floats(official: openai.OpenAI) -> None:
    texts = ["a cat sat on the mat", "the quarterly report is late"]
    usual = official.embeddings.create(model=EMBEDDINGS, input=texts)  # the client asks for base64 by itself
    floats = official.embeddings.create(model=EMBEDDINGS, input=texts, encoding_format="float")
    assert usual.model == floats.model == EMBEDDINGS
    assert [item.index for item in usual.data] == [0, 1]
    assert all(isinstance(number, float) for number in usual.data[0].embedding)
    np.testing.assert_allclose(
        [item.embedding for item in usual.data], [item.embedding for item in floats.data]
    )
    assert usual.usage.prompt_tokens == usual.usage.total_tokens > 0


def test_models_are_listed(official: openai.OpenAI) -> None:
    listed = list(official.models.list())
    assert [one.id for one in listed][:2] == [MODEL, EMBEDDINGS]
    assert {one.object for one in listed} == {"model"}


def test_a_collection_is_a_model(official: openai.OpenAI, server_url: str) -> None:
    asked = {"model": "rag/openai-client", "messages": [{"role": "user", "content": "When is high tide?"}]}
    with LLMBackendClient(server_url, KEY) as ours:
        ours.rag_ingest("High tide in Aldersea is at noon.", "openai-client")
        try:
            listed = [one.id for one in official.models.list()]
            completion = official.chat.completions.create(**asked)
            chunks = list(official.chat.completions.create(**asked, stream=True))
        finally:
            ours.delete_collection("openai-client")
    assert "rag/openai-client" in listed
    assert "noon" in (completion.choices[0].message.content or "")
    assert "noon" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


# Errors


@pytest.mark.parametrize(
    ("asked", "param"),
    [
        ({"temperature": 9}, "temperature"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "pope", "content": "x"}]}, "messages[0].role"),
        ({"tool_choice": "any"}, "tool_choice"),
        ({"extra_body": {"api_base": "http://elsewhere.example"}}, "api_base"),
        ({"temperature": 9, "top_p": 9}, None),
    ],
)
def test_a_wrong_field_is_named(official: openai.OpenAI, asked: dict[str, Any], param: str | None) -> None:
    for stream in (False, True):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            official.chat.completions.create(**{**ASKED, **asked}, stream=stream)
        error = caught.value
        assert (error.code, error.type, error.param) == ("invalid_request", "invalid_request_error", param)
        assert error.request_id


def test_a_wrong_key_is_an_authentication_error(official: openai.OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError) as caught:
        official.with_options(api_key="sk-wrong").models.list()
    assert (caught.value.code, caught.value.type) == ("unauthorized", "invalid_request_error")


def test_an_unknown_model_is_not_found(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no-such-model") as caught:
        official.chat.completions.create(**{**ASKED, "model": "no-such-model"})
    assert caught.value.code == "not_found"
    with pytest.raises(openai.NotFoundError, match="no-such-model"):
        official.embeddings.create(model="no-such-model", input="x")


def test_a_route_that_is_not_here_is_not_found(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="/v1/completions"):
        official.completions.create(model=MODEL, prompt="x")


def test_a_prompt_beyond_the_context_is_told_in_words_that_langchain_knows(official: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="exceeds the context window") as caught:
        official.chat.completions.create(
            **{**ASKED, "messages": [{"role": "user", "content": "word " * 5000}]}
        )
    body: Any = caught.value.body
    assert body["details"]["tokens"] > body["details"]["context"]


def test_a_reply_has_an_id(official: openai.OpenAI) -> None:
    raw = official.chat.completions.with_raw_response.create(**ASKED)
    assert raw.headers["x-request-id"] == raw.request_id
    assert float(raw.headers["x-llmbackend-overhead-ms"]) >= 0


# Responses


def test_a_response_is_read_like_openai_s(official: openai.OpenAI) -> None:
    first = official.responses.create(
        model=MODEL, input="What is the capital of France?", temperature=0, instructions="Be short."
    )
    assert "Paris" in first.output_text
    assert first.usage is not None
    assert first.usage.output_tokens > 1
    again = official.responses.create(
        model=MODEL, input="Say that again.", previous_response_id=first.id, max_output_tokens=5
    )
    assert again.previous_response_id == first.id
    assert official.responses.retrieve(first.id, include=["file_search_call.results"]) == first
    [item] = official.responses.input_items.list(again.id).data
    assert item.content[0].text == "Say that again."  # type: ignore[union-attr]
    official.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError) as caught:
        official.responses.retrieve(first.id)
    assert caught.value.code == "not_found"


def test_a_response_streams_to_openai_s_helper(official: openai.OpenAI) -> None:
    texts = []
    asked: Any = {"model": MODEL, "input": "What is the capital of France?", "temperature": 0}
    with official.responses.stream(**asked) as stream:
        for event in stream:
            if event.type == "response.output_text.delta":
                texts.append(event.delta)
                assert event.snapshot == "".join(texts)
        final = stream.get_final_response()
    assert final.output_text == "".join(texts)
    assert "Paris" in final.output_text


def test_a_response_is_parsed_into_a_class(official: openai.OpenAI) -> None:
    class Town(BaseModel):
        name: Literal["Paris", "Rome"]

    asked: Any = {"model": MODEL, "input": "What is the capital of France?", "temperature": 0}
    parsed = official.responses.parse(**asked, text_format=Town)
    assert isinstance(parsed.output_parsed, Town)
    with official.responses.stream(**asked, text_format=Town) as stream:
        assert isinstance(stream.get_final_response().output_parsed, Town)


def test_a_response_is_made_in_the_background(official: openai.OpenAI) -> None:
    begun = official.responses.create(model=MODEL, input="Hello", max_output_tokens=5, background=True)
    assert begun.status == "queued"
    with official.responses.retrieve(begun.id, stream=True) as events:
        kinds = [event.type for event in events]
    assert kinds[-1] == "response.incomplete"
    with official.responses.retrieve(begun.id, stream=True, starting_after=2) as events:
        assert [event.type for event in events] == kinds[3:]
    assert official.responses.cancel(begun.id).status == "incomplete"


def test_what_a_response_cannot_do_is_refused_in_openai_s_shape(official: openai.OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        official.responses.create(model=MODEL, input="x", tools=[{"type": "web_search"}])
    assert (caught.value.code, caught.value.param) == ("invalid_request", "tools[0].type")


# Responses


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "c"}]}, "input"),
        ({"previous_response_id": "7"}, "previous_response_id"),
        ({"temperature": 5}, "temperature"),
        ({"top_p": 2}, "top_p"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, "tools"),
        ({"tool_choice": "sometimes"}, "tool_choice"),
        ({"tool_choice": {"type": "function"}}, "tool_choice"),
        ({"truncation": "some"}, "truncation"),
        ({"include": ["everything"]}, "include"),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text"),
        ({"metadata": {"a": "x" * 600}}, "metadata"),
        ({"reasoning": {"effort": "some"}}, "reasoning"),
        ({"background": "perhaps"}, "background"),
        ({"conversation": "conv_1"}, "conversation"),
    ],
)
def test_what_is_wrong_in_a_response_is_named(
    official: openai.OpenAI, wrong: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        official.responses.create(**{"model": MODEL, "input": "Hello", **wrong})
    assert raised.value.type == "invalid_request_error"
    assert (raised.value.param or "").startswith(param)
