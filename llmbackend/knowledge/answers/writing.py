"""Who writes the answer: a model, or nobody: the best quotes are it.

A model is asked to cite the passages by number, and to say so where they do not tell. One that can only copy, such as
the small embedded one, is not asked. Its own words had the fact in 13 of 22 questions on the demo's documents, its
best quotes in 19.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Protocol

from ... import threads
from ...errors import BackendError
from ...inference.chat import ChatModel, total
from ...prompts import Prompt
from .citations import NOT_THERE, Checked, citing_nothing, mark
from .delimiters import as_data, delimited
from .passages import Passages, within
from .reading import Reading

_USER = "Passages:\n\n{passages}\n\nQuestion: {question}\nAnswer:"

REPLY_TOKENS = 256

QUOTES = "quotes"
"""The model of an answer that is made of stretches of the documents."""
OWN_WORDS = "In the documents' own words:"
CLOSEST = "There is nothing certain on this in the collection. The closest passages:"


class Writer(Protocol):
    model: str
    usage: dict[str, int]
    read: int
    """How many of the passages were read."""
    found: bool
    """Whether the passages tell."""
    fit: float | None
    """How well they fit, where that decides."""
    prompt: str | None
    """What the model was told, by name and version."""
    bar: float | None
    """From which fit on they count as telling."""

    def pieces(self) -> AsyncGenerator[str, None]:
        """The answer, piecewise, with its citations marked. What the above tell is known at its end."""


class Quotation:
    """The stretches that answer the question, or come closest to it, in the documents' own words."""

    def __init__(self, reading: Reading) -> None:
        self.model = QUOTES
        self.usage: dict[str, int] = {}
        self.read = len(reading.passages.sources)
        self.fit: float | None = reading.fit
        self.bar: float | None = reading.bar
        self.found = reading.found
        self.prompt: str | None = None
        self._reading = reading

    async def pieces(self) -> AsyncGenerator[str, None]:
        stretches = self._reading.stretches
        if not stretches:
            return
        if self.found:
            yield OWN_WORDS
        else:
            missing = ", ".join(map(citing_nothing, self._reading.missing))
            yield f"No passage has {missing}. {CLOSEST}" if missing else CLOSEST
        for source, text in stretches:
            # What does not answer is no evidence, and is not cited.
            number = mark(source + 1) if self.found else f"(source {source + 1})"
            space = (
                "\n\n" if text.splitlines()[-1].startswith("|") else " "
            )  # a table's row ends with its cells
            yield f"\n\n{citing_nothing(text)}{space}{number}"


class Synthesis:
    """The words of a model that has read the passages."""

    def __init__(self, chat: ChatModel, passages: Passages, told: Prompt) -> None:
        self._told = told
        self.prompt: str | None = told.label
        self.model = ""
        self.usage: dict[str, int] = {}
        self.read = 0
        self.fit: float | None = None
        self.bar: float | None = None
        self.found = False
        self._was_cut = False
        self._chat = chat
        self._passages = passages

    async def pieces(self) -> AsyncGenerator[str, None]:
        if not self._passages.sources:
            return
        window = await self._chat.window()
        texts = await threads.processor(within, self._passages, window.passages)
        self.read = len(texts)
        passages = "\n\n".join(
            delimited("passage", citing_nothing(text), number=number)
            for number, text in enumerate(texts, start=1)
        )
        question = as_data(citing_nothing(self._passages.question))
        silent = True
        async with aclosing(self._answer(_USER.format(passages=passages, question=question))) as answer:
            checked = Checked(answer, count=self.read)
            async for piece in checked.pieces():
                silent = False
                yield piece
        if silent and self._was_cut:  # which is not to say that there is nothing in the documents
            raise BackendError(
                f"{self.model or 'the chat model'} thought for all of its {REPLY_TOKENS} tokens and answered nothing: "
                "switch its thinking off, or use another model",
                details={"backend": "chat"},
            )
        self.found = checked.found

    async def _answer(self, prompt: str) -> AsyncGenerator[str, None]:
        system = self._told.filled(nothing=NOT_THERE)
        request = {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
            "max_tokens": REPLY_TOKENS,
            "temperature": 0.0,
            "stream_options": {"include_usage": True},
        }
        async with aclosing(self._chat.stream(request)) as chunks:
            async for chunk in chunks:
                self.model = chunk.get("model") or self.model
                self.usage = total(self.usage, chunk.get("usage"))
                for choice in chunk.get("choices") or ():
                    self._was_cut |= choice.get("finish_reason") == "length"
                    if piece := (choice.get("delta") or {}).get("content"):
                        yield piece
