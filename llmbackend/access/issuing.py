"""Creating, listing, rotating and revoking API keys, none with more rights than the caller's."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row

from .. import tracing
from ..errors import Forbidden
from ..schemas.access import CreatedKey, CreateKeyRequest, KeyInfo, KeyList, RotateKeyRequest
from ..storage.database import Database
from . import keys
from .caller import LIMITS, RIGHTS, Caller, Limits, Patterns, Standing
from .keys import NewKey
from .register import Register

_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


class Keys:
    """The operations on keys. Used on the core's event loop; changes take effect in this process before a
    method returns."""

    def __init__(self, database: Database, register: Register) -> None:
        self._database = database
        self._register = register

    async def create(self, caller: Caller, asked: CreateKeyRequest) -> CreatedKey:
        """Create a key. Raises Forbidden for more rights than the caller has."""
        key, row = await self._database.write(keys.create, new_key(caller, asked))
        tracing.current().target = row.id
        await self._register.look()
        return created(key, row)

    async def listed(self, caller: Caller, project: str | None) -> KeyList:
        """List the keys that the caller may see, or those of one project."""
        rows = await self._database.read(keys.listed, caller.reach or project)
        return KeyList(keys=[described(row) for row in rows if project in (None, row.project)])

    async def rotate(self, caller: Caller, asked: RotateKeyRequest) -> CreatedKey:
        """Give a key a new secret. Raises NotFound, Forbidden if the key has more rights than the caller."""
        moment = time.time()
        await self._register.look()
        if (there := self._register.key(caller.reach, asked.key)) is not None:
            require_within(there, caller)
        until = moment + seconds(asked.overlap)
        key, row = await self._database.write(keys.rotate, caller.reach, asked.key, until, moment)
        await self._register.look()
        return created(key, row)

    async def revoke(self, caller: Caller, key: str) -> KeyInfo:
        """Revoke a key. Raises NotFound."""
        row = await self._database.write(keys.revoke, caller.reach, key, time.time())
        await self._register.look()
        return described(row)


def seconds(text: str) -> int:
    """The seconds of a duration such as 90d."""
    found = re.fullmatch(r"(\d+)(s|min|h|d)", text)
    assert found is not None
    return int(found[1]) * _SECONDS[found[2]]


def new_key(caller: Caller, asked: CreateKeyRequest) -> NewKey:
    """The key asked for, with the caller's rights by default. Raises Forbidden for more than the caller has."""
    moment = time.time()
    project = asked.project or caller.project
    if project != caller.project and not caller.everywhere:
        raise Forbidden(
            f"project: this key can only create keys of {caller.project!r}", details={"project": project}
        )
    given = {name: getattr(asked, name) for name in LIMITS}
    limits = Limits.of({name: given[name] or own for name, own in caller.limits.as_json().items()})
    expires = moment + seconds(asked.expires) if asked.expires else caller.standing.expires
    new = Caller(
        project,
        can=frozenset(asked.can) if asked.can else caller.can - {"admin"},
        collections=Patterns(asked.collections) if asked.collections else caller.collections,
        models=Patterns(asked.models) if asked.models else caller.models,
        limits=limits,
        standing=Standing(expires),
    )
    require_within(new, caller)
    return NewKey(project, new, str(caller), moment, asked.note)


def require_within(one: Caller, caller: Caller) -> None:
    """Raise Forbidden if `one` may do anything that the caller may not."""
    for what, more in (
        ("can", one.can - caller.can),
        ("collections", not caller.collections.cover(one.collections)),
        ("models", not caller.models.cover(one.models)),
        ("expires", _later(one.standing.expires, caller.standing.expires)),
        ("rate", not _rate_within(one.limits, caller.limits)),
        ("concurrent", _later(one.limits.concurrent, caller.limits.concurrent)),
        ("tokens", not _tokens_within(one.limits, caller.limits)),
        ("jobs", _later(one.limits.jobs, caller.limits.jobs)),
        ("chunks", _later(one.limits.chunks, caller.limits.chunks)),
        ("bytes", _later(one.limits.bytes, caller.limits.bytes)),
    ):
        if more:
            raise Forbidden(f"{what}: this is more than your own key has", details={"field": what})


def _later(one: float | None, other: float | None) -> bool:
    return other is not None and (one is None or one > other)


def _rate_within(one: Limits, other: Limits) -> bool:
    return other.rate is None or (one.rate is not None and one.rate.within(other.rate))


def _tokens_within(one: Limits, other: Limits) -> bool:
    return all(any(rate.within(bound) for rate in one.tokens) for bound in other.tokens)


def described(row: Row[Any]) -> KeyInfo:
    return KeyInfo(**_fields(row))


def created(key: str, row: Row[Any]) -> CreatedKey:
    return CreatedKey(key=key, **_fields(row))


def _fields(row: Row[Any]) -> dict[str, Any]:
    rotating = row.old_until if row.old_hash and row.old_until and row.old_until > time.time() else None
    return {
        "id": row.id,
        "project": row.project,
        "can": [right for right in RIGHTS_IN_ORDER if right in row.can],
        "collections": row.collections,
        "models": row.models,
        **Limits.of(row.limits).as_json(),
        "note": row.note,
        "created_at": stamp(row.created_at),
        "created_by": row.created_by,
        "expires_at": stamp(row.expires_at),
        "rotating_until": stamp(rotating),
        "revoked_at": stamp(row.revoked_at),
        "last_used_at": stamp(row.last_used_at),
    }


def stamp(moment: float | None) -> Any:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds")


RIGHTS_IN_ORDER = sorted(RIGHTS)
