"""Chat and models, on both transports."""

from __future__ import annotations

import contextlib
import itertools
from functools import partial
from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from llmbackend import BackendError, InvalidRequest, LLMBackendClient, LLMBackendError, NotFound


def test_a_message_gets_a_reply(client: LLMBackendClient) -> None:
    reply = client.chat("What is the capital of France?", temperature=0)
    assert "Paris" in reply
    assert reply.model == "SmolLM2-135M-Instruct"
    assert reply.finish_reason == "stop"
    assert reply.usage.completion_tokens > 0


@pytest.mark.parametrize("nothing", ["", " \n\t"])
def test_nothing_gets_no_reply(client: LLMBackendClient, nothing: str) -> None:
    for options in ({}, {"system": "Be brief."}, {"stream": True}):
        with pytest.raises(InvalidRequest, match="chat: the message is empty"):
            client.chat(nothing, **options)


@pytest.mark.parametrize("times", [1, pytest.param(40, marks=pytest.mark.long)])
def test_the_first_example_is_right_each_time(client: LLMBackendClient, times: int) -> None:
    question = "What is the capital of France?"
    replies = [client.chat(question) for _ in range(times)]
    # What was said in between, or left early, changes nothing.
    client.chat("Was ist die Hauptstadt von Italien?", max_tokens=20)
    client.chat("Tell me about " + "the sea and " * 100, max_tokens=4)
    for count in (0, 3):
        with contextlib.closing(client.chat(question, stream=True)) as stream:
            list(itertools.islice(stream, count))
        replies += ["".join(client.chat(question, stream=True))]
    assert all("capital of France is Paris" in reply for reply in replies)


def test_a_reply_that_goes_round_in_circles_is_ended(client: LLMBackendClient) -> None:
    # A penalty below 1 draws the model to what it has said already.
    asked = {"messages": [{"role": "user", "content": "Tell me a story."}], "repetition_penalty": 0.5}
    completion = client._call("chat", **asked, max_tokens=1000)
    usage = completion["usage"]
    assert completion["choices"][0]["finish_reason"] == "length"
    assert 0 < usage["completion_tokens"] < 500
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]


def test_a_notebook_tells_what_the_small_model_cannot_do(client: LLMBackendClient) -> None:
    assert "a very small model" in client.chat("Say hello.", max_tokens=5)._repr_html_()


def test_a_stream_ends_with_the_whole_reply(client: LLMBackendClient) -> None:
    stream = client.chat("What is the capital of France?", temperature=0, max_tokens=30, stream=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == stream.reply
    assert "Paris" in stream.reply
    assert stream.reply.usage.completion_tokens == 30 == len(pieces)


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


# Settings, tools, images


def test_a_conversation_is_continued_by_its_message(client: LLMBackendClient) -> None:
    messages: list[Any] = [{"role": "user", "content": "What is the capital of France?"}]
    reply = client.chat(messages, temperature=0, max_tokens=30)
    assert reply.message == {"role": "assistant", "content": reply}
    messages += [reply.message, {"role": "user", "content": "And of Italy?"}]
    longer = client.chat(messages, temperature=0, max_tokens=30)
    assert longer.usage.prompt_tokens > reply.usage.total_tokens


def test_the_reply_ends_before_a_stop(client: LLMBackendClient) -> None:
    question = "What is the capital of France?"
    whole = client.chat(question, temperature=0, max_tokens=30)
    reply = client.chat(question, temperature=0, max_tokens=30, stop=["Paris"])
    assert reply == whole.partition("Paris")[0] != whole


def test_an_empty_stop_is_refused(client: LLMBackendClient) -> None:
    for stop in ("", ["Paris", ""]):
        with pytest.raises(InvalidRequest, match=r"stop.*is empty"):
            client.chat("What is the capital of France?", max_tokens=4, stop=stop)


def test_more_tokens_than_the_model_can_count_to_are_as_many_as_there_are(client: LLMBackendClient) -> None:
    question = "What is the capital of France?"
    reply = client.chat(question, temperature=0, max_tokens=40)
    assert client.chat(question, temperature=0, max_tokens=2**32 + 1) == reply


def test_the_same_seed_gives_the_same_reply(client: LLMBackendClient) -> None:
    replies = [
        client.chat("Tell me a story.", temperature=2, top_p=0.9, seed=seed, max_tokens=12)
        for seed in (1, 1, 2)
    ]
    assert replies[0] == replies[1] != replies[2]


TIDE = {"type": "function", "function": {"name": "tide", "parameters": {"type": "object", "properties": {}}}}


def test_tools_may_be_left_alone(client: LLMBackendClient) -> None:
    """The embedded model is too small to call any."""
    reply = client.chat("Say hello.", tools=[TIDE], max_tokens=8)
    assert reply
    assert reply.tool_calls == []


def test_what_a_tool_gave_is_read(client: LLMBackendClient) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "tide", "arguments": "{}"}}
    asked = [{"role": "user", "content": "When is high tide?"}]
    given = [
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "nine"},
    ]
    without = client.chat(asked, temperature=0, max_tokens=8)
    assert (
        client.chat(asked + given, temperature=0, max_tokens=8).usage.prompt_tokens
        > without.usage.prompt_tokens
    )


