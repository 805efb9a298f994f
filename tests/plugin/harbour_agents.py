"""A project's own agents and tools, as an installed package offers them."""

from __future__ import annotations

import time
from typing import Any

import anyio
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.workflow import Event, StartEvent, StopEvent, Workflow, step
from pydantic import BaseModel, Field

from llmbackend.agents import Run, agent, tool


class Question(BaseModel):
    text: str = Field(min_length=3)
    days: int = 1


class Finding(BaseModel):
    answer: str
    sources: int


@agent("contracts")
async def contracts(run: Run, input: Question) -> Finding:
    """Finds what contracts say."""
    hits = await run.tool("search", query=input.text)
    return Finding(answer=f"{hits[0]['text']} [{hits[0]['number']}]", sources=len(hits))


@tool("tide")
async def tide(harbour: str) -> str:
    """When high tide is in a harbour."""
    await anyio.lowlevel.checkpoint()
    return f"At nine in {harbour}."


@tool("log_entry", writes=True)
def log_entry(text: str) -> str:
    """Writes into the log."""
    LOG.append(text)
    return "written"


LOG: list[str] = []


class Halved(Event):
    number: int


class Halving(Workflow):
    """Halves a number until it is odd."""

    @step
    async def begin(self, start: StartEvent) -> Halved:
        return Halved(number=int(start.task))

    @step
    async def halve(self, event: Halved) -> Halved | StopEvent:
        return StopEvent(result=str(event.number)) if event.number % 2 else Halved(number=event.number // 2)


agent("halving")(Halving)


@agent("pilot")
def pilot(run: Run) -> FunctionAgent:
    """Steers by tools."""

    def depth(place: str) -> str:
        """How deep it is."""
        return f"{place} is six metres deep."

    return FunctionAgent(
        llm=run.llm(), tools=[depth, *run.tools("tide")], system_prompt="You are a pilot.", streaming=False
    )


@agent("chain")
async def chain(run: Run, task: str) -> str:
    """Asks another agent, in a step of its own."""
    with run.step("first half"):
        found = await run.agent("contracts", input=Question(text=task))
    return f"As found: {found.answer}"


@agent("stumbling")
async def stumbling(run: Run, task: str) -> Any:
    """Raises, hangs, or blocks, within a step."""
    with run.step("the stumbling"):
        match task:
            case "raise":
                raise ValueError("a stone")
            case "hang":
                await anyio.sleep(60)
            case "block":
                time.sleep(5)  # noqa: ASYNC251  # it holds up its own loop, and nobody else's
    return {"done": True}


@agent("writing")
async def writing(run: Run, task: str) -> str:
    """Writes into the collection that is its task."""
    await run.tool("ingest_document", collection=task, document_id="log", text="All is well.")
    return "written"


@agent("quoting")
async def quoting(run: Run, task: str) -> str:
    """Has another agent answer."""
    return f"They say: {await run.agent('researcher', task)}"
