"""The SQL database that holds what must not be lost beside the vectors: collections' manifests and jobs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, inspect
from sqlalchemy.exc import SQLAlchemyError

from .errors import BackendError

metadata = MetaData()
"""Every table of the package registers here."""


def connect(file: Path) -> Engine:
    """An engine on a SQLite file, with every table made; raises BackendError if it is no such file."""
    engine = create_engine(URL.create("sqlite", database=str(file)))
    event.listen(engine, "connect", _configure)
    try:
        with engine.begin() as connection:
            for migrate in migrations:
                migrate(connection)
            metadata.create_all(connection)
    except SQLAlchemyError as error:
        raise BackendError(
            f"{file} cannot be used ({type(error).__name__}): restore it, or move it away to begin anew",
            details={"backend": "database"},
        ) from error
    return engine


migrations: list[Callable[[Connection], None]] = []
"""Called before tables are made: what changes those of older versions. Each finds out whether it has anything to do."""


def columns(connection: Connection, table: str) -> set[str]:
    """The names of a table's columns; none where there is no such table."""
    inspector = inspect(connection)
    return (
        {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()
    )


def _configure(connection: Any, _: Any) -> None:
    # WAL lets readers go on beside the one writer, who waits its turn; FULL makes a commit survive a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
