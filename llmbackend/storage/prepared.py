"""Runs frequent statements on a SQLite file without SQLAlchemy's execution, which takes four times as long as the statement."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from sqlalchemy import Connection, Executable

from . import failures

NOTHING: Mapping[str, Any] = MappingProxyType({})


class Prepared:
    """A statement that is compiled once for each set of values' names.

    Its columns must need no conversion: text, numbers and bytes. On a server it is executed as any other, since the
    network takes longer.
    """

    def __init__(self, statement: Executable) -> None:
        self._statement: Any = statement
        self._compiled: dict[tuple[str, ...], tuple[str, Sequence[str], Mapping[str, Any]]] = {}

    def __call__(self, connection: Connection, values: Mapping[str, Any] = NOTHING) -> Sequence[Any]:
        """Execute it; return its rows."""
        if connection.dialect.name != "sqlite":
            found = connection.execute(self._statement, values)
            return found.all() if found.returns_rows else ()
        names = tuple(values)
        if names not in self._compiled:
            compiled = self._statement.compile(dialect=connection.dialect, column_keys=names)
            defaults = {column.key: column.default.arg for column in compiled.insert_prefetch}
            self._compiled[names] = str(compiled), compiled.positiontup, {**compiled.params, **defaults}
        text, order, own = self._compiled[names]
        given = {**own, **values}
        return on_file(connection, text, [given[name] for name in order])


def on_file(connection: Connection, text: str, values: Sequence[Any] = ()) -> list[Any]:
    """Execute a statement on a SQLite file; return its rows. Raises BackendError, and sqlite3's errors about the statement."""
    file: Any = connection.connection.driver_connection
    try:
        return sqlite3.Cursor(file).execute(text, values).fetchall()
    except (sqlite3.DataError, sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.Error as error:
        raise failures.of_database(connection.engine, error) from error
