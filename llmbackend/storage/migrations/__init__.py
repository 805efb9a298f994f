"""Numbered changes of the tables, forward only, run by Alembic: `versions/NNNN_what.py`.

To change a table, change its `Table` and add the next number, whose `upgrade()` does the same to a database with data in
it, on SQLite and PostgreSQL. It uses no `Table` of the code, which goes on changing. A test compares both.

It leaves alone what is already there: a database that has lost its number is migrated from the first one on.
"""

from __future__ import annotations

from typing import Any

from alembic import op
from sqlalchemy import Column, MetaData, Table, inspect


def columns(table: str) -> set[str]:
    """The names of a table's columns; none where there is no such table."""
    inspector = inspect(op.get_bind())
    return (
        {column["name"] for column in inspector.get_columns(table)} if inspector.has_table(table) else set()
    )


def add_missing(table: str, *wanted: Column[Any]) -> set[str]:
    """Add the columns that the table does not have; returns the names of those added."""
    there = columns(table)
    missing = [column for column in wanted if column.name not in there]
    for column in missing:
        op.add_column(table, column)
    return {column.name for column in missing}


def create_missing(table: str, *wanted: Column[Any]) -> None:
    """Make the table, with its indexes, unless it is there."""
    Table(table, MetaData(), *wanted).create(op.get_bind(), checkfirst=True)
