"""The built-in agents. Their modules are imported when one is run."""

from __future__ import annotations

from ..plugins import agent
from .result import AgentResult
from .run_state import Running
from .shapes import AnalystInput, Table, Triage, TriageInput

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
async def researcher(run: Running) -> AgentResult:
    """Answers a question over several collections: sub-questions, comparison, contradictions, each sentence with its source."""
    from .researcher import research

    return await research(run, RESEARCH_TOOLS)


@agent("analyst", bounded=False)
async def analyst(run: Running, input: AnalystInput) -> Table:
    """Puts the same questions to every document of the collections: a table with a quote for each cell."""
    from .analyst import analyse

    return await analyse(run, input)


@agent("triage")
async def triage(run: Running, input: TriageInput) -> Triage:
    """Sorts a message: its category among the given classes, its urgency, the reasons and a suggested answer."""
    from . import triage as sorting

    return await sorting.triage(run, input)
