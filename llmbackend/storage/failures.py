"""Translates what a database's driver raises into our errors, with the remedy."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from sqlalchemy import Engine, ExceptionContext
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, InterfaceError, ProgrammingError

from .. import disk
from ..errors import LLMBackendError
from . import schema


def of_statement(context: ExceptionContext) -> Exception | None:
    """Translate an error about the database; return None for one about a statement. SQLAlchemy calls this."""
    error = context.sqlalchemy_exception
    statement = context.connection is not None and isinstance(
        error, DataError | IntegrityError | ProgrammingError
    )
    if context.is_pre_ping or statement or not isinstance(error, DatabaseError | InterfaceError):
        return None
    assert context.engine is not None
    return of_database(context.engine, error.orig)


def of_database(engine: Engine, error: BaseException | None) -> LLMBackendError:
    """Return our error for a driver's that is not about a statement."""
    name = engine.get_execution_options()["llmbackend_name"]
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and engine.url.database:
        folder = Path(engine.url.database).absolute().parent
        without_room = code & 0xFF == sqlite3.SQLITE_IOERR and disk.Disk(folder, 0).free < 2**20
        if code & 0xFF == sqlite3.SQLITE_FULL or without_room:
            return disk.full(folder)
    if getattr(error, "sqlstate", None) == DISK_FULL:
        return disk.full(name, fix="delete what is not needed there, or enlarge it")
    said, *_ = str(error).splitlines() or [type(error).__name__]
    advice = "check that it is running, and that DATABASE_URL has the right host, port, database, user and password"
    if code is not None:
        advice = _ADVICE.get(code & 0xFF, advice)
    return schema.unusable(f"{name} cannot be used ({said}): {advice}")


DISK_FULL = "53100"
"""PostgreSQL's code for a full disk."""
RESTORE = (
    "it is damaged, or not a database. It has the list of collections and jobs, so it is left unchanged: restore it from "
    "a backup, rescue it by `sqlite3 FILE .recover`, or move it away to start afresh"
)
_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process has been writing to it for too long: try again when that has ended",
    sqlite3.SQLITE_LOCKED: "another process has been writing to it for too long: try again when that has ended",
    sqlite3.SQLITE_CANTOPEN: "make sure that this user may read and write it and its folder",
    sqlite3.SQLITE_READONLY: "make sure that this user may write to it and its folder, and that the disk is not mounted "
    "read-only",
    sqlite3.SQLITE_PERM: "make sure that this user may write to it and its folder",
    sqlite3.SQLITE_IOERR: "its disk fails: check the disk and its connection",
    sqlite3.SQLITE_CORRUPT: RESTORE,
    sqlite3.SQLITE_NOTADB: RESTORE,
    sqlite3.SQLITE_ERROR: "its tables are not those of this version: restore it from a backup of this version",
}
