"""Keys of projects, and collections that projects share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ..access.caller import Right
from .base import PRINTABLE, CollectionName, Request, Response

ProjectName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Pattern = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^?\[\]\x00-\x20\x7f]*$")]
_KeyId = Annotated[str, Field(pattern=r"^llmb_[A-Za-z0-9][A-Za-z0-9_.-]{0,63}_[A-Za-z0-9]{8}$")]
_Rate = r"[0-9]{1,12}[kMG]?/(s|min|h|day|month)"
MOST = 10**15
_While = r"^[0-9]{1,5}(s|min|h|d)$"


def _once(rights: list[Right]) -> list[Right]:
    return list(dict.fromkeys(rights))


class CreateKeyRequest(Request):
    project: ProjectName | None = Field(None, description="the caller's own, if it is none other's")
    can: Annotated[list[Right], Field(min_length=1, max_length=20), AfterValidator(_once)] | None = Field(
        None, description="what it may do; else all that the caller may, without admin"
    )
    collections: Annotated[list[Pattern], Field(min_length=1, max_length=100)] | None = Field(
        None, description="names, in which * stands for anything; else all that the caller may use"
    )
    models: Annotated[list[Pattern], Field(min_length=1, max_length=100)] | None = Field(
        None, description="names, in which * stands for anything; else all that the caller may use"
    )
    expires: str | None = Field(
        None, max_length=16, pattern=_While, description="after that time, as in 90d, 12h or 30min"
    )
    rate: str | None = Field(None, max_length=24, pattern=f"^{_Rate}$", description="requests, as in 60/min")
    concurrent: int | None = Field(None, ge=1, le=1_000_000, description="requests under way at once")
    tokens: str | None = Field(
        None,
        max_length=64,
        pattern=f"^{_Rate}(,{_Rate})?$",
        description="that models read and write for it, as in 1M/day or 1M/day,20M/month",
    )
    jobs: int | None = Field(None, ge=1, le=MOST, description="that wait or are at work")
    chunks: int | None = Field(
        None, ge=1, le=MOST, description="that the project may have stored for this key to store more"
    )
    bytes: int | None = Field(None, ge=1, le=MOST, description="of those chunks: texts, metadata and vectors")
    note: str = Field("", max_length=200, pattern=PRINTABLE, description="for whoever reads the list")


class ListKeysRequest(Request):
    project: ProjectName | None = Field(None, description="of the administrator's, else all")


class RotateKeyRequest(Request):
    key: _KeyId
    overlap: str = Field(
        "1h", max_length=16, pattern=_While, description="for which the secret before still counts"
    )


class KeyRequest(Request):
    key: _KeyId


class KeyInfo(Response):
    id: str = Field(description="what the key begins with; no secret")
    project: str
    can: list[str]
    collections: list[str]
    models: list[str]
    rate: str | None
    concurrent: int | None
    tokens: str | None
    jobs: int | None
    chunks: int | None
    bytes: int | None
    note: str
    created_at: str
    created_by: str = Field(
        description="the id of a key, or a project, where a key of the environment was used"
    )
    expires_at: str | None
    rotating_until: str | None = Field(description="until when the secret before the last rotation counts")
    revoked_at: str | None
    last_used_at: str | None = Field(description="noted now and then")


class CreatedKey(KeyInfo):
    key: str = Field(description="the key itself, which is not told again")


class KeyList(Response):
    keys: list[KeyInfo]


class ShareRequest(Request):
    collection: CollectionName
    with_project: ProjectName
    can: Literal["read", "write"] = Field(
        "read", description="write: read it, and put in and remove documents"
    )


class UnshareRequest(Request):
    collection: CollectionName
    with_project: ProjectName


class Share(Response):
    collection: str
    with_project: str
    can: str
    created_at: str


class ShareList(Response):
    shares: list[Share]
