"""Waking the workers of other processes through huey. Messages only carry a job's id; all else is in the ledger."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huey import Huey, PostgresHuey, RedisHuey, SqliteHuey
from huey.consumer import Consumer
from huey.registry import Message
from huey.serializer import Serializer
from sqlalchemy import URL

from ..errors import BackendError

NAME = "llmbackend"
ANSWER_SECONDS = 5.0
"""Seconds that Redis has for an answer; a listener waits one second for a message."""

log = logging.getLogger(__name__)


class _AsOurs(logging.Handler):
    """Logs huey's warnings under our logger's name; its reports of starts and stops are dropped."""

    def emit(self, record: logging.LogRecord) -> None:
        log.log(record.levelno, "%s", record.getMessage(), exc_info=record.exc_info)


logging.getLogger("huey").addHandler(_AsOurs(logging.WARNING))
logging.getLogger("huey").propagate = False


class Wakeups:
    """A queue on Redis if a URL is given, else in the ledger's PostgreSQL, or in a SQLite file beside the ledger."""

    def __init__(self, database: URL, redis_url: str | None) -> None:
        self._huey = _huey(database, redis_url)
        self._task = self._huey.task(name="work")(self._woken)
        self._consumer: _Listener | None = None

    def wake(self, job_id: str) -> None:
        """Wake one listening worker, which then looks for work. Blocks, but not for long. Raises what huey's storage does."""
        self._task(job_id)

    def listen(self, woken: Callable[[str], None]) -> None:
        """Call `woken` in a thread for each wake-up, one at a time."""
        self._call = woken
        self._consumer = _Listener(
            self._huey, workers=1, periodic=False, initial_delay=0.01, backoff=1.1, max_delay=0.02
        )
        self._consumer.start()

    def _woken(self, job_id: str) -> None:
        self._call(job_id)

    def stop(self) -> None:
        """Wait for the listener to finish its current call, then close the file or connection."""
        if self._consumer is not None:
            self._consumer.stop(graceful=True)
        self._huey.storage.close()


def _huey(database: URL, redis_url: str | None) -> Huey:
    options: dict[str, Any] = {"results": False, "serializer": _Json()}
    try:
        if redis_url is not None:
            from redis import ConnectionPool

            pool = ConnectionPool.from_url(
                redis_url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
            )
            return RedisHuey(NAME, connection_pool=pool, **options)
        if database.get_backend_name() == "postgresql":
            dsn = database.set(drivername="postgresql").render_as_string(hide_password=False)
            return PostgresHuey(NAME, dsn=dsn, **options)
    except Exception as error:  # from huey, redis or psycopg, or because one is not installed
        name = "REDIS_URL" if redis_url else "DATABASE_URL"
        raise BackendError(
            f"the queue at {name} cannot be used ({error}): correct it", details={"backend": "queue"}
        ) from error
    file = Path(database.database or "").with_name("queue.db")
    try:
        return _in_file(file, options)
    except sqlite3.DatabaseError as error:
        if isinstance(
            error, sqlite3.OperationalError
        ):  # full, read-only or locked: a new file would not help
            raise BackendError(
                f"{file} cannot be used ({error}): make sure that there is room, and that it and its folder are writable",
                details={"backend": "queue"},
            ) from error
        log.warning("%s is damaged (%s) and is created again; nothing of value is lost", file, error)
        for end in ("", "-wal", "-shm"):
            file.with_name(file.name + end).unlink(missing_ok=True)
        return _in_file(file, options)


def _in_file(file: Path, options: dict[str, Any]) -> Huey:
    # Losing the file costs nothing, so it need not be synced to disk.
    queue = SqliteHuey(NAME, filename=str(file), fsync=False, timeout=30, **options)
    queue.pending_count()  # reads the file, to notice damage
    return queue


class _Listener(Consumer):  # type: ignore[misc]
    def _set_signal_handlers(self) -> None:
        """None: this process's signals belong to the application."""


class _Json(Serializer):  # type: ignore[misc]
    """huey pickles by default, and a pickle written into the queue would run as code; JSON cannot."""

    def _serialize(self, data: Any) -> bytes:
        return json.dumps(list(data)).encode()

    def _deserialize(self, data: bytes) -> Any:
        return Message(*json.loads(bytes(data)))
