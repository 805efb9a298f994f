"""Grounding a chat in passages: what a file search found goes before the question, and citations are checked."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any

from ..answers.citations import ANEW, Checked, citing_nothing
from ..answers.links import Inert, Links
from ..answers.passages import Passages
from ..inference.chat import ChatModel
from ..prompts import Prompt
from ..text.delimiters import delimited


async def grounded(
    chat: ChatModel, turns: Sequence[Mapping[str, Any]], passages: Passages, rules: Prompt
) -> tuple[list[dict[str, Any]], int]:
    """The messages with the passages before the user's last text, and the number of passages that fitted."""
    told = [dict(turn) for turn in turns]
    if not passages.sources:
        return told, 0
    texts = await passages.within((await chat.window()).passages)
    shown = "\n\n".join(
        delimited("passage", citing_nothing(text), number=number)
        for number, text in enumerate(texts, start=1)
    )
    before = f"{rules.text}\n\n{shown}\n\n"
    last = next(turn for turn in reversed(told) if turn["role"] == "user")
    if isinstance(last["content"], str):
        last["content"] = before + last["content"]
    else:
        last["content"] = [{"type": "text", "text": before}, *last["content"]]
    return told, len(texts)


class Cited:
    """A chat's chunks with their text checked: citations name existing passages, links and images are inert."""

    def __init__(self, chunks: AsyncIterator[dict[str, Any]], count: int, links: Links) -> None:
        self._chunks = chunks
        self._count = count
        self._shown = Inert(links)
        self._beside: list[dict[str, Any]] = []

    @property
    def cited(self) -> list[int]:
        return self._shown.cited

    async def chunks(self) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the chunks with their text checked."""

        checked = Checked(self._texts(), self._count)
        async with aclosing(checked.pieces()) as pieces:
            async for piece in pieces:
                if piece != ANEW and (text := self._shown.feed(piece)):
                    yield _saying(text)
                for chunk in self._taken():
                    yield chunk
        if rest := self._shown.feed("", last=True):
            yield _saying(rest)
        for chunk in self._taken():
            yield chunk

    async def _texts(self) -> AsyncGenerator[str, None]:
        """The chunks' text; the chunks without it are set aside for `_taken`."""
        async for chunk in self._chunks:
            text = ""
            for choice in (chunk.get("choices") or ())[:1]:
                delta = dict(choice.get("delta") or {})
                text = delta.pop("content", None) or ""
                chunk = {**chunk, "choices": [{**choice, "delta": delta}]}
            self._beside.append(chunk)
            if text:
                yield text

    def _taken(self) -> list[dict[str, Any]]:
        taken, self._beside = self._beside, []
        return taken


def _saying(text: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
