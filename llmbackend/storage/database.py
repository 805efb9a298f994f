"""The SQL database, with everything but vectors and caches: manifests, jobs, keys, usage and stored responses."""

from __future__ import annotations

import asyncio
import queue
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    URL,
    Connection,
    Engine,
    create_engine,
    event,
    func,
    make_url,
    select,
)
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from .. import panics, threads
from ..errors import BackendError
from ..vitals import Vitals
from . import failures, schema
from .prepared import on_file

JOIN_SECONDS = 0.002  # seconds that a patient write waits for others to join its transaction
BATCH = 200  # most writes in one transaction
BUSY = 30_000  # milliseconds to wait for SQLite's lock

_Result = TypeVar("_Result")


def connect(where: Path | str) -> Engine:
    """Return an engine for a SQLite file, or for the database of a URL (SQLite, PostgreSQL).

    Makes or migrates the tables. Raises BackendError if the database cannot be used. The caller disposes of the engine.
    """
    if isinstance(where, Path):
        _check_file(where)
    try:
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else make_url(where)
        if url.drivername in ("postgresql", "postgres"):
            url = url.set(drivername="postgresql+psycopg")
        if url.get_backend_name() not in ("sqlite", "postgresql"):
            raise schema.unusable(
                f"DATABASE_URL cannot be used: it is for {url.get_backend_name()}; give one like postgresql://host/name or "
                "sqlite:////folder/file"
            )
        name = url.render_as_string(hide_password=True) if isinstance(where, str) else str(where)
        own = {"factory": _File} if url.get_backend_name() == "sqlite" else {}
        engine = create_engine(
            url,
            pool_size=10,
            max_overflow=20,
            pool_pre_ping=url.host is not None,
            connect_args=own,
            execution_options={"llmbackend_name": name},
        )
    except (ArgumentError, ImportError) as error:
        reason = f"pip install 'llmbackend[postgres]' ({error})" if isinstance(error, ImportError) else error
        raise schema.unusable(f"DATABASE_URL cannot be used: {reason}") from error
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure)
    event.listen(engine, "begin", _begin)
    event.listen(engine, "handle_error", failures.of_statement, retval=True)
    try:
        with transaction(engine) as connection:
            if (
                engine.dialect.name == "postgresql"
            ):  # so that processes that start at the same time wait, as they do for SQLite's lock
                connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7238001)")
            schema.prepare(connection, name)
    except SQLAlchemyError as error:
        engine.dispose()
        raise schema.unusable(
            f"{name} cannot be used ({type(error).__name__}): restore it from a backup, or move it away to start afresh"
        ) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def _check_file(file: Path) -> None:
    """Raise BackendError for an empty file beside collections. SQLite would take it for a new database, but it is a lost one."""
    log = file.with_name(f"{file.name}-wal")
    emptied = file.is_file() and file.stat().st_size == 0 and not (log.is_file() and log.stat().st_size)
    others = file.with_name("collections")
    if emptied and others.is_dir() and any(others.iterdir()):
        raise schema.unusable(
            f"{file} cannot be used (it is empty, and there are collections beside it): {failures.RESTORE}"
        )


class _File(sqlite3.Connection):
    """A connection that closes its cursors when a transaction ends.

    SQLite keeps a half-read SELECT, and its snapshot, beyond the transaction: the next user of the pooled connection would
    read old data, and could not write.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._cursors: weakref.WeakSet[sqlite3.Cursor] = weakref.WeakSet()

    def cursor(self, *args: Any, **options: Any) -> sqlite3.Cursor:  # type: ignore[override]
        cursor: sqlite3.Cursor = super().cursor(*args, **options)
        self._cursors.add(cursor)
        return cursor

    def commit(self) -> None:
        self._end_reading()
        super().commit()

    def rollback(self) -> None:
        self._end_reading()
        super().rollback()

    def _end_reading(self) -> None:
        for cursor in list(self._cursors):
            cursor.close()
        self._cursors.clear()


@contextmanager
def transaction(engine: Engine, *, durable: bool = True) -> Iterator[Connection]:
    """Begin a transaction that writes. If it is not `durable`, it survives a kill of the process, but not a power cut."""
    options = {"llmbackend_write": "durable" if durable else "quick"}
    with engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def one_at_a_time(connection: Connection, what: str) -> None:
    """Let no other transaction pass this with the same `what` before this one ends. SQLite has one that writes anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(what, 0))))


