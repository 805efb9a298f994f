"""Stored responses: each is a row of one project, with the model's input and output.

A conversation is a chain of rows. Continuing its last one marks all of them as used, so that none is pruned.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)

from .. import json_writing
from ..errors import Conflict, NotFound
from ..schemas import MESSAGES
from ..storage import kept
from ..storage.schema import metadata
from .translation import Item

table = Table(
    "responses",
    metadata,
    Column("id", String(160), primary_key=True),
    Column("project", String(128), nullable=False),
    Column("previous", String(160)),
    Column("job", String(36)),  # the background job that makes it, if any
    Column("status", String(16), nullable=False),
    Column("used_at", Float, nullable=False, index=True),  # in seconds since 1970
    Column("input", Text, nullable=False),
    Column("response", Text, nullable=False),
    Column("kept_bytes", BigInteger, nullable=False, server_default="0"),  # of both
    Index("responses_by_bytes", "project", "kept_bytes"),
)

OPEN = ("queued", "in_progress")
IDS = 500  # in one statement: SQLite takes 32,766 values


class Stored(NamedTuple):
    """A stored response."""

    id: str
    project: str
    previous: str | None
    job: str | None
    status: str
    input: list[Item]
    response: dict[str, Any]


def missing(response_id: str) -> NotFound:
    return NotFound(
        f"no response {response_id!r}: it was not stored, was deleted, or is older than RESPONSE_DAYS",
        details={"response_id": response_id},
    )


def find(connection: Connection, project: str | None, response_id: str) -> Stored:
    """A stored response of a project, or of any project if `project` is None. Raises NotFound."""
    query = select(table).where(table.c.id == response_id)
    if project is not None:
        query = query.where(table.c.project == project)
    row = connection.execute(query).mappings().first()
    if row is None:
        raise missing(response_id)
    told = {name: row[name] for name in ("id", "project", "previous", "job", "status")}
    return Stored(**told, input=json.loads(row["input"]), response=json.loads(row["response"]))


def chain(connection: Connection, project: str | None, response_id: str) -> list[Stored]:
    """A response and all those it continues, oldest first. Raises NotFound, Conflict if one is still being made."""
    found: list[Stored] = []
    wanted: str | None = response_id
    while wanted is not None and len(found) < MESSAGES:
        row = find(connection, project, wanted)
        if row.status in OPEN:
            raise Conflict(
                f"the response {wanted!r} is still being made: wait for it, or cancel it",
                details={"response_id": wanted},
            )
        found.append(row)
        wanted = row.previous
    return found[::-1]


def add(connection: Connection, stored: Stored, used: Sequence[str] = ()) -> None:
    """Store a new response, and mark those it continues (`used`) as used now."""
    moment = time.time()
    beside = {name: getattr(stored, name) for name in ("id", "project", "previous", "job", "status")}
    given, response = json_writing.text(stored.input), json_writing.text(stored.response)
    connection.execute(
        insert(table).values(
            **beside,
            used_at=moment,
            input=given,
            response=response,
            kept_bytes=kept.size(given, response),
        )
    )
    for start in range(0, len(used), IDS):
        ids = used[start : start + IDS]
        connection.execute(update(table).where(table.c.id.in_(ids)).values(used_at=moment))


def advance(connection: Connection, stored: Stored) -> bool:
    """Update an open response; return False if it is gone or has ended."""
    response = json_writing.text(stored.response)
    values = {
        "status": stored.status,
        "response": response,
        "used_at": time.time(),
        "kept_bytes": kept.size(json_writing.text(stored.input), response),
    }
    done = connection.execute(
        update(table).where(table.c.id == stored.id, table.c.status.in_(OPEN)).values(values)
    )
    return bool(done.rowcount)


def made_by(connection: Connection, response_id: str, job: str) -> None:
    """Record the job that makes a response."""
    connection.execute(update(table).where(table.c.id == response_id).values(job=job))


def remove(connection: Connection, project: str | None, response_id: str) -> Stored:
    """Delete a response and return it. Raises NotFound."""
    found = find(connection, project, response_id)
    connection.execute(delete(table).where(table.c.id == response_id))
    return found


def prune(connection: Connection, before: float) -> None:
    """Delete responses last used before a moment, in seconds since 1970."""
    connection.execute(delete(table).where(table.c.used_at < before))
