"""A question into an answer: find passages, number and quote them, have them answer, tell how that came about."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from ..errors import BackendError, StreamInterrupted
from ..inference.chat import ChatModel
from ..inference.embeddings import Embedder
from ..schemas import Candidate, Explanation, Message, QueryAnswer, Source
from .citations import cited
from .conversation import last_question, standalone
from .passages import Look, Passages, number
from .writing import writer

NOTHING_FOUND = "There is nothing on this in the collection."


async def answer(
    chat: ChatModel,
    embedder: Embedder,
    question: str,
    look: Look,
    *,
    history: Sequence[Message] = (),
    explain: bool = False,
) -> QueryAnswer:
    """An answer to a question from the passages that `look` finds; `found` is False where they do not tell.

    A question that leans on a conversation's `history` is made to stand alone first.
    """
    sources: list[dict[str, Any]] = []
    answered: dict[str, Any] = {}
    try:
        async for event in stream(chat, embedder, question, look, history=history, explain=explain):
            sources = event.get("sources", sources)
            answered = event.get("answer", answered)
    except StreamInterrupted as error:  # to a caller who did not ask for a stream, a failure like others
        raise BackendError(error.message, details=error.details) from error
    return QueryAnswer(**answered, sources=[Source(**source) for source in sources])


async def stream(
    chat: ChatModel,
    embedder: Embedder,
    question: str,
    look: Look,
    *,
    history: Sequence[Message] = (),
    explain: bool = False,
) -> AsyncIterator[dict[str, Any]]:
    """The same piecewise: `{"sources": […]}`, any number of `{"delta": text}`, then `{"answer": {…}}` with the rest.

    The sources come first, for a person to read while the answer is being written.
    """
    clock = Clock()
    usage: dict[str, int] = {}
    if history and chat.abstracts:
        with clock("rewrite"):
            question, usage = await standalone(chat, question, history)
    passages = await _find(embedder, question, look, clock)
    if history and not chat.abstracts and not passages.answer:
        # Nobody can rewrite it: the question before may hold what this one leaves unsaid.
        passages = await _find(embedder, f"{last_question(history)} {question}".strip(), look, clock)
    yield {"sources": [source.model_dump() for source in passages.sources]}
    written = writer(chat, passages)
    text = ""
    with clock("answer"):
        async with aclosing(written.pieces()) as pieces:
            async for piece in pieces:
                text += piece
                yield {"delta": piece}
    found = bool(text)
    if not found:
        text = NOTHING_FOUND
        yield {"delta": text}
    for name, count in written.usage.items():
        usage[name] = usage.get(name, 0) + count
    whole = {"answer": text, "found": found, "citations": cited(text), "model": written.model, "usage": usage}
    if explain:
        whole["explanation"] = _explained(passages, written.read, usage, clock).model_dump()
    yield {"answer": whole}


async def _find(embedder: Embedder, question: str, look: Look, clock: Clock) -> Passages:
    with clock("search"):
        hits = await look(question)
    with clock("quotes"):
        return await number(embedder, question, hits)


def _explained(passages: Passages, read: int, usage: dict[str, int], clock: Clock) -> Explanation:
    best = passages.best
    return Explanation(
        question=passages.question,
        candidates=[
            Candidate(
                number=source.number,
                collection=source.collection,
                document_id=source.document_id,
                chunk=source.chunk,
                score=source.score,
                quote_score=round(best[index].score, 4),
                read=index < read,
            )
            for index, source in enumerate(passages.sources)
        ],
        prompt_tokens=usage.get("prompt_tokens", 0),
        ms={step: round(ms, 2) for step, ms in clock.ms.items()},
    )


class Clock:
    """How many milliseconds each step took."""

    def __init__(self) -> None:
        self.ms: dict[str, float] = {}

    @contextmanager
    def __call__(self, step: str) -> Iterator[None]:
        began = time.perf_counter()
        try:
            yield
        finally:
            self.ms[step] = self.ms.get(step, 0.0) + (time.perf_counter() - began) * 1000
