"""Has a chat model write the answer from the passages.

The model is told to cite them by number, and to say so if they do not answer the question.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from ..errors import BackendError
from ..inference.chat import ChatModel, total
from ..knowledge.retrieval.retrieval import NEXT_BEST, Retriever
from ..knowledge.retrieval.scope import Scope
from ..prompts import Prompt, prompt
from ..schemas import InstructedQuery, RagQueryRequest
from ..text.delimiters import as_data, delimited
from ..tracing import Clock
from .citations import NOT_THERE, Checked, citing_nothing
from .conversation import standalone
from .passages import Passages, number

_USER = "Passages:\n\n{passages}\n\nQuestion: {question}\nAnswer:"

REPLY_TOKENS = 256


async def by_model(
    chat: ChatModel, retriever: Retriever, scope: Scope, wanted: RagQueryRequest, clock: Clock
) -> Synthesis:
    """Search for an answer that the model will write. Only the question is embedded, so that the first token comes early."""
    question, usage = wanted.question, dict[str, int]()
    if wanted.history:
        with clock("rewrite"):
            question, usage = await standalone(chat, question, wanted.history)
    depth = NEXT_BEST if wanted.explain else 0
    candidates = await retriever.candidates(scope, question, clock=clock, depth=depth)
    with clock("quotes"):
        passages = await number(question, candidates)
    instructions = wanted.instructions if isinstance(wanted, InstructedQuery) else None
    return Synthesis(chat, passages, prompt("answer", wanted.collection), usage, instructions)


@dataclass
class Synthesis:
    chat: ChatModel
    passages: Passages
    told: Prompt
    usage: dict[str, int]
    instructions: str | None = None
    model: str = ""
    read: int = 0
    fit: float | None = None
    bar: float | None = None
    found: bool = False
    was_cut: bool = False

    @property
    def prompt(self) -> str | None:
        return self.told.label

    async def pieces(self) -> AsyncGenerator[str, None]:
        if not self.passages.sources:
            return
        window = await self.chat.window()
        texts = await self.passages.within(window.passages)
        self.read = len(texts)
        passages = "\n\n".join(
            delimited("passage", citing_nothing(text), number=number)
            for number, text in enumerate(texts, start=1)
        )
        question = as_data(citing_nothing(self.passages.question))
        silent = True
        async with aclosing(self._answer(_USER.format(passages=passages, question=question))) as answer:
            checked = Checked(answer, count=self.read)
            async for piece in checked.pieces():
                silent = False
                yield piece
        if silent and self.was_cut:  # the model has not said that the documents have no answer
            raise BackendError(
                f"{self.model or 'the chat model'} used all of its {REPLY_TOKENS} tokens for thinking, and gave no answer: "
                "turn its thinking off, or use another model",
                details={"backend": "chat"},
            )
        self.found = checked.found

    async def _answer(self, prompt: str) -> AsyncGenerator[str, None]:
        system = self.told.filled(nothing=NOT_THERE)
        if self.instructions:
            system = f"{system}\n\n{self.instructions}"
        request = {
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": prompt}],
            "max_tokens": REPLY_TOKENS,
            "temperature": 0.0,
            "stream_options": {"include_usage": True},
        }
        async with aclosing(self.chat.stream(request)) as chunks:
            async for chunk in chunks:
                self.model = chunk.get("model") or self.model
                self.usage = total(self.usage, chunk.get("usage"))
                for choice in chunk.get("choices") or ():
                    self.was_cut |= choice.get("finish_reason") == "length"
                    if piece := (choice.get("delta") or {}).get("content"):
                        yield piece
