"""What an agent returns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class AgentResult:
    """An agent's answer and structured output."""

    answer: str = ""
    output: Any = None
    """Its structured output, as JSON."""
    found: bool | None = None
    """Whether it found an answer; None means: if the answer cites anything."""
