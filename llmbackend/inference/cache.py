"""A cache of texts' vectors in a SQLite file, so that a text that was embedded once is not embedded again."""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from .. import slices
from ..disk import Disk
from ..errors import LLMBackendError
from .cache_writer import CacheWriter
from .fingerprint import TEXTS, Fingerprint

log = logging.getLogger(__name__)

MEMORY = 32 * 2**20
"""Bytes of the most recently used vectors that are also kept in memory."""


class Entry(NamedTuple):
    vector: bytes
    """Little-endian float32."""
    tokens: int | None
    cut: str | None
    """The fields of its Cut after `index`, as JSON."""


_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    place INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, key BLOB NOT NULL,
    checksum INTEGER NOT NULL, vector BLOB NOT NULL, tokens INTEGER NOT NULL, cut TEXT
)
"""
_MODELS = "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, vectors BLOB NOT NULL)"
_PUT_MODEL = "INSERT OR IGNORE INTO models VALUES (?, ?)"
_UNTOLD = -1  # instead of a number of tokens that is not known
# With these, a commit survives a kill, though perhaps not a power cut.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "journal_size_limit=4194304")
_GET = "SELECT key, checksum, vector, tokens, cut FROM vectors WHERE id IN (SELECT value FROM json_each(?))"
_PUT = "INSERT OR REPLACE INTO vectors (id, key, checksum, vector, tokens, cut) VALUES (?, ?, ?, ?, ?, ?)"
_MOVE = "UPDATE vectors SET place = (SELECT max(place) + 1 FROM vectors) WHERE place = ?"

# Errors that pass, such as a full disk or a file that may not be written. All others mean that the file is
# damaged.
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_READONLY,
}


class Cache:
    """Entries by key in a SQLite file of at most `megabytes`; the least recently used are removed first.

    It never raises: what cannot be read counts as missing, what cannot be written is not kept, and the log says why. Rows
    are in the order of writing. Which rows were read since is noted in memory; instead of being removed,
    these are moved to the end. Thread-safe; the file belongs to one process.
    """

    def __init__(self, file: Path, megabytes: int, disk: Disk | None = None) -> None:
        self._file = file
        self._limit = megabytes * 2**20
        self._disk = disk or Disk(file.parent, 0)
        # Reading has a connection of its own, so that it does not wait for writing. To hold both locks, take
        # them in this order.
        self._reading, self._writing = threading.Lock(), threading.Lock()
        # Held briefly, so that entries in memory never wait for the disk.
        self._memory = threading.Lock()
        self._queue = CacheWriter(f"cache of embeddings {file}", self._write, _bytes)
        self._reader: sqlite3.Connection | None = None
        self._writer: sqlite3.Connection | None = None
        self._recent: OrderedDict[bytes, Entry] = OrderedDict()
        self._recent_bytes = 0
        self._read: set[bytes] = set()
        self._new_models: dict[str, bytes] = {}
        self._failing = False

    def at_hand(self, key: bytes) -> Entry | None:
        """The entry of a key if it is in memory: it waits for no thread and no file."""
        with self._memory:
            entry = self._recent.get(key)
        if entry is not None:
            self._read.add(key)
        return entry

    def get(self, keys: Sequence[bytes]) -> list[Entry | None]:
        """The entries of these keys, in order: None for those that are not kept."""
        with self._memory:
            entries = [self._recent.get(key) for key in keys]
        if None not in entries:
            self._read.update(keys)
            return entries
        missing = [key for key, entry in zip(keys, entries, strict=True) if entry is None]
        try:
            with self._reading:
                if self._reader is None:
                    self._reader = self._connected()
                found = _selected(self._reader, missing)
        except (sqlite3.Error, _Damaged) as error:
            self._failed(error)
            return entries
        self.remember(found)
        entries = [entry or found.get(key) for key, entry in zip(keys, entries, strict=True)]
        self._read.update(key for key, entry in zip(keys, entries, strict=True) if entry)
        return entries

    def name_of(self, model: Fingerprint) -> str:
        """The name that a model's vectors are kept under, whatever its server calls the model."""
        assert model.vectors is not None, "a model in this process is known by its digest"
        try:
            with self._reading:
                if self._reader is None:
                    self._reader = self._connected()
                for name, block in self._reader.execute("SELECT name, vectors FROM models"):
                    if model.same_vectors(_of_block(block)):
                        return str(name)
        except (sqlite3.Error, _Damaged) as error:
            self._failed(error)
        self._new_models[model.key] = model.vectors.astype("<f4").tobytes()  # written with the first vectors
        return model.key

    def keep(self, entries: dict[bytes, Entry]) -> None:
        """Keep entries: in memory at once, in the file soon after, without waiting."""
        self.remember(entries)
        self._queue.put(entries)

    def remember(self, entries: dict[bytes, Entry]) -> None:
        with self._memory:
            for key, entry in entries.items():
                before = self._recent.pop(key, None)
                self._recent[key] = entry
                self._recent_bytes += len(entry.vector) - (len(before.vector) if before else 0)
            while self._recent_bytes > min(MEMORY, self._limit):
                _, entry = self._recent.popitem(last=False)
                self._recent_bytes -= len(entry.vector)

    def _write(self, entries: dict[bytes, Entry]) -> None:
        size = sum(map(_bytes, entries.values()))
        try:
            # Twice the size, because entries are in the write-ahead log as well.
            with self._disk.writing(2 * size), self._writing:
                if self._writer is None:
                    self._writer = self._connected()
                with self._writer:
                    kept = self._make_room(self._writer, entries)
                    self._writer.executemany(_PUT, _rows(kept))
                    self._writer.executemany(_PUT_MODEL, list(self._new_models.items()))
            self._failing = False
        except (sqlite3.Error, _Damaged, LLMBackendError) as error:
            self._failed(error)

    def close(self) -> None:
        """Write what is queued, for ten seconds at most, and close the file."""
        if self._queue.close():
            with self._reading, self._writing:
                self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        # Our locks make sure that only one thread at a time uses it.
        connection = sqlite3.connect(self._file, check_same_thread=False)
        try:
            for pragma in _PRAGMAS:
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(_TABLE)
            connection.execute(_MODELS)
            size = _pragma(connection, "page_size")
            connection.execute(f"PRAGMA max_page_count={self._limit // size}")
            if _pragma(connection, "page_count") * size > self._limit:
                raise _Damaged("it is larger than EMBEDDING_CACHE_MB")
        except BaseException:
            connection.close()
            raise
        return connection

    def _make_room(self, connection: sqlite3.Connection, entries: dict[bytes, Entry]) -> dict[bytes, Entry]:
        """Remove the oldest tenth until the entries fit; return those to write, only the last if not all can
        ever fit."""
        kept: dict[bytes, Entry] = {}
        needed = 0.0
        for key, entry in reversed(entries.items()):
            needed += 1.5 * len(entry.vector) + 200  # pages are not full
            if needed > 0.8 * self._limit:
                break
            kept[key] = entry
        size = _pragma(connection, "page_size")
        while True:
            pages = _pragma(connection, "page_count") - _pragma(connection, "freelist_count")
            if pages * size + needed <= self._limit:
                return kept
            count = connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
            oldest = connection.execute(
                "SELECT place, key FROM vectors ORDER BY place LIMIT ?", [count // 10 + 1]
            ).fetchall()
            if not oldest:
                return kept
            connection.executemany(_MOVE, [[place] for place, key in oldest if key in self._read])
            self._read.difference_update(key for _, key in oldest)
            connection.execute("DELETE FROM vectors WHERE place <= ?", [oldest[-1][0]])

    def _failed(self, error: Exception) -> None:
        """Log the error, and start a new file if this one is damaged."""
        passing = isinstance(error, LLMBackendError) or (
            isinstance(error, sqlite3.Error) and error.sqlite_errorcode & 0xFF in _PASSING
        )
        if not self._failing or not passing:
            remedy = "vectors are not kept for now" if passing else "it begins anew"
            log.warning("the cache of embeddings %s cannot be used (%s): %s", self._file, error, remedy)
        self._failing = True
        with self._reading, self._writing:
            self._disconnect()
            for end in () if passing else ("", "-wal", "-shm"):
                with suppress(OSError):
                    self._file.with_name(self._file.name + end).unlink(missing_ok=True)

    def _disconnect(self) -> None:
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()
        self._reader = self._writer = None
        self._read.clear()


class _Damaged(Exception):
    """The file is a database, but its content is not ours."""


def _of_block(block: Any) -> Fingerprint:
    import numpy as np

    if not isinstance(block, bytes) or len(block) % (4 * len(TEXTS)):
        raise _Damaged("a model in it is damaged")
    return Fingerprint("", vectors=np.frombuffer(block, "<f4").reshape(len(TEXTS), -1))


def _selected(connection: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, Entry]:
    found: dict[bytes, Entry] = {}
    for key, checksum, vector, tokens, cut in connection.execute(
        _GET, [json.dumps([_number(key) for key in keys])]
    ):
        entry = Entry(vector, None if tokens == _UNTOLD else tokens, cut)
        if not isinstance(entry.vector, bytes) or zlib.crc32(entry.vector) != checksum:
            raise _Damaged("a vector in it is damaged")
        found[key] = entry
    return found


def _rows(entries: dict[bytes, Entry]) -> Iterator[tuple[Any, ...]]:
    for key, entry in entries.items():
        slices.give_way()
        yield _number(key), key, zlib.crc32(entry.vector), *_stored(entry)


def _stored(entry: Entry) -> Entry:
    return entry if entry.tokens is not None else entry._replace(tokens=_UNTOLD)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _bytes(entry: Entry) -> int:
    return len(entry.vector) + 200  # its key and numbers, and what SQLite needs for a row


def _number(key: bytes) -> int:
    """The number by which a key is looked up; the row also has the whole key, to compare."""
    return int.from_bytes(key[:8], "big", signed=True)
