"""Agents do tasks in steps, with models, tools and other agents. Some are built in, and a project can add its
own.

LlamaIndex's workflows and agents orchestrate them. A run (run_state.py) is what they act through: it counts,
limits, reports and records what is done, so that a run whose process was killed continues from its last
finished step and asks nothing twice.
"""

from __future__ import annotations

from ..plugins import agent, tool
from .handle import Run

__all__ = ["Run", "agent", "tool"]
