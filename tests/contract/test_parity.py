"""Bad and odd calls have the same outcome on both transports."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import IntEnum, StrEnum
from typing import Any

import numpy as np
import pytest

from llmbackend import InvalidRequest, LLMBackendClient, LLMBackendError, NotFound

Call = Callable[[Any], Any]
NAME = "parity"
LONG = "x" * 5000
DEEP: list[Any] = []
for _ in range(5000):
    DEEP = [DEEP]


class Word(StrEnum):
    YES = "yes"


class Number(IntEnum):
    SHORT = 64


OBJECT = object()
"""One for both: an error names it with its address."""

CALLS: dict[str, Call] = {
    "chat: an empty text": lambda c: c.chat(""),
    "chat: white space": lambda c: c.chat(" \n", system="Be brief."),
    "submit_job: a misspelt type": lambda c: c.submit_job("batch-embd", {"texts": ["a"]}),
    "get_document: the other order": lambda c: c.get_document(NAME, "a.md"),
    "list_collections: a field without a name": lambda c: c._call("list_collections", **{"": 1}),
    "chat: a field without a name": lambda c: c.chat([{"role": "user", "content": "a", "": 1}]),
    "embed: a number": lambda c: c.embed([1]),
    "embed: nothing": lambda c: c.embed([]),
    "embed: an object": lambda c: c.embed([OBJECT]),
    "embed: not a number": lambda c: c.embed([float("nan")]),
    "embed: bytes": lambda c: c.embed([b"abc"]),
    "embed: a bare text": lambda c: list(c.embed("abc")),
    "embed: NUL": lambda c: list(c.embed(["a\0b"])),
    "embed: a lone surrogate": lambda c: list(c.embed(["\ud800"])),
    "embed: a character in two halves": lambda c: list(c.embed(["\ud83d", "\ude00"])),
    "embed: a text and None": lambda c: c.embed(["a", None]),
    "embed: a text and a number": lambda c: c.embed(["a", 1]),
    "embed: a text and an object": lambda c: c.embed(["a", OBJECT]),
    "embed: a text and bytes": lambda c: c.embed(["a", b"b"]),
    "embed: a text and an empty one": lambda c: c.embed(["a", ""]),
    "embed: a tuple of texts": lambda c: list(c.embed(("a", "b"))),
    "embed: a deque of texts": lambda c: list(c.embed(deque(["a", "b"]))),
    "embed: texts of another class": lambda c: list(c.embed([Word.YES, np.str_("b"), "c"])),
    "embed: a mapping": lambda c: c.embed({"a": "b"}),
    "embed: None": lambda c: c.embed(None),
    "embed: a number as texts": lambda c: c.embed(1),
    "embed: a number as model": lambda c: c.embed(["a"], model=1),
    "embed: a model's name of another class": lambda c: c.embed(["a"], model=Word.YES),
    "embed: True as dimensions": lambda c: c.embed(["a"], dimensions=True),
    "embed: dimensions of another class": lambda c: list(c.embed(["a"], dimensions=Number.SHORT)),
    "embed: not a number as dimensions": lambda c: c.embed(["a"], dimensions=float("nan")),
    "embed: dimensions beyond 64 bits": lambda c: c.embed(["a"], dimensions=10**30),
    "embed: dimensions beyond all bounds": lambda c: c.embed(["a"], dimensions=10**5000),
    "embed: a list as too_long": lambda c: c.embed(["a"], too_long=["split"]),
    "embed: too many at once": lambda c: c._call("embed", input=["a"] * 2049),
    "embed: an unknown way to write vectors": lambda c: c._call("embed", input=["a"], encoding_format="hex"),
    "embed: letters beyond ASCII": lambda c: list(c.embed(["Größe", "大きさ", 'a\n"\\\x7f\u2028'])),
    "embed: emoji": lambda c: list(c.embed(["👩‍👩‍👧‍👦"])),
    "embed: an unknown field": lambda c: c._call("embed", input=["a"], colour="red"),
    "embed: a numpy array of texts": lambda c: list(c.embed(np.array(["a", "b"]))),
    "embed: token ids and a text": lambda c: c.embed([[1], "a"]),
    "embed: no token ids": lambda c: c.embed([[]]),
    "embed: negative token ids": lambda c: c.embed([-1]),
    "embed: a fraction as dimensions": lambda c: c.embed(["a"], dimensions=64.5),
    "embed: no dimensions": lambda c: c.embed(["a"], dimensions=0),
    "embed: a numpy integer as dimensions": lambda c: list(c.embed(["a"], dimensions=np.int64(64))),
    "embed: a number as too_long": lambda c: c.embed(["a"], too_long=5),
    "chat: nothing": lambda c: c.chat([]),
    "chat: a wrong role": lambda c: c.chat([{"role": "pope", "content": "x"}]),
    "chat: a wrong temperature": lambda c: c.chat("x", temperature=3),
    "chat: an infinite temperature": lambda c: c.chat("x", temperature=float("inf")),
    "chat: a text as max_tokens": lambda c: c.chat("x", max_tokens="5"),
    "chat: a numpy integer": lambda c: c.chat("x", max_tokens=np.int64(0)),
    "chat: streamed and wrong": lambda c: c.chat("x", max_tokens=0, stream=True),
    "chat: rag without a name": lambda c: c.chat("x", model="rag/"),
    "chat: an agent as model": lambda c: c.chat("x", model="agent/researcher"),
    "chat: an empty question to rag": lambda c: c.chat("", model=f"rag/{NAME}"),
    "chat: nothing as images": lambda c: len(c.chat("x", images=[], max_tokens=1)) > 0,
    "chat: no image": lambda c: c.chat("x", images=[b"abc"]),
    "chat: a number as an image": lambda c: c.chat("x", images=[7]),
    "chat: a text as tools": lambda c: c.chat("x", tools="tide"),
    "chat: a number as tool_choice": lambda c: c.chat("x", tool_choice=1),
    "chat: a text as seed": lambda c: c.chat("x", seed="1"),
    "chat: a number as stop": lambda c: c.chat("x", stop=1),
    "chat: a wrong top_p": lambda c: c.chat("x", top_p=2),
    "chat: a text as schema": lambda c: c.chat("x", schema="object"),
    "chat: a class as schema": lambda c: c.chat("x", schema=dict),
    "chat: no schema": lambda c: c.chat("x", schema={"type": ["strnig"]}),
    "chat: a schema that refers elsewhere": lambda c: c.chat("x", schema={"$ref": "http://127.0.0.1:9/"}),
    "chat: a deeply nested schema": lambda c: c.chat("x", schema={"const": DEEP}),
    "chat: a huge integer in a schema": lambda c: c.chat("x", schema={"minItems": 10**30, "type": "strnig"}),
    "chat: a schema, streamed": lambda c: c.chat("x", schema={}, stream=True),
    "chat: a schema for rag": lambda c: c.chat("x", schema={}, model=f"rag/{NAME}"),
    "ingest: nothing": lambda c: c.rag_ingest([], NAME),
    "ingest: a number": lambda c: c.rag_ingest([1], NAME),
    "ingest: an unknown key": lambda c: c.rag_ingest({"id": "a", "text": "b", "url": "c"}, NAME),
    "ingest: a very long id": lambda c: c.rag_ingest({"id": LONG, "text": "b"}, NAME),
    "ingest: NUL": lambda c: c.rag_ingest({"id": "a\0", "text": "b\0", "metadata": {"\0": "\0"}}, NAME),
    "ingest: a lone surrogate": lambda c: c.rag_ingest("\udfff", NAME),
    "ingest: emoji": lambda c: c.rag_ingest({"id": "🦆", "text": "🦆", "metadata": {"🦆": "🦆"}}, NAME),
    "ingest: NaN in metadata": lambda c: c.rag_ingest(
        {"id": "a", "text": "b", "metadata": {"n": float("nan")}}, NAME
    ),
    "ingest: numpy in metadata": lambda c: c.rag_ingest(
        {"id": "n", "text": "b", "metadata": {"n": np.float32(0.5), "v": np.arange(3)}}, NAME
    ),
    "ingest: deeply nested metadata": lambda c: c.rag_ingest(
        {"id": "a", "text": "b", "metadata": {"n": DEEP}}, NAME
    ),
    "ingest: a set": lambda c: c.rag_ingest({"id": "a", "text": "b", "metadata": {"n": {1, 2}}}, NAME),
    "ingest: a text as sync": lambda c: c.rag_ingest("a", NAME, sync="yes"),
    "ingest: a huge integer": lambda c: c.rag_ingest(
        {"id": "huge", "text": "b", "metadata": {"n": 10**30}}, NAME
    ),
    "search: an enormous top_k": lambda c: c.rag_search("x", NAME, top_k=10**9),
    "search: top_k beyond 64 bits": lambda c: c.rag_search("x", NAME, top_k=10**30),
    "search: a numpy top_k": lambda c: len(c.rag_search("x", NAME, top_k=np.int32(1))),
    "search: a fraction as top_k": lambda c: c.rag_search("x", NAME, top_k=1.5),
    "search: True as top_k": lambda c: c.rag_search("x", NAME, top_k=True),
    "search: NUL": lambda c: len(c.rag_search("\0", NAME)),
    "search: a wrong filter": lambda c: c.rag_search("x", NAME, filters={"a": {"b": 1}}),
    "search: a huge integer in a filter": lambda c: c.rag_search("x", NAME, filters={"n": 10**30}),
    "search: a list as filters": lambda c: c.rag_search("x", NAME, filters=["a"]),
    "search: too many collections": lambda c: c.rag_search("x", [NAME] * 33),
    "search: an infinite min_score": lambda c: c.rag_search("x", NAME, min_score=float("inf")),
    "search: a numpy min_score": lambda c: c.rag_search("x", NAME, min_score=np.float32(5)),
    "search: a number as rerank": lambda c: c.rag_search("x", NAME, rerank=2),
    "evaluate: nothing": lambda c: c.evaluate(NAME, []),
    "evaluate: a text": lambda c: c.evaluate(NAME, "x"),
    "evaluate: a mapping": lambda c: c.evaluate(NAME, {"question": "x", "gold": "y"}),
    "evaluate: unknown gold": lambda c: c.evaluate(NAME, [{"question": "x", "gold": "y"}]),
    "evaluate: a fraction as k": lambda c: c.evaluate(NAME, [{"question": "x", "gold": "y"}], k=2.5),
    "evaluate: a graded fraction": lambda c: c.evaluate(NAME, [{"question": "x", "gold": {"y": 0.5}}]),
    "evaluate: a tuple as gold": lambda c: c.evaluate(NAME, [{"question": "x", "gold": ("y", "z")}]),
    **{
        f"query: {text!r}": lambda c, text=text: len(c.rag_query(text, NAME))
        for text in (" ", "\n", "\xa0", "\u200b", "\0", "\ufffd", "???", "😀", "—")
    },
    "search: white space": lambda c: c.rag_search(" ", NAME),
    "query: streamed and unknown": lambda c: c.rag_query("x", "nowhere", stream=True),
    "documents: limit 0": lambda c: c._call("list_documents", collection=NAME, limit=0),
    "documents: a fraction as limit": lambda c: c.list_documents(NAME, limit=2.5),
    "documents: a text as limit": lambda c: len(c.list_documents(NAME, limit="2")),
    "documents: an unknown field": lambda c: c._call("list_documents", collection=NAME, colour="red"),
    "documents: a lone surrogate as cursor": lambda c: c._call(
        "list_documents", collection=NAME, cursor="\ud800"
    ),
    "documents: a number as collection": lambda c: c.list_documents(7),
    "documents: None as collection": lambda c: c.get_collection(None),
    "delete: nothing": lambda c: c.delete_documents(NAME, []),
    "delete: a long id": lambda c: c.delete_documents(NAME, [LONG]),
    "delete: an unknown field": lambda c: c._call("delete_documents", collection=NAME, ids=["a"], x=1),
    "collection: a lone surrogate": lambda c: c.get_collection("\ud800"),
    "collection: dots": lambda c: c.get_collection(".."),
    "collection: a slash": lambda c: c.get_collection("a/b/c"),
    "collection: empty": lambda c: c.get_collection(""),
    "collection: percent": lambda c: c.get_collection("a%2fb"),
    "model: a lone surrogate": lambda c: c.get_model("\ud800"),
    "model: dots": lambda c: c.get_model(".."),
    "model: dots between slashes": lambda c: c.get_model("rag/../x"),
    "model: slashes around": lambda c: c.get_model("//rag//"),
    "model: empty": lambda c: c.get_model(""),
    "model: percent": lambda c: c.get_model("rag%2fx"),
    "model: a question mark": lambda c: c.get_model("a?b#c"),
    "model: None": lambda c: c.get_model(None),
    "collections: an unknown field": lambda c: c._call("list_collections", colour="red"),
    "analyze: a number": lambda c: c.analyze_document(5),
    "jobs: limit 0": lambda c: c.list_jobs(limit=0),
    "jobs: True as limit": lambda c: c.list_jobs(limit=True),
    "jobs: a numpy limit": lambda c: len(c.list_jobs(limit=np.int64(1))) <= 1,
    "jobs: a long id": lambda c: c.get_job_status(LONG),
    "jobs: dots as id": lambda c: c.get_job_status(".."),
    "jobs: a list as params": lambda c: c.submit_job("batch_embed", ["a"]),
    "jobs: NUL as type": lambda c: c.submit_job("\0", {}),
    "jobs: NUL as filter": lambda c: c.list_jobs(job_type="\0"),
    "cancel: an unknown field": lambda c: c._call("cancel_job", job_id="x", colour="red"),
    "doctor: an unknown field": lambda c: c._call("doctor", colour="red"),
    "health: an unknown field": lambda c: c._call("health", colour="red"),
}


@pytest.fixture(scope="module")
def both(_local: LLMBackendClient, _http: LLMBackendClient) -> tuple[LLMBackendClient, LLMBackendClient]:
    """Both clients, each with the same small collection NAME."""
    for client in (_local, _http):
        client.rag_ingest(["alpha", "beta"], NAME)
    return _local, _http


def outcome(client: LLMBackendClient, call: Call) -> Any:
    """What a call returns, or the class, code, message and details of its error."""
    try:
        return call(client)
    except LLMBackendError as error:
        return type(error), error.code, error.message, error.details


@pytest.mark.parametrize("name", CALLS)
def test_both_transports_agree(both: tuple[LLMBackendClient, LLMBackendClient], name: str) -> None:
    local, http = (outcome(client, CALLS[name]) for client in both)
    assert local == http


@pytest.mark.parametrize("name", CALLS)
def test_no_odd_call_is_unforeseen(both: tuple[LLMBackendClient, LLMBackendClient], name: str) -> None:
    for client in both:
        with suppress(InvalidRequest, NotFound):
            CALLS[name](client)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda client: client.rag_query(None, "hr"), "question: is missing, or None"),
        (lambda client: client.rag_search("", "hr"), "query: is empty"),
        (lambda client: client.rag_search("leave", None), "collection: is missing, or None"),
        (lambda client: client.submit_job(None, {}), "job_type: is missing, or None"),
        (lambda client: client.submit_job("batch_embed", {}), "texts: is missing, or None"),
    ],
)
def test_what_is_missing_is_told_in_words(client: LLMBackendClient, call: Any, said: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        call(client)
    assert said in caught.value.message