def test_a_model_without_eyes_refuses_images(client: LLMBackendClient) -> None:
    with pytest.raises(LLMBackendError, match="image"):
        client.chat("What is this?", images=[b"\x89PNG\r\n\x1a\n"])


# Replies in a shape

TICKET = {
    "type": "object",
    "properties": {
        "product": {"enum": ["router", "cable"]},
        "urgency": {"type": "integer", "minimum": 1, "maximum": 5},
    },
    "required": ["product", "urgency"],
    "additionalProperties": False,
}
COMPLAINT = "Sort this ticket: 'My router is broken, and nobody answers the phone!'"


class Ticket(BaseModel):
    product: Literal["router", "cable"]
    urgency: int = Field(ge=1, le=5)


def test_a_schema_gives_data_that_fits(client: LLMBackendClient) -> None:
    reply = client.chat(COMPLAINT, schema=TICKET, temperature=0, max_tokens=60)
    assert set(reply.parsed) == {"product", "urgency"}
    assert reply.parsed.product in ("router", "cable")
    assert reply.parsed.urgency in range(1, 6)
    assert reply.usage.completion_tokens > 0
    assert client.chat(COMPLAINT, max_tokens=8).parsed is None


@pytest.mark.timeout(60)
def test_a_schema_with_more_choices_than_the_model_can_weigh_is_not_imposed(client: LLMBackendClient) -> None:
    """The model is asked in words instead, which take too many tokens; each token took seconds."""
    schema = {"enum": [f"product {number}" for number in range(5000)]}
    with pytest.raises(InvalidRequest, match="exceeds the context window"):
        client.chat(COMPLAINT, schema=schema)


def test_a_pydantic_class_gives_an_instance(client: LLMBackendClient) -> None:
    reply = client.chat(COMPLAINT, schema=Ticket, temperature=0, max_tokens=60)
    assert isinstance(reply.parsed, Ticket)
    assert Ticket.model_validate_json(reply) == reply.parsed


def test_a_schema_that_the_grammar_cannot_express_is_checked_all_the_same(client: LLMBackendClient) -> None:
    """What llama.cpp leaves out of its grammar is what the schema refuses: here, by chance, always."""
    schema = {"type": "integer", "minimum": 1, "maximum": 3, "not": {"enum": [1, 2, 3]}}
    with pytest.raises(BackendError) as caught:
        client.chat("Give me a number.", schema=schema, temperature=0, max_tokens=20)
    assert caught.value.details["text"] in ("1", "2", "3")
    assert "is not allowed" in caught.value.details["problem"]


def test_a_reply_cut_off_is_told_as_such(client: LLMBackendClient) -> None:
    with pytest.raises(BackendError, match="max_tokens") as caught:
        client.chat(COMPLAINT, schema=TICKET, temperature=0, max_tokens=12)
    assert caught.value.details["text"].startswith("{")


@pytest.mark.parametrize("schema", [{"type": "strnig"}, {"properties": {"a": {"type": "strnig"}}}])
def test_what_is_no_schema_is_refused(client: LLMBackendClient, schema: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"schema.*type") as caught:
        client.chat(COMPLAINT, schema=schema)
    assert caught.value.details["errors"][0]["loc"][-1] == "type"


def test_a_collection_does_not_answer_in_a_shape_or_by_calls(
    client: LLMBackendClient, collection: str
) -> None:
    client.rag_ingest("The harbour was dredged in 1911.", collection)
    messages = [{"role": "user", "content": "When was the harbour dredged?"}]
    asked = partial(client._call, "chat", messages=messages, model=f"rag/{collection}")
    tools = [{"type": "function", "function": {"name": "dredge"}}]
    for field, wanted in {
        "schema": {"schema": TICKET},
        "response_format": {"response_format": {"type": "json_object"}},
        "tools": {"tools": tools},
    }.items():
        with pytest.raises(InvalidRequest, match=field):
            asked(**wanted)
    reply = asked(tools=tools, tool_choice="none", response_format={"type": "text"})
    assert "1911" in reply["choices"][0]["message"]["content"]


def test_what_cannot_fit_is_refused_before_it_is_divided_into_tokens(client: LLMBackendClient) -> None:
    """Its tokens would take many times its memory."""
    for content in ("word " * 2**20, [{"type": "text", "text": "word " * 2**20}]):
        with pytest.raises(InvalidRequest, match=r"more than \d+ tokens exceeds the context window"):
            client.chat([{"role": "user", "content": content}])
