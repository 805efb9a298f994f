"""Many chats in one job."""

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
            description="texts or conversations; equal ones are asked only once",
        ),
    ]
    system: str | None = None
    model: str | None = None
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    json_schema: JsonSchemaObject | None = Field(
        None,
        alias="schema",
        description="a JSON Schema that each reply has to fit; its data is the result's `parsed`",
    )
    retries: int = Field(
        1, ge=0, le=10, description="how often a chat that failed temporarily is tried again"
    )


class BatchChatRequest(BatchChatParams):
    plan: bool = Field(False, description="only estimate what it would take; nothing is asked")


class BatchChat(Response):
    """A job, or what it would take. Tokens and cost are estimates; each reply counts as `max_tokens`."""

    id: str | None = Field(None, description="the job's id; null for a plan")
    count: int
    distinct: int = Field(description="how many are asked: equal prompts count once")
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = Field(None, description="at most; null without max_tokens")
    cost: float | None = Field(None, description="by USAGE_PRICES, at most; null without them")
