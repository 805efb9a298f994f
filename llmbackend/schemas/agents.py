"""Runs of agents: requests, results, and the steps of a run."""

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from pydantic_core import from_json

from .base import LARGEST, CollectionName, Json, PartName, Request, Response
from .jobs import JobIdentifier, PendingCall
from .json_schema import JsonSchemaObject
from .rag import Source

TOOLS_OF_RUN = 128
"""The most functions of a request, as in OpenAI's chat."""


class RunAgentRequest(Request):
    task: str = Field(
        "",
        max_length=2**20,
        description="the task or question; for an agent that takes an `input`, it may be that as JSON, or its only text",
    )
    agent: PartName = Field("researcher", description="the name of an agent, as listed")
    collections: list[CollectionName] | None = Field(
        None,
        min_length=1,
        max_length=32,
        description="collections that it may use; null means all that the key may read",
    )
    tools: Annotated[list[PartName], Field(max_length=TOOLS_OF_RUN)] | None = Field(
        None, description="tools that it may call; null means the agent's own, none of which writes"
    )
    approve: Literal["writes"] | None = Field(
        None, description="writes: the run is a job, and tools that write wait for approval"
    )
    input: dict[str, Json] | None = Field(None, description="input in the shape that the agent takes")
    model: str | None = Field(None, min_length=1, description="the chat model, if not the default")
    max_steps: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="the most calls of models and tools; at most AGENT_STEPS, the default",
    )
    max_tokens: int | None = Field(
        None,
        ge=1,
        le=LARGEST,
        description="the most tokens that models read and write; at most AGENT_TOKENS, the default",
    )
    max_seconds: float | None = Field(
        None, gt=0, le=86_400, description="the most seconds in all; at most AGENT_SECONDS, the default"
    )
    stream: bool = Field(False, description="answer with an event for each step")


def input_in(task: str) -> dict[str, Any] | None:
    """The input in a task that is a JSON object; None if the task is plain text."""
    if not task.lstrip().startswith("{"):
        return None
    try:
        found = from_json(task, allow_inf_nan=False)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


class CallersFunction(Request):
    """A function that the caller runs: the run waits for its output."""

    name: PartName
    description: str | None = None
    parameters: JsonSchemaObject | None = Field(None, description="a JSON Schema of its arguments")


class AgentTask(RunAgentRequest):
    """A run with the fields that `/v1/responses` can add."""

    instructions: str | None = Field(None, description="for the agent's model, after the agent's own prompt")
    images: list[str] | None = Field(None, description="images that come with the task: URLs, or data: URLs")
    functions: Annotated[list[CallersFunction], Field(max_length=TOOLS_OF_RUN)] | None = Field(
        None, description="functions that the caller runs; the run is a job, and waits for their output"
    )


class Step(Response):
    """A step of a run, with its own steps."""

    name: str
    kind: Literal["agent", "model", "tool", "step"]
    began: float = Field(0.0, description="seconds after the run began")
    seconds: float = 0.0
    tokens: int = Field(0, description="tokens that models read and wrote in it, parts included")
    model: str | None = None
    prompt: str | None = Field(None, description="the prompt used, as name@version")
    input: str | None = Field(None, description="the beginning of its input")
    output: str | None = Field(None, description="the beginning of its output")
    error: str | None = None
    replayed: bool = Field(False, description="done by an earlier attempt")
    steps: list["Step"] = []


class AgentRun(Response):
    agent: str
    run_id: str | None = Field(None, description="the job's id, if the run is a job")
    status: Literal["completed", "stopped", "needs_approval"] = Field(
        description="stopped: a limit was reached (see `notes`), and the output is what was found until then"
    )
    answer: str = ""
    found: bool = Field(False, description="whether the answer has a source")
    citations: list[int] = Field([], description="numbers of the sources that the answer cites")
    sources: list[Source] = []
    output: JsonValue = Field(None, description="the output of an agent with a shape of its own")
    notes: list[str] = []
    pending: list[PendingCall] = []
    trace: Step
    model: str = ""
    usage: dict[str, int] = {}

    def __str__(self) -> str:
        """The answer: what a run of another agent is in a text."""
        return self.answer


class AgentInfo(Response):
    name: str
    description: str
    own: bool = Field(description="whether it is a project's own")
    tools: list[str] = Field(description="the tools that it may call if a request names none")
    input: dict[str, Any] | None = Field(None, description="the JSON Schema of the `input` that it takes")
    output: dict[str, Any] | None = Field(None, description="the JSON Schema of the `output` that it gives")


class ToolInfo(Response):
    name: str
    description: str
    writes: bool
    parameters: dict[str, Any]


class AgentList(Response):
    agents: list[AgentInfo]
    tools: list[ToolInfo]


class ApproveRequest(Request):
    run_id: JobIdentifier


class RejectRequest(Request):
    run_id: JobIdentifier
    why: str = Field("", max_length=10_000, description="the reason, which the agent is told")
