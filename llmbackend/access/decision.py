"""Authorization: the one function that decides whether a call is allowed, however it came in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from ..errors import Forbidden, Unauthorized
from .caller import Caller, Right
from .names import QualifiedName, missing, qualified

Shared = Literal["read", "write"]
"""How a collection is shared; `write` includes reading."""

Asks = Literal["chat", "embedding", "rerank"]
"""The kinds of models that a call may ask."""

Granted = Mapping[str, QualifiedName]
"""The collections that a call may use, by the names that the caller writes."""

NOTHING: Granted = MappingProxyType({})


class AccessNeeded(NamedTuple):
    """The access that a call needs."""

    rights: Sequence[Right] = ()
    """All rights it needs; if empty, any key will do."""
    collections: Sequence[str] = ()
    models: Sequence[tuple[Asks, str | None]] = ()
    """Kind and name of each model; None is the default model."""
    owners_only: bool = False
    """Whether projects that a collection is shared with are excluded."""


def decide(
    caller: Caller, needed: AccessNeeded, models: Sequence[str], shared: Mapping[QualifiedName, Shared]
) -> Granted:
    """The collections that the call may use, if the caller has the rights and may use the models.

    `models` are the names of the models needed, `shared` the collections that other projects share with the caller's.
    Raises Unauthorized for a revoked or expired key, Forbidden, NotFound for another project's collection.
    """
    if caller.standing.ended:
        raise ended()
    if not caller.can:
        raise Forbidden("the caller is unknown: nothing is allowed")
    for right in needed.rights:
        if right not in caller.can:
            raise Forbidden(
                f"this key may not {_DOES[right]}: ask for one with the right {right!r}",
                details={"right": right},
            )
    for model in () if caller.models.all else models:
        if not caller.models.fit(model):
            raise Forbidden(
                f"this key may not use the model {model!r}: it may use {_listed(caller.models.texts)}",
                details={"model": model},
            )
    if not needed.collections:
        return NOTHING
    return {name: _granted(caller, name, needed, shared) for name in needed.collections}


def _granted(
    caller: Caller, name: str, needed: AccessNeeded, shared: Mapping[QualifiedName, Shared]
) -> QualifiedName:
    place = qualified(name, caller)
    shown = place.shown_to(caller)
    if not caller.collections.fit(shown):  # whether it exists or not
        raise Forbidden(
            f"this key may not use the collection {shown!r}: it may use {_listed(caller.collections.texts)}",
            details={"collection": shown},
        )
    if place.project == caller.project or caller.everywhere:
        return place
    how = shared.get(place)
    if how is None:
        raise missing(name)
    if needed.owners_only or (how == "read" and "write" in needed.rights):
        owners = "can only be deleted or shared by its own project"
        what = owners if needed.owners_only else "is shared for reading only"
        raise Forbidden(f"the collection {name!r} {what}", details={"collection": name})
    return place


def collections_in(field: Any) -> Sequence[str]:
    """The names in a request's field that takes one collection or several."""
    if isinstance(field, str):
        return (field,)
    return [name for name in field if isinstance(name, str)] if isinstance(field, list) else ()


def ended() -> Unauthorized:
    return Unauthorized("this API key was revoked or has expired: ask for a new one")


def _listed(texts: Sequence[str]) -> str:
    return ", ".join(map(repr, texts))


_DOES: Mapping[Right, str] = {
    "read": "read collections",
    "write": "change collections",
    "jobs": "use jobs and schedules",
    "chat": "ask models",
    "admin": "administer its project",
}
