"""The SQL database that holds what must not be lost beside the vectors: collections' manifests and jobs."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Engine, MetaData, create_engine, event
from sqlalchemy.exc import SQLAlchemyError

from .errors import BackendError

metadata = MetaData()
"""Every table of the package registers here."""


def connect(url: str) -> Engine:
    """An engine on the database at a URL, with every table made; raises BackendError."""
    try:
        engine = create_engine(url)
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _configure_sqlite)
        metadata.create_all(engine)
    except (SQLAlchemyError, ImportError) as error:
        # The URL is not quoted: it may hold a password.
        raise BackendError(
            f"the database cannot be used ({type(error).__name__}): check DATABASE_URL, "
            "and that its driver is installed",
            details={"backend": "database"},
        ) from error
    return engine


def _configure_sqlite(connection: Any, _: Any) -> None:
    # WAL lets readers go on beside the one writer, who waits its turn; FULL makes a commit survive a power cut.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