def _configure(connection: Any, _: Any) -> None:
    # The driver begins a transaction only at the first write, which SQLite may refuse after a read: `_begin` does it.
    connection.isolation_level = None
    # WAL lets readers work beside the one writer; FULL makes a commit survive a power cut.
    for pragma in (f"busy_timeout={BUSY}", "journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("llmbackend_write")
    if connection.dialect.name == "sqlite":
        level = "NORMAL" if writes == "quick" else "FULL"
        if writes and connection.info.get("synchronous") != level:
            on_file(connection, f"PRAGMA synchronous={level}")
            connection.info["synchronous"] = level
        on_file(connection, "BEGIN IMMEDIATE" if writes else "BEGIN")
    elif writes == "quick":
        connection.exec_driver_sql("SET LOCAL synchronous_commit TO OFF")


class _Asked(NamedTuple):
    work: Callable[[Connection], Any]
    durable: bool
    patient: bool
    done: asyncio.Future[Any]


class Database:
    """Reads in threads and writes in one thread. Must be made on the event loop that uses it.

    Writes that are requested during a commit go into the next transaction together, so they share the cost of a commit,
    and threads do not queue for SQLite's lock. `read` and `write` take a function of a connection. One that writes must do
    nothing but SQL, because it runs again, alone, if another write of its transaction fails. Once requested, a write is
    done, even if its caller is cancelled.
    """

    def __init__(self, engine: Engine, vitals: Vitals | None = None) -> None:
        self.engine = engine
        self._vitals = vitals or Vitals()
        self._asked: queue.SimpleQueue[_Asked | None] = queue.SimpleQueue()  # None ends the thread
        self._put_back: list[_Asked | None] = []  # taken from `_asked`, but for the next batch
        self._kept: Connection | None = None
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="llmbackend-writer", daemon=True)
        self._thread.start()

    async def read(
        self, work: Callable[..., _Result], *args: Any, waits: threads.Threads = threads.database
    ) -> _Result:
        """Return `work(connection, *args)`, run in one of the threads `waits`."""

        def run() -> _Result:
            with self.engine.connect() as connection:
                return work(connection, *args)

        return await waits(run)

    def write(
        self, work: Callable[..., _Result], *args: Any, durable: bool = True, patient: bool = False
    ) -> asyncio.Future[_Result]:
        """Request a write; return a future of `work(connection, *args)`, which is done once that is committed.

        Writes are done in the order of the calls. With `patient`, this one waits a moment for others to share its commit.
        """
        done: asyncio.Future[_Result] = self._loop.create_future()
        self._asked.put(_Asked(lambda connection: work(connection, *args), durable, patient, done))
        return done

    async def close(self) -> None:
        """Do all requested writes, and end the thread. The engine stays open."""
        self._asked.put(None)
        await threads.database(self._thread.join)

    def _run(self) -> None:
        try:
            while (first := self._put_back.pop() if self._put_back else self._asked.get()) is not None:
                self._vitals.begun("database")
                self._commit(self.collect_batch(first))
        finally:
            self._let_go()

    def collect_batch(self, first: _Asked) -> Iterator[_Asked]:
        """Yield the writes of one transaction: the first, and each that is requested by the time the previous one is done.

        Ends when no write waits, after BATCH writes, and before a durable write if the first is not durable.
        """
        second = self._joining(first, JOIN_SECONDS) if first.patient else None
        yield first
        for _ in range(BATCH - 1):
            one, second = second or self._joining(first), None
            if one is None:
                return
            yield one

    def _joining(self, first: _Asked, wait: float = 0) -> _Asked | None:
        """Return the next write if it may join the first one's transaction; else None."""
        if self._put_back:
            return None
        try:
            one = self._asked.get(timeout=wait) if wait else self._asked.get_nowait()
        except queue.Empty:
            return None
        if one is None or (one.durable and not first.durable):
            self._put_back.append(one)
            return None
        return one

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[Connection]:
        if self.engine.dialect.name != "sqlite":
            with transaction(self.engine, durable=durable) as connection:
                yield connection
            return
        # A file, unlike a server, does not go away: keeping its connection saves a third of the time of a small write.
        try:
            if self._kept is None:
                self._kept = self.engine.connect()
            self._kept.execution_options(llmbackend_write="durable" if durable else "quick")
            with self._kept.begin():
                yield self._kept
        except BaseException:
            self._let_go()  # the connection may be in any state
            raise

    def _let_go(self) -> None:
        kept, self._kept = self._kept, None
        if kept is not None:
            with suppress(Exception):
                kept.close()

    def _commit(self, writes: Iterator[_Asked]) -> None:
        """Do the writes in one transaction; if one fails, each in its own."""
        batch = [next(writes)]
        outcomes: list[Any] = []
        try:
            with self._transaction(durable=batch[0].durable) as connection:
                while len(outcomes) < len(batch):
                    with panics.caught():
                        outcomes.append(batch[-1].work(connection))
                    batch.extend(islice(writes, 1))
        except Exception as error:
            outcomes = [error]
            if len(batch) > 1:
                for one in batch:
                    self._commit(iter([one]))
                return
            if isinstance(error, BackendError):
                self._vitals.failed("database", error)
            else:  # an error of this write, not of the database
                self._vitals.well("database")
        else:
            self._vitals.well("database")
        with suppress(RuntimeError):  # the loop has ended: nobody waits
            self._loop.call_soon_threadsafe(_settle, batch, outcomes)


def _settle(batch: list[_Asked], outcomes: list[Any]) -> None:
    for one, outcome in zip(batch, outcomes, strict=True):
        if one.done.done():  # the caller was cancelled
            continue
        if isinstance(outcome, Exception):
            one.done.set_exception(outcome)
        else:
            one.done.set_result(outcome)
