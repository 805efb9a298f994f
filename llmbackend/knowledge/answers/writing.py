"""Who writes an answer: a model that has read the passages, or nobody: then the best quotes are it."""

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
    """Whether the passages tell."""
    fit: float | None
    """How well they fit, where that decides."""
    bar: float | None
    """From which fit on they count as telling."""

    @property
    def prompt(self) -> str | None:
        """What the model was told, by name and version."""

    def pieces(self) -> AsyncGenerator[str, None]:
        """The answer, piecewise, with its citations marked. What the above tell is known at its end."""
