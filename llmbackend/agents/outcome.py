"""What an agent makes of a task."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Made:
    answer: str = ""
    output: Any = None
    """JSON."""
    found: bool | None = None
    """None: whether the answer cites anything."""
