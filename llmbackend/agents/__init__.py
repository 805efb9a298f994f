"""Agents: tasks done in steps, by models, tools and other agents; those that come along, and a project's own.

LlamaIndex's workflows and agents orchestrate. A run (running.py) is what they act through: it counts, limits, tells and
remembers what is done, so that one that was killed goes on from its last finished step, and asks nothing twice.
"""

from __future__ import annotations

from ..plugins import agent, tool
from .handle import Run

__all__ = ["Run", "agent", "tool"]
