"""Limits of a run, and the reason why one halts."""

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
        """The request's limits, capped by the settings unless the agent's work is bounded by its input."""
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
    """Why a run halts."""

    waits: bool
    """Whether it waits for approval; else it has reached a limit."""
    note: str
