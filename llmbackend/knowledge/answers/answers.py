"""A question into an answer: find passages, number and quote them, have them answer, tell how that came about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from functools import partial
from typing import Any

from ...errors import BackendError, StreamInterrupted
from ...inference.chat import ChatModel, total
from ...inference.embeddings import Embedder
from ...prompts import prompt
from ...schemas import Candidate, Explanation, QueryAnswer, RagQueryRequest, Source
from ...tracing import Clock
from ..retrieval.retrieval import NEXT_BEST, Retriever
from .citations import ANEW
from .conversation import last_question, standalone
from .links import Inert, Links
from .passages import Passages, number
from .reading import DENSE_WEIGHT, READ, Reading, orders, read
from .writing import Quotation, Synthesis, Writer

NOTHING_FOUND = "There is nothing on this in the collection."
SHOWN = 200  # letters of a passage that an explanation shows


async def stream(
    chat: ChatModel,
    sifter: Embedder | None,
    retriever: Retriever,
    wanted: RagQueryRequest,
    *,
    links: Links = "host",
) -> AsyncIterator[dict[str, Any]]:
    """An answer to a question from the passages that are found for it; `found` is False where they do not tell.

    It comes piecewise: `{"sources": […]}`, for a person to read while the answer is being written, any number of
    `{"delta": text}`, then `{"answer": {…}}` with the rest. A question that leans on a conversation's `history` is made
    to stand alone first. The `sifter` looks through sentences, for quotes.
    """
    question, history = wanted.question, wanted.history or ()
    clock = Clock()
    usage: dict[str, int] = {}
    written: Writer
    if chat.abstracts:
        if history:
            with clock("rewrite"):
                question, usage = await standalone(chat, question, history)
        shown_at_least = NEXT_BEST if wanted.explain else 0
        candidates = await retriever.candidates(
            wanted, question, clock=clock, depth=shown_at_least, judged=True
        )
        with clock("quotes"):
            passages = await number(sifter, question, candidates)
        written = Synthesis(chat, passages, prompt("answer", wanted.collection))
    else:
        assert sifter is not None, "the embedded models come together"
        reading = await _read(sifter, retriever, wanted, question, clock)
        if history and not reading.found:
            # Nobody can rewrite it: the question before may hold what this one leaves unsaid.
            question = f"{last_question(history)} {question}".strip()
            reading = await _read(sifter, retriever, wanted, question, clock)
        passages, written = reading.passages, Quotation(reading)
    yield {"sources": [source.model_dump() for source in passages.sources]}
    text = ""
    shown = Inert(links)
    with clock("answer"):
        async with aclosing(written.pieces()) as pieces:
            async for piece in pieces:
                if piece == ANEW:  # what has come as deltas is told, but no part of the answer
                    text, shown = "", Inert(links)
                elif piece := shown.feed(piece):
                    text += piece
                    yield {"delta": piece}
    if rest := shown.feed("", last=True):
        text += rest
        yield {"delta": rest}
    found = written.found and bool(text.strip())
    if not text.strip():
        text += NOTHING_FOUND
        yield {"delta": NOTHING_FOUND}
    usage = total(usage, written.usage)
    told = {
        "answer": text,
        "found": found,
        "citations": shown.cited if found else [],
        "model": written.model,
        "usage": usage,
    }
    if wanted.explain:
        notes = await retriever.unmet(wanted)
        told["explanation"] = _explained(passages, written, found, usage, clock, notes)
    yield {"answer": told}


async def whole(events: AsyncIterator[dict[str, Any]]) -> QueryAnswer:
    """What comes of a stream."""
    sources: list[dict[str, Any]] = []
    answered: dict[str, Any] = {}
    try:
        async for event in events:
            sources = event.get("sources", sources)
            answered = event.get("answer", answered)
    except StreamInterrupted as error:  # to a caller who did not ask for a stream, a failure like others
        raise BackendError(error.message, details=error.details) from error
    return QueryAnswer(**answered, sources=[Source(**source) for source in sources])


async def _read(
    sifter: Embedder, retriever: Retriever, wanted: RagQueryRequest, question: str, clock: Clock
) -> Reading:
    # Not in the judge's order: that comes from reading them sentence by sentence.
    find = partial(retriever.candidates, wanted, question, clock=clock, depth=max(READ, NEXT_BEST))
    candidates = await find()
    if orders(retriever.judge, question, candidates):
        candidates = await find(least_weight=DENSE_WEIGHT)
    with clock("quotes"):
        return await read(sifter, retriever.judge, question, candidates, wanted.top_k)


def _explained(
    passages: Passages, written: Writer, found: bool, usage: dict[str, int], clock: Clock, notes: list[str]
) -> dict[str, Any]:
    best = passages.best
    candidates: list[dict[str, Any]] = []
    sources = 0
    for candidate in passages.candidates:
        told = {
            **candidate.place.model_dump(),
            "text": candidate.chunk.text[:SHOWN],
            "score": candidate.score,
            **candidate.scores,
            "dropped": candidate.dropped,
            "number": None,
        }
        if candidate.dropped is None:
            told["quote_score"] = round(best[sources].score, 4) if sources in best else None
            told["dropped"] = "budget" if sources >= written.read else None
            told["number"] = sources = sources + 1
        candidates.append(told)
    return Explanation(
        question=passages.question,
        candidates=[Candidate.model_validate(told) for told in candidates],
        fit=written.fit,
        bar=written.bar,
        found=found,
        model=written.model,
        prompt=written.prompt,
        prompt_tokens=usage.get("prompt_tokens", 0),
        notes=notes,
        ms={step: round(ms, 2) for step, ms in clock.ms.items()},
    ).model_dump()
