"""Many chats at once, as a job."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from .base import Request, Response
from .chat import Message
from .json_schema import JsonSchemaObject

PROMPTS = 100_000


class BatchChatParams(Request):
    prompts: Annotated[
        list[str | Annotated[list[Message], Field(min_length=1)]],
        Field(
            min_length=1,
            max_length=PROMPTS,
            description="a text or messages each; the same ones are asked once",
        ),
    ]
    system: str | None = None
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    json_schema: JsonSchemaObject | None = Field(
        None, alias="schema", description="JSON Schema that each reply has to fit: `parsed` is the data"
    )
    retries: int = Field(
        1, ge=0, le=10, description="of one that failed for now, before it is told as failed"
    )


class BatchChatRequest(BatchChatParams):
    plan: bool = Field(False, description="tell what it would take, and ask nothing")


class BatchChat(Response):
    """A job, or what it would take. Tokens and cost are estimates; each reply counts as `max_tokens`."""

    id: str | None = Field(None, description="the job's id; null for a plan")
    count: int
    distinct: int = Field(description="how many are asked: equal prompts count once")
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = Field(None, description="at most; null without max_tokens")
    cost: float | None = Field(None, description="by USAGE_PRICES, at most; null without them")
