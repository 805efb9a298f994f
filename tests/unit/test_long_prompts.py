"""The embedded chat model reads a long prompt in pieces, so that another's short one does not wait for all of it."""

from __future__ import annotations

import asyncio
import threading
from itertools import pairwise
from typing import Any

import pytest

from llmbackend.inference import local_chat, slots
from llmbackend.inference.local_chat import LocalChat
from llmbackend.inference.slots import _beginnings
from llmbackend.settings import Settings

LONG = " ".join(f"the {number}th word" for number in range(30))


class _Noted:
    """The model's server, which notes what it is asked."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.asked: list[dict[str, Any]] = []

    def handle_chat_completions(self, request: dict[str, Any], callback: Any) -> Any:
        self.asked.append(request)
        return self._server.handle_chat_completions(request, callback)


@pytest.fixture
def chat(monkeypatch: pytest.MonkeyPatch) -> LocalChat:
    monkeypatch.setattr(local_chat, "READ_ANEW", 100)
    return LocalChat(Settings().models_path, None, 2048)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_beginnings_grow_by_pieces_up_to_the_last() -> None:
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "ä" * 1000},
        {"role": "assistant", "content": None},
        {"role": "user", "content": "b" * 2000},
    ]
    found = list(_beginnings(messages))
    contents = ["".join(one["content"] or "" for one in beginning) for beginning in found]
    whole = "".join(one["content"] or "" for one in messages)
    assert all(whole.startswith(one) for one in contents)
    sizes = [len(one.encode()) for one in ["", *contents, whole]]
    steps = [after - before for before, after in pairwise(sizes)]
    assert all(slots.PIECE <= step < slots.PIECE + 200 for step in steps[:-1])
    assert 0 < steps[-1] < 2 * slots.PIECE
    assert not list(_beginnings([{"role": "user", "content": "a" * slots.PIECE}]))
    assert list(_beginnings(messages, 1009)) == [[*messages[:3], {**messages[3], "content": "b" * 800}]]
    assert not list(_beginnings(messages, 2500))


@pytest.mark.anyio
async def test_a_long_prompt_is_read_in_pieces_in_one_slot(
    chat: LocalChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "PIECE", 100)
    noted = chat.__dict__["_server"] = _Noted(chat._server)
    reply = await chat.complete({"messages": [{"role": "user", "content": LONG}], "max_tokens": 2})
    *pieces, last = noted.asked
    assert len(pieces) >= 2
    assert {one["id_slot"] for one in noted.asked} == {last["id_slot"]}
    assert reply["usage"]["prompt_tokens"] > 120
    assert reply["usage"]["prompt_tokens_details"]["cached_tokens"] > 80
    noted.asked.clear()
    asked = [
        {"role": "user", "content": LONG},
        reply["choices"][0]["message"],
        {"role": "user", "content": "Go on."},
    ]
    again = await chat.complete({"messages": asked, "max_tokens": 2})
    [only] = noted.asked
    assert only["id_slot"] == last["id_slot"]
    assert again["usage"]["prompt_tokens_details"]["cached_tokens"] >= reply["usage"]["prompt_tokens"] - 5
    await chat.close()


@pytest.mark.anyio
async def test_reading_ends_when_the_caller_leaves(chat: LocalChat, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "PIECE", 80)
    server, reading = chat._server, threading.Event()
    noted = chat.__dict__["_server"] = _Noted(server)
    asked = noted.handle_chat_completions

    def told(request: dict[str, Any], callback: Any) -> Any:
        reading.set()
        return asked(request, callback)

    monkeypatch.setattr(noted, "handle_chat_completions", told)
    leaving = asyncio.create_task(
        chat.complete({"messages": [{"role": "user", "content": LONG}], "max_tokens": 2})
    )
    await asyncio.to_thread(reading.wait, 20)
    leaving.cancel()
    await asyncio.wait([leaving])
    await chat.close()
    assert len(noted.asked) < 5
    assert all(one["max_tokens"] == 1 for one in noted.asked)
