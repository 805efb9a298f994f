"""Health, readiness and the doctor."""

from typing import Literal

from pydantic import (
    Field,
)

from .base import Response


class Health(Response):
    status: Literal["ok", "failing"] = Field(description="failing has HTTP status 503")
    problems: list[str] = Field(description="what does not work, and what to do")
    parts: dict[str, str] = Field(
        description="ok, or what is wrong, for each part that has been used (such as database, disk, usage and the model "
        "servers) and each server that is set (Qdrant, Redis, embeddings, rerank), which is asked at most every 5 s"
    )
    version: str
    chat: str | None = Field(description="the chat model; null if none is set")
    embeddings: str
    own_file_types: list[str] = Field([], description="file extensions that a project's own readers read")


CheckName = Literal[
    "chat", "judge", "embeddings", "rerank", "vectors", "data", "files", "plugins", "access", "storage"
]


class Check(Response):
    name: CheckName
    server: str = Field(description="a model server, or embedded: this process")
    ok: bool
    url: str | None
    models: list[str]
    version: str | None
    limits: dict[str, int] = Field(
        description="context, dimension, input (tokens), batch (texts), collections, free_mb, landlock (version); "
        "for access: projects, keys, expiring (within 14 days), reached (requests refused for a limit since the start); "
        "for storage, what a project has stored and may store: chunks, most_chunks, bytes, most_bytes"
    )
    latency_ms: float
    fix: str | None = Field(description="what is wrong or could be better, and what to do")


class PromptInfo(Response):
    name: str
    version: str
    text: str
    collection: str | None = Field(
        None, description="the collection that it is for; null for the general prompt of that name"
    )
    own: bool = Field(description="whether it comes from PROMPTS_DIR")


class PromptList(Response):
    prompts: list[PromptInfo]


class Diagnosis(Response):
    ok: bool
    version: str
    checks: list[Check]
