"""The slots of llama.cpp, which keep the conversations that they have read, and long prompts, which are read in pieces."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

PIECE = 800
"""Bytes of a prompt that are read at once, about 200 tokens. llama.cpp would read 2,048 tokens before it goes on with any
other reply, which takes half a minute on a busy machine. Reading in pieces costs 5 % more."""

MOST_READ = 4
"""Bytes for each token of the context; a longer prompt hardly fits, and would be refused only when all that fits is read."""

STRETCH = 80
"""Characters by which a prompt is measured."""


class Slots:
    """The slots of one server, taken by chats in threads of their own, of which there are as many."""

    def __init__(self, count: int, context: int) -> None:
        """`context` is the tokens of each slot."""
        self._context = context
        self._free = dict.fromkeys(range(count), "")
        """The free slots, the least recently used first, and the conversation that each has read."""
        self._others_first = threading.Condition()
        self._writing = 0
        """How many chats are at work, other than those that read a long prompt."""

    @contextmanager
    def taken(self, messages: list[dict[str, Any]]) -> Iterator[tuple[int, int]]:
        """A slot of llama.cpp for a chat alone, and how many characters of the messages it has read already."""
        said = "".join(_text(one) for one in messages)
        with self._others_first:
            shared = {
                slot: len(os.path.commonprefix([said, last]))  # noqa: RUF071 - of characters
                for slot, last in self._free.items()
            }
            slot = max(shared, key=lambda one: shared[one])  # there are as many as threads
            del self._free[slot]
        try:
            yield slot, shared[slot]
        finally:
            with self._others_first:
                self._free[slot] = said

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Wrap the writing of a reply, for which those that read a long prompt wait."""
        with self._others_first:
            self._writing += 1
        try:
            yield
        finally:
            with self._others_first:
                self._writing -= 1
                self._others_first.notify_all()

    def read(self, server: Any, request: dict[str, Any], known: int, stopped: threading.Event | None) -> bool:
        """Read a long prompt in pieces, between which a shorter chat has its turn, for as long as a piece took at most.

        Returns False if it was stopped. If a piece is refused, such as by the model's template, the prompt is read at once.
        """
        size = sum(len(_text(one).encode(errors="replace")) for one in request["messages"])
        if size > MOST_READ * self._context:
            return True
        shown = {"messages", "tools", "chat_template_kwargs", "id_slot"}
        asked = {name: value for name, value in request.items() if name in shown}
        asked |= {"max_tokens": 1, "temperature": 0.0, "cache_prompt": True}
        for messages in _beginnings(request["messages"], known):
            if stopped is not None and stopped.is_set():
                return False
            began = time.monotonic()
            try:
                read = server.handle_chat_completions({**asked, "messages": messages}, None) or {}
            except (ValueError, RuntimeError):
                break
            if "error" in read:
                break
            with self._others_first:
                self._others_first.wait_for(lambda: not self._writing, time.monotonic() - began)
        return True


def _text(message: dict[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""


def _beginnings(messages: list[dict[str, Any]], known: int = 0) -> Iterator[list[dict[str, Any]]]:
    """Yield longer and longer beginnings of a conversation, each by a PIECE, of which `known` characters are read; none if
    the rest is short."""
    read = 0
    left = sum(len(_text(one)) for one in messages)
    begun = left - known
    for number, message in enumerate(messages):
        content = _text(message)
        for place in range(0, len(content), STRETCH):
            stretch = content[place : place + STRETCH]
            left -= len(stretch)
            if left >= begun:
                continue
            read += len(stretch.encode(errors="replace"))
            if read >= PIECE and left > PIECE // 2:
                read = 0
                yield [*messages[:number], {**message, "content": content[: place + STRETCH]}]
