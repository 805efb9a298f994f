"""How far a run may go, and why one does not go on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ..plugins import AGENTS
from ..schemas import RunAgentRequest
from ..settings import Settings


@dataclass(frozen=True)
class Limits:
    steps: int
    tokens: int
    seconds: float
    tool_seconds: float
    tool_characters: int

    @classmethod
    def of(cls, request: RunAgentRequest, settings: Settings) -> Limits:
        """What is asked for, at most what is set; of an agent whose input bounds its work, what is asked for."""
        part = AGENTS.get(request.agent)
        bounded = part is None or part.bounded
        return cls(
            int(_least(request.max_steps, settings.agent_steps if bounded else None)),
            int(_least(request.max_tokens, settings.agent_tokens if bounded else None)),
            _least(request.max_seconds, settings.agent_seconds if bounded else None),
            settings.agent_tool_seconds,
            settings.agent_tool_characters,
        )


UNLIMITED = 10**9


def _least(*limits: float | None) -> float:
    return min([one for one in limits if one is not None], default=UNLIMITED)


class Halt(NamedTuple):
    """Why a run does not go on."""

    waits: bool
    """For somebody's word; else it is at a limit."""
    note: str
