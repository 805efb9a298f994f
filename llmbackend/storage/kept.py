"""Counts the bytes that a project has in the SQL database beside its collections: jobs with their params and results, and
stored responses.

Each row has its own size, so nothing needs to be added up if no project is limited.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, column, func, select, table

from .database import one_at_a_time


def size(*texts: str | None) -> int:
    """Return the bytes of texts in UTF-8."""
    return sum(
        len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts if text
    )


def lock(connection: Connection, project: str) -> None:
    """Let one transaction at a time add to what a project stores, or together they could exceed its limits."""
    one_at_a_time(connection, f"stored by {project}")


def by(connection: Connection, project: str) -> int:
    """Return the bytes that are kept for a project."""
    return sum(int(connection.execute(one, {"project": project}).scalar_one()) for one in _SUMS)


_SUMS: list[Any] = [
    select(func.coalesce(func.sum(column("kept_bytes")), 0))
    .select_from(table(name))
    .where(column(owner) == bindparam("project"))
    for name, owner in (("jobs", "owner"), ("responses", "project"))
]
