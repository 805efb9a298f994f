"""API keys as rows of the SQL database, which stores only their hashes.

A key is `llmb_<project>_<8 letters>_<secret>`; the part before the secret is its public id. Rotating a key gives the
same row a new secret, so that its jobs and schedules go on.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    JSON,
    Column,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Table,
    insert,
    select,
    text,
    update,
)

from ..errors import NotFound
from ..storage.schema import metadata
from .caller import Caller, Limits, Patterns, Standing

PREFIX = "llmb_"
_LETTERS = string.ascii_letters + string.digits

table = Table(
    "api_keys",
    metadata,
    Column("id", String(96), primary_key=True),
    Column("project", String(64), nullable=False, index=True),
    Column("hash", String(64), nullable=False),
    Column("old_hash", String(64)),  # of the previous secret, while that works
    Column("old_until", Float),  # when it stops working, in seconds since 1970
    Column("can", JSON, nullable=False),
    Column("collections", JSON, nullable=False),
    Column("models", JSON, nullable=False),
    Column("limits", JSON, nullable=False),
    Column("note", String(200), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("created_by", String(96), nullable=False),
    Column("expires_at", Float),
    Column("revoked_at", Float),
    Column("last_used_at", Float),
)

versions = Table(
    "access_versions",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
)
"""One row, whose number grows with each change of keys or shares, so that other processes only have to poll
this row."""


@dataclass(frozen=True)
class NewKey:
    project: str
    caller: Caller
    """Its rights and limits."""
    created_by: str
    created_at: float
    note: str = ""


def digest(key: str) -> str:
    # Keys are long and random, so a single fast round of SHA-256 is safe.
    return hashlib.sha256(key.encode()).hexdigest()


def public_id(key: str) -> str:
    """The part before the secret; empty if it is not a key of ours."""
    return key.rpartition("_")[0] if key.startswith(PREFIX) else ""


def _letters(count: int) -> str:
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


def _secret(key_id: str) -> str:
    return f"{key_id}_{_letters(43)}"  # 256 bits


def create(connection: Connection, new: NewKey) -> tuple[str, Row[Any]]:
    """Store a new key; return the key itself, which is stored nowhere, and its row."""
    key_id = f"{PREFIX}{new.project}_{_letters(8)}"
    key = _secret(key_id)
    caller = new.caller
    connection.execute(
        insert(table).values(
            id=key_id,
            project=new.project,
            hash=digest(key),
            can=sorted(caller.can),
            collections=list(caller.collections.texts),
            models=list(caller.models.texts),
            limits=caller.limits.as_json(),
            note=new.note,
            created_at=new.created_at,
            created_by=new.created_by,
            expires_at=caller.standing.expires,
        )
    )
    changed(connection)
    return key, find(connection, new.project, key_id)


def find(connection: Connection, project: str | None, key_id: str) -> Row[Any]:
    """The row of a key of a project, or of any project if None. Raises NotFound."""
    row = connection.execute(select(table).where(*_of(project), table.c.id == key_id)).first()
    if row is None:
        raise NotFound(f"no key {key_id!r}", details={"key": key_id})
    return row


def listed(connection: Connection, project: str | None) -> list[Row[Any]]:
    query = select(table).where(*_of(project)).order_by(table.c.project, table.c.created_at, table.c.id)
    return list(connection.execute(query))


def rotate(
    connection: Connection, project: str | None, key_id: str, until: float, moment: float
) -> tuple[str, Row[Any]]:
    """Give a key a new secret; the previous one works until `until`, older ones no longer. Raises NotFound."""
    key = _secret(key_id)
    changes = connection.execute(
        update(table)
        .where(*_of(project), table.c.id == key_id, table.c.revoked_at.is_(None))
        .values(hash=digest(key), old_hash=table.c.hash if until > moment else None, old_until=until)
    )
    if changes.rowcount != 1:
        raise NotFound(f"no key {key_id!r}", details={"key": key_id})
    changed(connection)
    return key, find(connection, project, key_id)


def revoke(connection: Connection, project: str | None, key_id: str, moment: float) -> Row[Any]:
    """Revoke a key; one that is revoked already stays as it is. Raises NotFound."""
    find(connection, project, key_id)
    connection.execute(
        update(table).where(table.c.id == key_id, table.c.revoked_at.is_(None)).values(revoked_at=moment)
    )
    changed(connection)
    return find(connection, project, key_id)


def note_used(connection: Connection, used: Mapping[str, float]) -> None:
    for key_id, moment in used.items():
        connection.execute(update(table).where(table.c.id == key_id).values(last_used_at=moment))


def counts(connection: Connection, key_id: str, moment: float) -> bool:
    """Whether the key is valid: neither revoked nor expired. Keys from the environment have no rows and always are."""
    if not key_id.startswith(PREFIX):
        return True
    row = connection.execute(
        select(table.c.revoked_at, table.c.expires_at).where(table.c.id == key_id)
    ).first()
    return row is not None and row.revoked_at is None and (row.expires_at is None or row.expires_at > moment)


def changed(connection: Connection) -> None:
    """Make every process read keys and shares again."""
    connection.execute(
        text(
            "INSERT INTO access_versions (id, version) VALUES (1, 1) "
            "ON CONFLICT (id) DO UPDATE SET version = access_versions.version + 1"
        )
    )


def version(connection: Connection) -> int:
    return connection.execute(select(versions.c.version)).scalar() or 0


def _of(project: str | None) -> tuple[Any, ...]:
    return () if project is None else (table.c.project == project,)


class Key:
    """A stored key, for checking requests against."""

    def __init__(self, row: Row[Any], standing: Standing) -> None:
        standing.expires = row.expires_at
        standing.revoked = row.revoked_at is not None
        self.row = row
        self.caller = Caller(
            row.project,
            row.id,
            frozenset(row.can),
            Patterns(row.collections),
            Patterns(row.models),
            Limits.of(row.limits),
            standing=standing,
        )

    def opens_with(self, given: str, moment: float) -> bool:
        """Whether `given` is the digest of this key's secret, or of the previous secret while that works."""
        new = hmac.compare_digest(given, self.row.hash)
        old = hmac.compare_digest(given, self.row.old_hash or self.row.hash)
        return new or (old and self.row.old_until is not None and moment < self.row.old_until)
