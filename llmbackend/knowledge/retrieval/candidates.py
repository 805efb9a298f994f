"""Candidates: chunks that a search found and that may become hits."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ...engines.interface import Chunk, Found
from ...schemas import Hit, Place

Dropped = Literal["duplicate", "min_score", "top_k", "budget", "postprocessor"]


@dataclass(slots=True)
class Candidate:
    """A chunk that may become a hit. `dropped` is the reason if it does not."""

    chunk: Chunk
    collection: str
    score: float
    """What candidates are ordered by: the last of `scores`."""
    scores: dict[str, float]
    """The search's scores; then, as far as they apply, `judge` (a cosine) and `judged`, or `rerank` (the reranker's),
    `retriever` and `postprocessed` (from a project's own parts).
    """
    dropped: Dropped | None = None
    copies: list[Candidate] = field(default_factory=list)

    @classmethod
    def of(cls, collection: str, found: Found) -> Candidate:
        return cls(found.chunk, collection, found.score, found.scores)

    @property
    def place(self) -> Place:
        return Place(collection=self.collection, document_id=self.chunk.document_id, chunk=self.chunk.number)

    @property
    def hit(self) -> Hit:
        chunk = self.chunk
        return Hit.made(  # it was validated when it was stored
            text=chunk.text,
            score=self.score,
            document_id=chunk.document_id,
            chunk=chunk.number,
            collection=self.collection,
            metadata={**chunk.place, **chunk.metadata},
            duplicates=[copy.place for copy in self.copies],
        )
