"""Answers a question: finds passages, numbers and quotes them, writes the answer, and explains how it came about."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from ..answers.links import Inert, Links
from ..errors import BackendError, StreamInterrupted
from ..inference.chat import ChatModel
from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from ..knowledge.collections.unmet import unmet
from ..knowledge.retrieval.retrieval import Retriever
from ..knowledge.retrieval.scope import scope
from ..schemas import QueryAnswer, RagQueryRequest, Source
from ..tracing import Clock
from .citations import ANEW
from .explaining import explained
from .quotation import by_quotes
from .synthesis import by_model
from .writing import Writer

NOTHING_FOUND = "There is nothing on this in the collection."


@dataclass(frozen=True, slots=True)
class Answering:
    """Answers questions from collections: in the chat model's words, or by quotes if the model is too small for that."""

    chat: ChatModel
    embedder: Embedder | None
    """Scores the passages' sentences if no chat model reads them."""
    judge: Judge
    retriever: Retriever
    links: Links

    async def answered(self, wanted: RagQueryRequest) -> QueryAnswer:
        """Return the whole answer. Raises what `piecewise` raises, and BackendError if the reply breaks off."""
        sources: list[dict[str, Any]] = []
        answered: dict[str, Any] = {}
        try:
            async for event in self.piecewise(wanted):
                sources = event.get("sources", sources)
                answered = event.get("answer", answered)
        except StreamInterrupted as error:
            raise BackendError(error.message, details=error.details) from error
        return QueryAnswer(**answered, sources=[Source(**source) for source in sources])

    async def piecewise(self, wanted: RagQueryRequest) -> AsyncIterator[dict[str, Any]]:
        """Stream an answer from the passages found for a question.

        Yields `{"sources": […]}` first, to be read while the answer is written, then any number of `{"delta": text}`,
        then `{"answer": {…}}` with the rest, where `found` is False if the passages do not answer the question. A question
        with `history` is first rewritten to stand on its own.
        """
        clock = Clock()
        within = await scope(wanted, self.retriever.collections)
        written: Writer
        if self.chat.abstracts:
            written = await by_model(self.chat, self.retriever, within, wanted, clock)
        else:
            assert self.embedder is not None, "the embedded models come together"
            written = await by_quotes(self.retriever, self.embedder, self.judge, within, wanted, clock)
        yield {"sources": [source.model_dump() for source in written.passages.sources]}
        text = ""
        shown = Inert(self.links)
        with clock("answer"):
            async with aclosing(written.pieces()) as pieces:
                async for piece in pieces:
                    if piece == ANEW:  # the deltas sent so far were thoughts, not part of the answer
                        text, shown = "", Inert(self.links)
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
        nothing = not written.passages.sources
        notes = await unmet(within.collections, within.where) if nothing or wanted.explain else []
        told = {
            "answer": text,
            "found": found,
            "citations": shown.cited if found else [],
            "model": written.model,
            "usage": written.usage,
            "notes": notes if nothing else [],
        }
        if wanted.explain:
            told["explanation"] = explained(written, found, clock, notes)
        yield {"answer": told}
