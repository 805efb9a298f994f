"""The interface of what writes an answer: the chat model (synthesis.py), or the best quotes (quotation.py)."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .passages import Passages


class Writer(Protocol):
    """Writes one answer. `model` and `usage` are the chat model's name and token counts."""

    passages: Passages
    model: str
    usage: dict[str, int]
    read: int
    """The number of passages that were read."""
    found: bool
    """Whether the passages answer the question."""
    fit: float | None
    """How well the passages fit; None if the model decides."""
    bar: float | None
    """The fit from which the passages count as an answer; None if the model decides."""

    @property
    def prompt(self) -> str | None:
        """The prompt's name and version; None without a model."""

    def pieces(self) -> AsyncGenerator[str, None]:
        """Yield the answer in pieces, with citations marked (citations.py). The attributes above are final at the end.

        A piece that equals `citations.ANEW` discards all pieces before it. The caller closes the generator.
        """
