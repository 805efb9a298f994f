"""What goes into a conversation and comes out of it: tools, images, settings of a model, reasoning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llmbackend import BackendError, LLMBackendClient, Reply
from tests.upstream.fake import Upstream

TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}]
PNG = b"\x89PNG\r\n\x1a\n and so on"
PNG_URL = "data:image/png;base64,iVBORw0KGgogYW5kIHNvIG9u"


def _calling(*arguments: str) -> dict[str, Any]:
    """A message that calls the tide table, once for each of these arguments."""
    calls = [
        {"id": f"call-{number}", "type": "function", "function": {"name": "tide", "arguments": text}}
        for number, text in enumerate(arguments)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def _chat(client: LLMBackendClient, stream: bool, *args: Any, **kwargs: Any) -> Reply:
    if not stream:
        return client.chat(*args, **kwargs)
    pieces = client.chat(*args, **kwargs, stream=True)
    assert "".join(pieces) == pieces.reply
    return pieces.reply


stream = pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])


@stream
def test_what_a_model_is_told_is_passed_on(
    client: LLMBackendClient, upstream: Upstream, stream: bool
) -> None:
    given: dict[str, Any] = {
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 20,
        "stop": ["\n", "END"],
        "seed": 7,
        "tools": TOOLS,
        "tool_choice": "required",
    }
    _chat(client, stream, "hello", system="Be brief.", **given)
    [sent] = upstream.seen
    assert {name: sent[name] for name in given} == given
    assert sent["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "hello"},
    ]


@stream
def test_tool_calls_come_with_their_arguments(
    client: LLMBackendClient, upstream: Upstream, stream: bool
) -> None:
    said = _calling('{"harbour": "Aldersea", "day": 3}', "")
    upstream.replies = [said]
    reply = _chat(client, stream, "High tide?", tools=TOOLS)
    assert (reply, reply.finish_reason) == ("", "tool_calls")
    assert reply.tool_calls == [
        {"id": "call-0", "name": "tide", "arguments": {"harbour": "Aldersea", "day": 3}},
        {"id": "call-1", "name": "tide", "arguments": {}},
    ]
    assert reply.tool_calls[0].arguments.harbour == "Aldersea"
    assert reply.message == said


@stream
def test_what_a_tool_gives_goes_back_into_the_conversation(
    client: LLMBackendClient, upstream: Upstream, stream: bool
) -> None:
    upstream.replies = [_calling('{"harbour": "Aldersea"}'), "At nine."]
    messages: list[Any] = [{"role": "user", "content": "When is high tide in Aldersea?"}]
    reply = _chat(client, stream, messages, tools=TOOLS)
    while reply.tool_calls:
        given = [{"role": "tool", "tool_call_id": call.id, "content": "nine"} for call in reply.tool_calls]
        messages += [reply.message, *given]
        reply = _chat(client, stream, messages, tools=TOOLS)
    assert reply.strip() == "At nine."
    assert len(upstream.seen) == 2
    question, call, result = upstream.seen[1]["messages"]
    assert question == messages[0]
    assert call["tool_calls"] == _calling('{"harbour": "Aldersea"}')["tool_calls"]
    assert result == {"role": "tool", "tool_call_id": "call-0", "content": "nine"}


@pytest.mark.parametrize("arguments", ['{"harbour": "Alder', '"Aldersea"', "[" * 5000])
@stream
def test_arguments_that_are_no_object_are_a_typed_error(
    client: LLMBackendClient, upstream: Upstream, stream: bool, arguments: str
) -> None:
    upstream.replies = [_calling(arguments)]
    reply = _chat(client, stream, "High tide?", tools=TOOLS)
    with pytest.raises(BackendError, match="tide") as caught:
        _ = reply.tool_calls
    assert caught.value.details == {"tool": "tide", "text": arguments}
    assert reply.message.tool_calls[0].function.arguments == arguments


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning"])
@stream
def test_thoughts_are_kept_beside_the_text(
    client: LLMBackendClient, upstream: Upstream, stream: bool, name: str
) -> None:
    said = {"role": "assistant", "content": "At nine.", name: "Tides follow the moon."}
    upstream.replies = [said]
    reply = _chat(client, stream, "High tide?")
    assert reply == "At nine."
    assert reply.message == said


def test_a_message_has_nothing_that_a_server_added_for_itself(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = [
        {
            "role": "assistant",
            "content": "Nine.",
            "refusal": None,
            "audio": None,
            "extra": {},
            "tool_calls": [],
        }
    ]
    assert client.chat("High tide?").message == {"role": "assistant", "content": "Nine."}


@stream
def test_images_arrive_unchanged(
    client: LLMBackendClient, upstream: Upstream, stream: bool, tmp_path: Path
) -> None:
    (tmp_path / "quay").write_bytes(PNG)
    url = "https://1.1.1.1/quay.jpg"  # a name would be looked up
    images = [url, PNG, tmp_path / "quay", str(tmp_path / "quay")]
    history = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]
    _chat(client, stream, [*history, {"role": "user", "content": "What is this?"}], images=images)
    [sent] = upstream.seen
    assert sent["messages"][:2] == history
    text, *parts = sent["messages"][2]["content"]
    assert text == {"type": "text", "text": "What is this?"}
    assert [part["image_url"]["url"] for part in parts] == [url, PNG_URL, PNG_URL, PNG_URL]
    assert {part["type"] for part in parts} == {"image_url"}


def test_images_join_those_that_a_message_has(client: LLMBackendClient, upstream: Upstream) -> None:
    part = {"type": "image_url", "image_url": {"url": PNG_URL, "detail": "low"}}
    client.chat([{"role": "user", "content": [part]}], images=PNG)
    [sent] = upstream.seen
    assert sent["messages"][0]["content"][0] == part
    assert len(sent["messages"][0]["content"]) == 2
    assert json.dumps(sent).count(PNG_URL) == 2
