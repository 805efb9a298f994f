"""What writes an answer: a model that has read the passages, or, without one, the best quotes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from .passages import Passages


class Writer(Protocol):
    passages: Passages
    model: str
    usage: dict[str, int]
    read: int
    """How many of the passages were read."""
    found: bool
    """Whether the passages answer the question."""
    fit: float | None
    """How well they fit; None if the model decides."""
    bar: float | None
    """The fit from which they count as an answer."""

    @property
    def prompt(self) -> str | None:
        """Name and version of the prompt; None without a model."""

    def pieces(self) -> AsyncGenerator[str, None]:
        """The answer in pieces, with citations marked. The attributes above are final at its end."""
