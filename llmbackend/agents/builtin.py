"""The agents that come along. What they are made of is imported when one is run."""

from __future__ import annotations

from ..plugins import agent
from .made import Made
from .running import Running

RESEARCH_TOOLS = (
    "search",
    "query",
    "read_document",
    "list_collections",
    "list_documents",
    "calculator",
    "today",
)


@agent("researcher", tools=RESEARCH_TOOLS)
async def researcher(run: Running) -> Made:
    """Answers a question over several collections: sub-questions, comparison, contradictions, each sentence with its source."""
    from .researcher import research

    return await research(run, RESEARCH_TOOLS)
