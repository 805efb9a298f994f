"""What a project has in the SQL database beside its collections: its jobs, with what they were given and have made, and
its stored responses. Each row tells its own bytes, so that nothing is added up where no project is limited.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, bindparam, column, func, select, table


def size(*texts: str | None) -> int:
    """Bytes of texts."""
    return sum(
        len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass")) for text in texts if text
    )


def by(connection: Connection, project: str) -> int:
    """Bytes that are kept for a project."""
    return sum(int(connection.execute(one, {"project": project}).scalar_one()) for one in _SUMS)


_SUMS: list[Any] = [
    select(func.coalesce(func.sum(column("kept_bytes")), 0))
    .select_from(table(name))
    .where(column(owner) == bindparam("project"))
    for name, owner in (("jobs", "owner"), ("responses", "project"))
]
