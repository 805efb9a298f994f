"""Makes the database's tables, or migrates those of earlier versions."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, insert, inspect, select

from ..errors import BackendError

metadata = MetaData()
"""All tables of the package are registered here."""

VERSION_TABLE = "llmbackend_version"
_version = Table(VERSION_TABLE, metadata, Column("version_num", String(32), primary_key=True))

MIGRATIONS = Path(__file__).parent / "migrations"

_alembic = threading.Lock()
"""Alembic keeps its state in module globals."""


def numbers() -> list[str]:
    """Return the numbers of all migrations in order. The last one makes the tables of this version."""
    return sorted(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("[0-9]*.py"))


def prepare(connection: Connection, name: str) -> None:
    """Make the tables in an empty database, or migrate those of an earlier version.

    `connection` must be in a transaction that writes and for which other starting processes wait, so that all or nothing
    is done. Raises BackendError for tables of a newer version or of something else; the message calls the database `name`.
    """
    there = set(inspect(connection).get_table_names())
    recorded = connection.scalar(select(_version)) if VERSION_TABLE in there else None
    latest = numbers()[-1]
    if max(recorded or "", _number_of_file(connection)) > latest:
        raise unusable(
            f"{name} cannot be used (a newer version made it): install that version, or restore an older backup"
        )
    try:
        if not there & metadata.tables.keys():
            metadata.create_all(connection)
            connection.execute(insert(_version).values(version_num=latest))
        elif recorded != latest:
            _migrate(connection)
        check_columns(connection, metadata.sorted_tables)
    except OtherTables as error:
        raise unusable(
            f"{name} cannot be used ({error}): it belongs to something else, or to another version: set another one, or "
            "restore it from a backup"
        ) from None
    if connection.dialect.name == "sqlite":  # by this number, earlier versions refuse newer databases
        connection.exec_driver_sql(f"PRAGMA user_version={int(latest)}")


def _number_of_file(connection: Connection) -> str:
    if connection.dialect.name != "sqlite":
        return ""
    return f"{connection.exec_driver_sql('PRAGMA user_version').scalar_one():04}"


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    with _alembic:
        command.upgrade(config, "head")


class OtherTables(Exception):
    """A table has our name, but not our columns."""


def check_columns(connection: Connection, tables: Iterable[Table]) -> None:
    """Raise OtherTables unless each table has all of its columns."""
    there = inspect(connection)
    for table in tables:
        missing = {column.name for column in table.columns} - {
            column["name"] for column in there.get_columns(table.name)
        }
        if missing:
            raise OtherTables(f"its table {table.name} has no {min(missing)}")


def unusable(message: str) -> BackendError:
    return BackendError(message, details={"backend": "database"})
