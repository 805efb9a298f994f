"""Explains how an answer came about: what was found and read, its scores, and the time of each step."""

from __future__ import annotations

from typing import Any

from ..schemas import Candidate, Explanation
from ..tracing import Clock
from .writing import Writer

SHOWN = 200
"""Characters of a passage that an explanation shows."""


def explained(written: Writer, found: bool, clock: Clock, notes: list[str]) -> dict[str, Any]:
    """Return the fields of an `Explanation`."""
    passages = written.passages
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
        prompt_tokens=written.usage.get("prompt_tokens", 0),
        notes=notes,
        ms={step: round(ms, 2) for step, ms in clock.ms.items()},
    ).model_dump()
