"""Replies as servers really send them: thoughts and parts in the content, odd tool calls, every form of event."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests
from pydantic import BaseModel

from llmbackend import BackendError, LLMBackendClient, LLMBackendError, Reply, StreamInterrupted
from llmbackend.schemas import EmbedRequest, RerankRequest
from llmbackend.schemas.chat import OF_REPLIES
from llmbackend.sse import Events
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import _options
from tests.upstream.fake import Upstream

TOOLS = [{"type": "function", "function": {"name": "tide", "parameters": {"type": "object"}}}]
SHAPE = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
THINKING = {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}], "closed": True}
DOCUMENTS = [
    {"id": "a", "text": "Vacation is 28 days a year."},
    {"id": "b", "text": "Sick leave is reported before nine."},
]


def _completion(message: dict[str, Any]) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": "stop"}
    return json.dumps({"id": "1", "object": "chat.completion", "model": "ok", "choices": [choice]}).encode()


def _chunk(delta: dict[str, Any] | None, reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    chunk = {"id": "1", "object": "chat.completion.chunk", "model": "ok", "choices": [choice]}
    return json.dumps(chunk).encode()


def _stream(*deltas: dict[str, Any], reason: str | None = "stop") -> list[bytes]:
    chunks = [*map(_chunk, deltas), *([_chunk({}, reason)] if reason else [])]
    return [*(b"data: " + chunk + b"\n\n" for chunk in chunks), b"data: [DONE]\n\n"]


def _words(*texts: str) -> list[bytes]:
    return _stream(*({"content": text} for text in texts))


def _read(client: LLMBackendClient, **kwargs: Any) -> Reply:
    pieces = client.chat("hello", stream=True, **kwargs)
    assert "".join(pieces) == pieces.reply
    return pieces.reply


@pytest.fixture(scope="module")
def server(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder: Path = tmp_path_factory.mktemp("server")
    with serving(folder, api_key=SERVER_KEY, **_options(_upstream)) as running:
        yield running.url


@pytest.fixture(scope="module")
def official(server: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server}/v1", api_key=SERVER_KEY, max_retries=0) as client:
        yield client


# Thoughts

THOUGHTS = [
    ("<think>hm</think>\n\nAt nine.", "At nine.", "hm"),
    ("\n<THINK>\nhm\n</think>At nine.", "At nine.", "hm"),
    ("<thinking>hm</thinking>At nine.", "At nine.", "hm"),
    ("<reasoning>h <b>m</reasoning> At nine.", "At nine.", "h <b>m"),
    ("[THINK]hm[/THINK]At nine.", "At nine.", "hm"),
    ("<think>a</think>At <think>b</think>nine.", "At nine.", "a\nb"),
    ("<think>a</think> <think>b</think> At nine.", "At nine.", "a\nb"),
    ("<think>\n\n</think>\n\nAt nine.", "At nine.", ""),
    ("<think>hm, so", "", "hm, so"),
    ("<think>hm</thi", "", "hm</thi"),
    ("<think>hm</think>Write `<think>` so.", "Write `<think>` so.", "hm"),
    ("Write <think>so</think>.", "Write <think>so</think>.", ""),
    ("<b>nine</b> <", "<b>nine</b> <", ""),
    (" \n", " \n", ""),
    ("<thin", "<thin", ""),
]


@pytest.mark.parametrize(("text", "words", "thoughts"), THOUGHTS)
def test_thoughts_in_the_text_are_kept_apart(
    client: LLMBackendClient, upstream: Upstream, text: str, words: str, thoughts: str
) -> None:
    upstream.replies = [text]
    reply = client.chat("hello")
    assert (reply, reply.reasoning) == (words, thoughts)
    assert reply.message.content == words
    for size in (1, 3, 1000):
        pieces = [text[start : start + size] for start in range(0, len(text), size)]
        upstream.replies = [_words(*pieces)]
        reply = _read(client)
        assert (reply, reply.reasoning) == (words, thoughts)


def test_thoughts_whose_beginning_is_in_the_template(client: LLMBackendClient, upstream: Upstream) -> None:
    text = "It may be [2].\n</think>\n\n28 days [1]."
    client.rag_ingest(DOCUMENTS, collection="template")
    upstream.replies = [text, _words(*text), _words(*text), _words(*text)]
    reply = client.chat("hello")
    assert (reply, reply.reasoning) == ("28 days [1].", "It may be [2].")
    stream = client.chat("hello", stream=True)
    assert "".join(stream) == text  # nobody could tell before the end of them
    assert (stream.reply, stream.reply.reasoning) == ("28 days [1].", "It may be [2].")
    answer = client.rag_query("How many vacation days?", "template")
    assert (answer, answer.citations) == ("28 days [1].", [1])
    answers = client.rag_query("How many vacation days?", "template", stream=True)
    list(answers)
    assert (answers.answer, answers.answer.citations) == ("28 days [1].", [1])


@pytest.mark.parametrize(
    ("text", "thoughts"),
    [
        ("<think>a <think>b</think> c</think>At nine.", "a <think>b\nc"),
        ("a</think>b</think>At nine.", "a\nb"),
    ],
)
def test_thoughts_that_end_twice(
    client: LLMBackendClient, upstream: Upstream, text: str, thoughts: str
) -> None:
    upstream.replies = [text, _words(*text)]
    reply = client.chat("hello")
    assert (reply, reply.reasoning) == ("At nine.", thoughts)
    stream = client.chat("hello", stream=True)
    list(stream)
    assert (stream.reply, stream.reply.reasoning) == ("At nine.", thoughts)


def test_a_stream_that_ends_without_a_reason_loses_nothing(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    upstream.replies = [
        _stream({"content": "<think>hm</th"}, reason=None),
        _stream({"content": "<"}, reason=None),
    ]
    assert _read(client).reasoning == "hm</th"
    assert _read(client) == "<"


def test_answers_and_shapes_are_what_comes_behind_the_thoughts(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    client.rag_ingest(DOCUMENTS, collection="thoughts")
    said = "<think>NOT IN THE DOCUMENTS? [2] tells.</think>28 days [1]."
    upstream.replies = [_words(said[:20], said[20:]), '<think>{"a": 5}</think>{"a": 1}']
    answer = client.rag_query("How many vacation days?", "thoughts")
    assert (answer, answer.citations, answer.found) == ("28 days [1].", [1], True)
    assert client.chat("hello", schema=SHAPE).parsed == {"a": 1}
    notes = {"key_points": ["Vacation is 28 days."]}
    judged = {"summary": "It is long.", "sentiment": "neutral", "strength": "slight"}
    upstream.replies = [f"<think>{{}}</think>{json.dumps(one)}" for one in (notes, judged)]
    assert client.analyze_document(DOCUMENTS[0]["text"]).summary == "It is long."
    upstream.replies = ["<think>hm</think>At nine."]
    job = client.submit_job("batch_chat", {"prompts": ["hello"]})
    client.wait_for_job(job, timeout=30)
    assert client.get_job_result(job).rows[0].reply == "At nine."


def test_a_model_that_only_thinks_has_not_said_that_there_is_nothing(
    client: LLMBackendClient, upstream: Upstream
) -> None:
    client.rag_ingest(DOCUMENTS, collection="thinker")
    upstream.replies = [
        _stream({"content": "<think>hm, so"}, reason="length"),
        _stream({"reasoning_content": "hm, so"}, reason="length"),
        _words("NOT IN THE DOCUMENTS"),
    ]
    for _ in range(2):
        with pytest.raises(BackendError, match="thinking off"):
            client.rag_query("How many vacation days?", "thinker")
    assert not client.rag_query("How many vacation days?", "thinker").found


def test_openais_client_has_thoughts_beside_the_content(official: openai.OpenAI, upstream: Upstream) -> None:
    asked: Any = {"model": "ok", "messages": [{"role": "user", "content": "hello"}]}
    upstream.replies = ["<think>hm</think>At nine.", _words("<thi", "nk>h", "m</think>", "At nine.")]
    message = official.chat.completions.create(**asked).choices[0].message
    assert (message.content, message.to_dict()["reasoning_content"]) == ("At nine.", "hm")
    deltas = [chunk.choices[0].delta for chunk in official.chat.completions.create(**asked, stream=True)]
    assert "".join(delta.content or "" for delta in deltas) == "At nine."
    assert "".join(delta.to_dict().get("reasoning_content", "") for delta in deltas) == "hm"


# Parts


def test_content_in_parts_is_text(client: LLMBackendClient, upstream: Upstream) -> None:
    parts = [
        THINKING,
        {"type": "text", "text": "28 "},
        {"type": "reference", "reference_ids": [1]},
        "days [1]",
    ]
    upstream.replies = [
        {"role": "assistant", "content": parts},
        _stream(*({"content": [one]} for one in parts)),
    ]
    for reply in (client.chat("hello"), _read(client)):
        assert (reply, reply.reasoning) == ("28 days [1]", "hm")
    client.rag_ingest(DOCUMENTS, collection="parts")
    upstream.replies = [_stream({"content": [THINKING]}, {"content": parts[1:]})]
    answer = client.rag_query("How many vacation days?", "parts")
    assert (answer, answer.citations) == ("28 days [1]", [1])
    shaped = {"role": "assistant", "content": [THINKING, {"type": "text", "text": '{"a": 1}'}]}
    upstream.replies = [shaped, shaped]
    assert client.chat("hello", schema=SHAPE).parsed == {"a": 1}
    job = client.submit_job("batch_chat", {"prompts": ["hello"]})
    client.wait_for_job(job, timeout=30)
    assert client.get_job_result(job).rows[0].reply == '{"a": 1}'


@pytest.mark.parametrize(
    "content", [None, [], {}, 5, True, [5, None], [{"type": "text"}], {"text": "x"}], ids=str
)
def test_no_content_is_unforeseen(client: LLMBackendClient, upstream: Upstream, content: Any) -> None:
    client.rag_ingest(DOCUMENTS, collection="odd")
    said = {"role": "assistant", "content": content}
    text = "x" if content == {"text": "x"} else ""
    upstream.replies = [said, _stream({"content": content}), _stream({"content": content})]
    assert client.chat("hello") == text
    assert _read(client) == text
    assert client.rag_query("How many vacation days?", "odd").found == bool(text)


@pytest.mark.parametrize(
    "said",
    [
        {"content": [["At ", {"text": "nine."}]]},
        {"content": [{"type": "text", "text": {"value": "At nine.", "annotations": []}}]},
        {"content": None, "refusal": "At nine."},
    ],
    ids=str,
)
def test_words_are_found_wherever_a_server_puts_them(
    client: LLMBackendClient, official: openai.OpenAI, upstream: Upstream, said: dict[str, Any]
) -> None:
    whole = {"index": 0, "message": {"role": "assistant", **said}, "finish_reason": "stop"}
    at_once = b"data: %b\n\n" % json.dumps({"id": "1", "model": "ok", "choices": [whole]}).encode()
    upstream.replies = [_completion(said), _stream(said), [at_once, b"data:  [DONE]\n\n"], _stream(said)]
    assert client.chat("hello") == "At nine."
    assert _read(client) == "At nine."
    assert _read(client) == "At nine."
    stream = official.chat.completions.create(
        model="ok", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == "At nine."


@pytest.mark.parametrize("first", [b"data: [1]\n\n", b"data: {no json}\n\n", b"data: 5\n\n"])
def test_a_stream_that_begins_with_no_event_is_no_stream(
    client: LLMBackendClient, upstream: Upstream, first: bytes
) -> None:
    upstream.replies = [[first, *_words("At nine.")]] * 3
    with pytest.raises(BackendError, match="unexpected answer"):
        list(client.chat("hello", stream=True))


# Tool calls


@pytest.mark.parametrize(
    "calls",
    [
        {"tool_calls": {"id": "a", "function": {"name": "tide", "arguments": {"x": 1}}}},
        {"function_call": {"name": "tide", "arguments": '{"x": 1}'}},
        {"tool_calls": [{"id": "a", "function": {"name": "tide", "arguments": '"{\\"x\\": 1}"'}}]},
    ],
    ids=str,
)
def test_tools_are_called_however_a_server_writes_it(
    client: LLMBackendClient, official: openai.OpenAI, upstream: Upstream, calls: dict[str, Any]
) -> None:
    upstream.replies = [_completion({"content": None, **calls}), _stream(calls), _completion(calls)]
    for reply in (client.chat("hello", tools=TOOLS), _read(client, tools=TOOLS)):
        assert _given(reply.tool_calls) == [("tide", {"x": 1})]
    said = official.chat.completions.create(model="ok", messages=[{"role": "user", "content": "x"}])
    [call] = said.choices[0].message.tool_calls or ()
    assert json.loads(call.function.arguments) == {"x": 1}  # type: ignore[union-attr]


def _part(id: str | None, arguments: Any, name: str | None = "tide", **index: Any) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    part = {"id": id, "type": "function", "function": function, **index}
    return {key: value for key, value in part.items() if value is not None}


ONE, TWO = '{"x": 1}', '{"x": 2}'
CALLS: dict[str, list[list[dict[str, Any]]]] = {
    "as OpenAI": [[_part("a", "", index=0)], [_part(None, ONE, None, index=0)], [_part("b", "", index=1)], [_part(None, TWO, None, index=1)]],
    "interleaved": [[_part("a", "", index=0)], [_part("b", "", index=1)], [_part(None, ONE, None, index=0)], [_part(None, TWO, None, index=1)]],
    "one index": [[_part("a", ONE, index=0)], [_part("b", TWO, index=0)]],
    "one index, in pieces": [[_part("a", "", index=0)], [_part(None, ONE[:3], None, index=0)], [_part(None, ONE[3:], None, index=0)], [_part("b", "", index=0)], [_part(None, TWO, None, index=0)]],
    "no index": [[_part("a", ONE)], [_part("b", TWO)]],
    "no index, in pieces": [[_part("a", "")], [_part(None, ONE, None)], [_part("b", "")], [_part(None, TWO, None)]],
    "null as index": [[_part("a", ONE) | {"index": None}, _part("b", TWO) | {"index": None}]],
    "in one piece": [[_part("a", ONE, index=0), _part("b", TWO, index=1)]],
    "in one piece of one index": [[_part("a", ONE, index=0), _part("b", TWO, index=0)]],
    "objects": [[_part("a", {"x": 1}, index=0)], [_part("b", {"x": 2}, index=1)]],
    "objects without index": [[_part("a", {"x": 1}), _part("b", {"x": 2})]],
    "ids in all pieces": [[_part("a", "", index=0)], [_part("a", ONE, None, index=0)], [_part("b", "", index=0)], [_part("b", TWO, None, index=0)]],
    "ids and names in all": [[_part("a", ONE[:4])], [_part("b", TWO[:4])], [_part("a", ONE[4:])], [_part("b", TWO[4:])]],
    "names in all": [[_part("a", "", index=0)], [_part(None, ONE[:4], index=0)], [_part(None, ONE[4:], index=0)], [_part("b", TWO, index=1)]],
    "empty ids later": [[_part("a", "", index=0)], [_part("", ONE, "", index=0)], [_part("b", "", index=1)], [_part("", TWO, "", index=1)]],
    "no ids": [[_part(None, ONE, index=0)], [_part(None, TWO, index=1)]],
    "no ids, one index": [[_part(None, ONE, index=0)], [_part(None, TWO, index=0)]],
    "no ids, no index": [[_part(None, ONE)], [_part(None, TWO)]],
    "neither, in one piece": [[_part(None, ONE), _part(None, TWO)]],
    "neither, objects": [[_part(None, {"x": 1}), _part(None, {"x": 2})]],
}  # fmt: skip


def _given(calls: Any) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["arguments"]) for call in calls]


@pytest.mark.parametrize("name", CALLS)
def test_parallel_tool_calls_are_told_apart(
    client: LLMBackendClient, official: openai.OpenAI, upstream: Upstream, name: str
) -> None:
    deltas = [{"tool_calls": parts} for parts in CALLS[name]]
    upstream.replies = [_stream(*deltas, reason="tool_calls")] * 2
    reply = _read(client, tools=TOOLS)
    assert _given(reply.tool_calls) == [("tide", {"x": 1}), ("tide", {"x": 2})]
    ids = [call.id for call in reply.tool_calls]
    assert all(ids)
    assert len(set(ids)) == 2
    assert ids == ["a", "b"] or "no ids" in name or "neither" in name
    # As LangChain and others join them: all text of one index.
    stream = official.chat.completions.create(
        model="ok", messages=[{"role": "user", "content": "x"}], stream=True
    )
    joined: dict[int, list[str]] = {}
    for chunk in stream:
        for part in chunk.choices[0].delta.tool_calls or ():
            call = joined.setdefault(part.index, ["", "", ""])
            assert part.function is not None
            for place, text in enumerate((part.id, part.function.name, part.function.arguments)):
                call[place] += text or ""
    assert [call[1:] for call in joined.values()] == [["tide", ONE], ["tide", TWO]]
    assert list(joined) == [0, 1]


@pytest.mark.parametrize("arguments", ["", None, {}, "{}"], ids=str)
def test_tools_without_arguments_are_called_with_none(
    client: LLMBackendClient, upstream: Upstream, arguments: Any
) -> None:
    calls = [
        {"id": None, "function": {"name": "tide", "arguments": arguments}},
        {"function": {"name": "moon", "arguments": arguments}},
    ]
    upstream.replies = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        _stream({"tool_calls": calls}),
    ]
    for reply in (client.chat("hello", tools=TOOLS), _read(client, tools=TOOLS)):
        assert _given(reply.tool_calls) == [("tide", {}), ("moon", {})]
        assert len({call.id for call in reply.tool_calls} - {""}) == 2
        results = [{"role": "tool", "tool_call_id": call.id, "content": "x"} for call in reply.tool_calls]
        assert client.chat([{"role": "user", "content": "hello"}, reply.message, *results])


# What goes back

BESIDE: dict[str, Any] = {
    "reasoning_content": "hm",
    "annotations": [{"type": "url_citation", "url_citation": {"url": "https://town.example", "title": "t"}}],
    "citations": ["https://town.example"],
    "extra_content": {"google": {"thought_signature": "sig"}},
    "provider_specific_fields": {"thought_signatures": ["sig"], "refusal": None},
    "reasoning_details": [{"type": "reasoning.encrypted", "data": "sig", "index": 0}],
    "search_results": [{"title": "t", "url": "https://town.example"}],
    "thinking_blocks": [{"type": "thinking", "thinking": "hm", "signature": "sig"}],
}  # fmt: skip


def test_every_field_of_replies_is_tried_here() -> None:
    assert set(OF_REPLIES) | {"reasoning_content"} == set(BESIDE)


@pytest.mark.parametrize("streamed", [False, True])
def test_what_a_server_put_into_its_message_goes_back_to_it(
    client: LLMBackendClient, upstream: Upstream, streamed: bool
) -> None:
    beside = {name: BESIDE[name] for name in ("extra_content", "provider_specific_fields")}
    call = {"id": "a", "type": "function", "function": {"name": "tide", "arguments": "{}"}, **beside}
    said = {"role": "assistant", "content": "Let me see.", "tool_calls": [call], **BESIDE}
    if streamed:
        deltas = [{name: value} for name, value in said.items() if name != "tool_calls"]
        upstream.replies = [_stream(*deltas, {"tool_calls": [{"index": 0, **call}]})]
        reply = _read(client, tools=TOOLS)
    else:
        upstream.replies = [said]
        reply = client.chat("hello", tools=TOOLS)
    assert reply.message == said
    turns = [{"role": "user", "content": "hello"}, reply.message]
    assert client.chat([*turns, {"role": "tool", "tool_call_id": "a", "content": "x"}])
    assert upstream.seen[-1]["messages"][1] == said


def test_what_is_null_or_empty_in_a_message_is_absent(server: str, upstream: Upstream) -> None:
    nothing = dict.fromkeys(
        [*BESIDE, "refusal", "audio", "function_call", "tool_calls", "name", "images", "parsed"]
    )
    empty = {"tool_calls": [], "annotations": [], "citations": [], "provider_specific_fields": {}}
    for message in (nothing, nothing | empty):
        turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "x", **message}]
        body = {"model": "ok", "messages": turns}
        reply = requests.post(
            f"{server}/v1/chat/completions", json=body, headers={"X-API-Key": SERVER_KEY}, timeout=30
        )
        assert reply.status_code == 200, reply.text
        assert upstream.seen[-1]["messages"][1] == {"role": "assistant", "content": "x"}


@pytest.mark.parametrize("model", [EmbedRequest, RerankRequest])
def test_null_is_absent(model: type[BaseModel]) -> None:
    given = {"input": "x"} if model is EmbedRequest else {"query": "x", "documents": ["y"]}
    optional = [name for name, field in model.model_fields.items() if not field.is_required()]
    assert optional
    nulls = model.model_validate_json(json.dumps({**given, **dict.fromkeys(optional)}))
    assert nulls == model.model_validate_json(json.dumps(given))


# Events

_CHUNKS = [
    _chunk({"role": "assistant", "content": "At "}),
    _chunk({"content": "ni"}),
    _chunk({"content": "ne."}, "stop"),
]
_USAGE = b'{"id": "1", "model": "ok", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2}}'
_ALL = [*_CHUNKS, _USAGE, b"[DONE]"]
DIALECTS: dict[str, bytes] = {
    "LF": b"".join(b"data: %b\n\n" % one for one in _ALL),
    "CRLF": b"".join(b"data: %b\r\n\r\n" % one for one in _ALL),
    "CR": b"".join(b"data: %b\r\r" % one for one in _ALL),
    "mixed": b"".join(b"data: %b\r\n\n" % one for one in _ALL),
    "BOM": b"\xef\xbb\xbf" + b"".join(b"data: %b\n\n" % one for one in _ALL),
    "BOM and a comment": b"\xef\xbb\xbf: hi\r\n\r\n" + b"".join(b"data: %b\r\n\r\n" % one for one in _ALL),
    "no space": b"".join(b"data:%b\n\n" % one for one in _ALL),
    "ids": b"".join(b"id: %d\ndata: %b\n\n" % (number, one) for number, one in enumerate(_ALL)),
    "names": b"".join(b"event: message\ndata: %b\nretry: 5\n\n" % one for one in _ALL),
    "comments": b": PROCESSING\n\n" + b"".join(b": ping\n\ndata: %b\n: x\n\n" % one for one in _ALL),
    "several lines": b"".join(b"data: %b\n\n" % one.replace(b", ", b",\ndata: ") for one in _ALL),
    "no last line": b"".join(b"data: %b\n\n" % one for one in _ALL).rstrip(),
    "no end": b"".join(b"data: %b\n\n" % one for one in [*_CHUNKS, _USAGE]),
    "neither": b"".join(b"data: %b\n\n" % one for one in [*_CHUNKS, _USAGE]).rstrip(),
    "blank lines": b"\n\n" + b"".join(b"data: %b\n\n\n\n" % one for one in _ALL),
    "error: null": b"".join(b"data: %b\n\n" % one.replace(b'"model"', b'"error": null, "model"') for one in _ALL),
    "choices: null": b'data: {"id": "1", "model": "ok", "choices": null}\n\n' + b"".join(b"data: %b\n\n" % one for one in _ALL),
    "empty data": b"data:\n\n" + b"".join(b"data: %b\n\n" % one for one in _ALL),
}  # fmt: skip


@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("name", DIALECTS)
def test_every_form_of_events_reads_the_same(
    client: LLMBackendClient, official: openai.OpenAI, upstream: Upstream, name: str, size: int
) -> None:
    sent = DIALECTS[name]
    if size == 1:  # cut anywhere, without sending each byte by itself
        events = Events()
        whole = b"".join(events.feed(sent[place : place + 1]) for place in range(len(sent))) + events.last()
        events = Events()
        assert whole == events.feed(sent) + events.last()
        return
    pieces = [sent[start : start + size] for start in range(0, len(sent), size)]
    upstream.replies = [pieces, pieces]
    reply = _read(client)
    assert (reply, reply.finish_reason, reply.usage.prompt_tokens) == ("At nine.", "stop", 3)
    stream = official.chat.completions.create(
        model="ok", messages=[{"role": "user", "content": "x"}], stream=True
    )
    assert "".join(one.delta.content or "" for chunk in stream for one in chunk.choices or ()) == "At nine."


ERROR = b'{"error": {"message": "out of memory", "code": 500}}'


@pytest.mark.parametrize(
    "form", [b"data: %b\n\n", b"event: error\ndata: %b\n\n", b"data:%b\r\n\r\n", b": x\n\ndata: %b\n\n"]
)
def test_an_error_in_a_stream_is_told(
    client: LLMBackendClient, official: openai.OpenAI, upstream: Upstream, form: bytes
) -> None:
    first = form % _CHUNKS[0]
    upstream.replies = [
        [form % ERROR],
        [first, form % ERROR],
        [first, form % ERROR],
        _completion({})[:0] + ERROR,
    ]
    with pytest.raises(LLMBackendError, match="out of memory"):
        _ = client.chat("hello", stream=True)
    with pytest.raises(StreamInterrupted, match="out of memory") as caught:
        list(client.chat("hello", stream=True))
    assert caught.value.text == "At "
    stream = official.chat.completions.create(
        model="ok", messages=[{"role": "user", "content": "x"}], stream=True
    )
    with pytest.raises(openai.APIError, match="out of memory"):
        list(stream)
    with pytest.raises(LLMBackendError, match="out of memory"):
        client.chat("hello")


def test_plain_events_pass_as_they_came() -> None:
    events = Events()
    events.feed(b"data: 0\n\n")
    piece = b'data: {"a": 1}\n\ndata: {"b": 2}\n\n'
    assert events.feed(piece) is piece


# Half a character

Call = Callable[[LLMBackendClient, str], Any]
HALF_CALLS: dict[str, Call] = {
    "chat": lambda c, text: c.chat(text),
    "history": lambda c, text: c.chat([{"role": "assistant", "content": text}, {"role": "user", "content": "x"}]),
    "embed": lambda c, text: c.embed([text, "y"]).numpy().tolist(),
    "search": lambda c, text: c.rag_search(text, "halves"),
    "query": lambda c, text: c.rag_query(text, "halves"),
    "ingest": lambda c, text: c.rag_ingest([{"id": "z", "text": text}], "halves").failed,
}  # fmt: skip


@pytest.mark.parametrize("name", HALF_CALLS)
def test_half_a_character_is_replaced(client: LLMBackendClient, upstream: Upstream, name: str) -> None:
    client.rag_ingest(DOCUMENTS, collection="halves")
    call = HALF_CALLS[name]
    assert call(client, "tide \ud83d") == call(client, "tide \ufffd")
    if name in ("chat", "history"):
        assert upstream.seen[-2] == upstream.seen[-1]
        call(client, "tide \ud83d\ude00")
        assert "tide \U0001f600" in str(upstream.seen[-1])


def test_a_document_with_half_a_character_has_a_warning(client: LLMBackendClient) -> None:
    report = client.rag_ingest([{"id": "a", "text": "tide \ud83d"}, {"id": "b", "text": "moon"}], "warned")
    assert (report.added, [one.id for one in report.warnings]) == (2, ["a"])
    assert "1 of its characters" in report.warnings[0].warning


def test_other_clients_may_send_half_a_character(server: str, upstream: Upstream) -> None:
    for text in ("\\ud83d", "\\ud83d" + " " * 100_000):
        body = f'{{"model": "ok", "messages": [{{"role": "user", "content": "\\\\ud83d \\ud83d\\ude00 {text}"}}]}}'
        headers = {"X-API-Key": SERVER_KEY, "Content-Type": "application/json"}
        reply = requests.post(f"{server}/v1/chat/completions", data=body, headers=headers, timeout=30)
        assert reply.status_code == 200, reply.text
        assert upstream.seen[-1]["messages"][0]["content"].rstrip() == "\\ud83d \U0001f600 \ufffd"


def test_a_reply_with_half_a_character_may_be_sent_back(client: LLMBackendClient, upstream: Upstream) -> None:
    upstream.replies = [_completion({"content": "nine \ud83d"}), _words("nine \ud83d", "\ude00 \ud83d")]
    for reply in (client.chat("hello"), client.chat("hello", stream=True)):
        if not isinstance(reply, Reply):
            list(reply)
            reply = reply.reply
        assert client.chat(
            [{"role": "user", "content": "hello"}, reply.message, {"role": "user", "content": "x"}]
        )
    assert upstream.seen[-1]["messages"][1]["content"] == "nine \U0001f600 \ufffd"
