"""Keys of projects, and collections that projects share."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from ..access.caller import Right, amount
from ..errors import InvalidRequest
from .base import PRINTABLE, CollectionName, Request, Response, form

ProjectName = Annotated[
    str,
    Field(
        pattern=form(
            r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
            "1 to 64 letters, digits, '_', '-' and '.', and begin with a letter or digit",
        )
    ),
]
Pattern = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        pattern=form(r"^[^?\[\]\x00-\x20\x7f]*$", "a name, in which only * has a meaning, without spaces"),
    ),
]
_KeyId = Annotated[
    str,
    Field(
        pattern=form(
            r"^llmb_[A-Za-z0-9][A-Za-z0-9_.-]{0,63}_[A-Za-z0-9]{8}$",
            "a key's id, as list_keys tells it: llmb_, the project, and 8 letters or digits",
        )
    ),
]
_Rate = r"[0-9]{1,12}[kMG]?/(s|min|h|day|month)"
LARGEST_LIMIT = 10**15
_While = form(r"^[0-9]{1,5}(s|min|h|d)$", "a number and s, min, h or d, such as 90d, 12h or 30min")
_OneRate = form(f"^{_Rate}$", "a number a time, such as 60/min (s, min, h, day or month)")
_OneOrTwoRates = form(f"^{_Rate}(,{_Rate})?$", "a number a time, or two, such as 1M/day or 1M/day,20M/month")


def _amount(given: Any) -> Any:
    try:
        return amount(given, "it")
    except InvalidRequest as error:
        raise ValueError(error.message) from None


_Amount = Annotated[
    int, Field(ge=1, le=LARGEST_LIMIT), BeforeValidator(_amount, json_schema_input_type=int | str)
]


def _once(rights: list[Right]) -> list[Right]:
    return list(dict.fromkeys(rights))


class CreateKeyRequest(Request):
    project: ProjectName | None = Field(None, description="the key's project; by default the caller's")
    can: Annotated[list[Right], Field(min_length=1, max_length=20), AfterValidator(_once)] | None = Field(
        None, description="rights; by default those of the caller, without admin"
    )
    collections: Annotated[list[Pattern], Field(min_length=1, max_length=100)] | None = Field(
        None, description="names, with * for anything; by default all that the caller may use"
    )
    models: Annotated[list[Pattern], Field(min_length=1, max_length=100)] | None = Field(
        None, description="names, with * for anything; by default all that the caller may use"
    )
    expires: str | None = Field(
        None,
        max_length=16,
        pattern=_While,
        description="when it expires: after 90d, 12h or 30min, for example",
    )
    rate: str | None = Field(
        None, max_length=24, pattern=_OneRate, description="limit on requests, such as 60/min"
    )
    concurrent: int | None = Field(None, ge=1, le=1_000_000, description="limit on requests at the same time")
    tokens: str | None = Field(
        None,
        max_length=64,
        pattern=_OneOrTwoRates,
        description="limit on tokens that models read and write for it, such as 1M/day or 1M/day,20M/month",
    )
    jobs: int | None = Field(None, ge=1, le=LARGEST_LIMIT, description="limit on jobs that wait or run")
    chunks: _Amount | None = Field(
        None,
        description="limit on stored chunks: this key stores nothing more once its project has so many; may be like 100k",
    )
    bytes: _Amount | None = Field(
        None,
        description="limit on stored bytes (texts, metadata and vectors), in the same way; may be like 10G",
    )
    note: str = Field("", max_length=200, pattern=PRINTABLE, description="a note, shown in lists")


class ListKeysRequest(Request):
    project: ProjectName | None = Field(None, description="only this project's keys; for the administrator")


class RotateKeyRequest(Request):
    key: _KeyId
    overlap: str = Field(
        "1h", max_length=16, pattern=_While, description="how long the old secret remains valid"
    )


class KeyRequest(Request):
    key: _KeyId


class KeyInfo(Response):
    id: str = Field(description="how the key begins; not secret")
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
        description="the id of the key that created it; the project, if a key of the environment was used"
    )
    expires_at: str | None
    rotating_until: str | None = Field(description="until when the old secret is valid")
    revoked_at: str | None
    last_used_at: str | None = Field(description="when it was last used, within a few minutes")


class CreatedKey(KeyInfo):
    key: str = Field(description="the key itself; it is shown only this once")


class KeyList(Response):
    keys: list[KeyInfo]


class ShareRequest(Request):
    collection: CollectionName
    with_project: ProjectName
    can: Literal["read", "write"] = Field("read", description="write: also add and remove documents")


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
