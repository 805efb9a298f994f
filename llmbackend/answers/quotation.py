"""Writes answers in the documents' own words: the stretches that answer the question, or come closest.

Used if the chat model is too small to write answers, as the embedded one is: on the demo's documents, its own words had
the fact for 13 of 22 questions, the best quotes for 19.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from ..inference.embeddings import Embedder
from ..inference.judge import Judge
from ..knowledge.retrieval.retrieval import NEXT_BEST, Retriever
from ..knowledge.retrieval.scope import Scope
from ..schemas import RagQueryRequest
from ..tracing import Clock
from .citations import citing_nothing, mark
from .conversation import last_question
from .reading import DENSE_WEIGHT, READ, Reading, orders, read

QUOTES = "quotes"
"""The `model` of an answer that only quotes."""
OWN_WORDS = "In the documents' own words:"
CLOSEST = "There is nothing certain on this in the collection. The closest passages:"


async def by_quotes(
    retriever: Retriever,
    embedder: Embedder,
    judge: Judge,
    scope: Scope,
    wanted: RagQueryRequest,
    clock: Clock,
) -> Quotation:
    """Search and read for an answer made of quotes, which `Quotation.pieces` then writes."""
    asked = [wanted.question]
    if wanted.history:
        # No model can rewrite the question, so it is also tried together with the question before it.
        asked.append(f"{last_question(wanted.history)} {wanted.question}".strip())
    for question in asked:
        # If the judge will order the candidates by their sentences, the search's own order does not matter.
        find = partial(retriever.candidates, scope, question, clock=clock, depth=max(READ, NEXT_BEST))
        candidates = await find()
        if orders(judge, question, candidates):
            candidates = await find(least_weight=DENSE_WEIGHT, ahead=True)
        with clock("quotes"):
            reading = await read(embedder, judge, question, candidates, wanted.top_k)
        if reading.found:
            break
    return Quotation(reading)


class Quotation:
    def __init__(self, reading: Reading) -> None:
        self.passages = reading.passages
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
            # A passage that does not answer the question is no evidence, so it is not cited.
            number = mark(source + 1) if self.found else f"(source {source + 1})"
            # A table's row ends with its cells, and code with its fence.
            space = "\n\n" if text.splitlines()[-1].startswith(("|", "```")) else " "
            yield f"\n\n{citing_nothing(text)}{space}{number}"
