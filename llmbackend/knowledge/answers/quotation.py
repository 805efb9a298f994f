"""An answer in the documents' own words: the stretches that answer the question, or come closest to it.

So answers a backend whose chat model can only copy, such as the small embedded one: its own words had the fact in 13 of 22
questions on the demo's documents, the best quotes in 19.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial

from ...inference.embeddings import Embedder
from ...inference.judge import Judge
from ...schemas import RagQueryRequest
from ...tracing import Clock
from ..retrieval.retrieval import NEXT_BEST, Retriever
from ..retrieval.scope import Scope
from .citations import citing_nothing, mark
from .conversation import last_question
from .reading import DENSE_WEIGHT, READ, Reading, orders, read

QUOTES = "quotes"
"""The model of an answer that is made of stretches of the documents."""
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
    asked = [wanted.question]
    if wanted.history:
        # Nobody can rewrite the question: the one before may hold what it leaves unsaid.
        asked.append(f"{last_question(wanted.history)} {wanted.question}".strip())
    for question in asked:
        # Not in the judge's order: that comes from reading them sentence by sentence.
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
            # What does not answer is no evidence, and is not cited.
            number = mark(source + 1) if self.found else f"(source {source + 1})"
            space = (
                "\n\n" if text.splitlines()[-1].startswith("|") else " "
            )  # a table's row ends with its cells
            yield f"\n\n{citing_nothing(text)}{space}{number}"
