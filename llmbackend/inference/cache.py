"""Vectors kept from one call to the next, by the content of their texts: what was embedded once costs no model."""

from __future__ import annotations

import hashlib
import json
import logging
import sqlite3
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from .. import threads, tracing
from ..access.caller import DEFAULT
from ..disk import Disk
from ..errors import InvalidRequest, LLMBackendError
from .cache_writer import CacheWriter
from .embeddings import Cut, Embedder, EmbeddingBatch, TextRefused, TokenIds, TooLong
from .fingerprint import TEXTS, Fingerprint

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger(__name__)

MEMORY = 32 * 2**20
"""Bytes of vectors kept in memory as well: those used last."""

LONG = 2**16
"""Characters from which on a text is looked up in a thread: hashing it would block the loop."""


BULK = 8_192
"""New texts in a row after which more are expected."""

SAMPLE = 64
"""Of more texts than these, so many are looked up where all are expected to be new."""


Role = Literal["query", "passage"]


class Prompts(NamedTuple):
    """Prefixes for texts, for models that were trained with them."""

    query: str = ""
    passage: str = ""


NO_PROMPTS = Prompts()


class Entry(NamedTuple):
    vector: bytes
    """Little-endian float32."""
    tokens: int | None
    cut: str | None
    """The fields of its Cut after the index, as JSON."""


class CachedEmbedder:
    """An embedder that asks its model only for what the cache does not have; without a cache, for everything.

    It is the one all others use: here is told where a refused text stands, and noted what the model read.
    """

    def __init__(
        self,
        model: Embedder,
        cache: Cache | None,
        prompts: Prompts = NO_PROMPTS,
        *,
        counts: bool = True,
        keeps_bulk: bool = True,
    ) -> None:
        """What it reads `counts` as the caller's, unless it helps to answer only.

        A model that makes vectors in the time that keeping them takes `keeps_bulk` not: of a great many new texts most
        go by without the cache, which then still has what was in it before.
        """
        self._counts = counts
        self._keeps_bulk = keeps_bulk
        self._new_in_a_row = 0
        self.hits = self.misses = 0
        """Texts that were in the cache, and that were not."""
        self.model = model
        """The model itself, without the cache."""
        self._cache = cache
        self._prompts = prompts
        # Of the model as it was looked at last: with prompts, and by the cache's name for it.
        self._made_by: tuple[Fingerprint | None, Fingerprint] | tuple[None, None] = None, None
        self._kept_by: tuple[Fingerprint | None, str] = None, ""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def names(self) -> tuple[str, ...]:
        return self.model.names

    async def fingerprint(self) -> Fingerprint:
        """The model's, with the prompts that questions and passages get here."""
        return self._with_prompts(await self.model.fingerprint())

    def _with_prompts(self, made_by: Fingerprint) -> Fingerprint:
        if self._prompts == NO_PROMPTS:
            return made_by
        before, with_prompts = self._made_by
        if with_prompts is None or before is not made_by:
            with_prompts = replace(made_by, query=self._prompts.query, passage=self._prompts.passage)
            self._made_by = made_by, with_prompts
        return with_prompts

    @property
    def uncached(self) -> CachedEmbedder:
        """The same model without the cache. Not to be closed."""
        return CachedEmbedder(self.model, None, self._prompts, counts=self._counts)

    async def embed(
        self,
        texts: Sequence[str],
        *,
        dimensions: int | None = None,
        too_long: TooLong = "split",
        role: Role | None = None,
    ) -> EmbeddingBatch:
        """One vector a text, in order; raises an LLMBackendError: for a refused text InvalidRequest with its `index`.

        Texts of a collection have a `role`, for which there may be a prompt.
        """
        prompt = getattr(self._prompts, role) if role else ""
        written = [prompt + text for text in texts] if prompt else texts
        ask = partial(self.model.embed, dimensions=dimensions, too_long=too_long)
        try:
            if self._cache is None:
                vectors = self._noted(await ask(written))
                made_by = vectors.made_by or await self.model.fingerprint()
            else:
                vectors, made_by = await self._through(self._cache, written, [dimensions, too_long], ask)
        except TextRefused as refused:
            raise _placed(refused, written) from refused.__cause__
        return vectors._replace(made_by=self._with_prompts(made_by))

    async def _through(
        self, cache: Cache, texts: Sequence[str], how: list[Any], ask: Any
    ) -> tuple[EmbeddingBatch, Fingerprint]:
        """The vectors, and the model that made them all."""
        while True:
            made_by = await self.model.fingerprint()
            before, name = self._kept_by
            if before is not made_by:
                name = made_by.digest or await threads.files(cache.name_of, made_by)
                self._kept_by = made_by, name
            key_of = _key(name, *how, tracing.current().caller.project)
            vectors = await self._embed(cache, key_of, texts, how[0], ask, made_by)
            if vectors is not None:
                return vectors, vectors.made_by or made_by

    async def _embed(
        self,
        cache: Cache,
        key_of: _Key,
        texts: Sequence[str],
        dimensions: int | None,
        ask: Any,
        made_by: Fingerprint,
    ) -> EmbeddingBatch | None:
        """None if it was another model by now that was asked for those that are missing."""
        if len(texts) == 1 and len(texts[0]) < LONG:
            if entry := cache.at_hand(key := key_of(texts[0])):
                self._note()
                self.hits += 1
                return _vectors([entry])
            if new := self.model.at_once(texts[0], dimensions):
                cache.remember(dict(zip([key], _entries(new), strict=True)))
                return self._noted(new)
        if await self._are_new(cache, key_of, texts):
            self.misses += len(texts)
            new = self._noted(await ask(texts))
            return new if new.made_by is None or new.made_by.same_vectors(made_by) else None
        keys, entries, vectors = await threads.files(_look_up, cache, key_of, texts)
        found = sum(entry is not None for entry in entries)
        if len(texts) > SAMPLE:
            self._new_in_a_row = self._new_in_a_row + len(texts) if 10 * found < len(texts) else 0
        if vectors is not None:
            self._note()
            self.hits += len(texts)
            return vectors
        self.hits, self.misses = self.hits + found, self.misses + len(texts) - found
        missing = {key: text for key, text, entry in zip(keys, texts, entries, strict=True) if entry is None}
        new = self._noted(await ask(list(missing.values())))
        if new.made_by is not None and not new.made_by.same_vectors(made_by):
            return None
        return await threads.processor(_merged, cache, list(missing), new, keys, entries)

    async def _are_new(self, cache: Cache, key_of: _Key, texts: Sequence[str]) -> bool:
        """Whether these are some of a great many new texts, of which none needs to be kept."""
        if self._keeps_bulk or len(texts) <= SAMPLE or self._new_in_a_row < BULK:
            return False
        some = texts[:: len(texts) // SAMPLE]
        return not any((await threads.files(_look_up, cache, key_of, some))[1])

    def at_once(self, text: str, dimensions: int | None) -> EmbeddingBatch | None:
        return self.model.at_once(text, dimensions)

    def weight(self, text: str, tokens: int | None) -> float:
        return self.model.weight(text, tokens)

    async def embed_tokens(
        self, texts: Sequence[TokenIds], *, dimensions: int | None = None
    ) -> EmbeddingBatch:
        """As `embed`, of token ids, which are not kept."""
        try:
            return self._noted(await self.model.embed_tokens(texts, dimensions=dimensions))
        except TextRefused as refused:
            raise _placed(refused, texts) from refused.__cause__

    def _noted(self, vectors: EmbeddingBatch) -> EmbeddingBatch:
        self._note(None if vectors.noted else vectors.total)
        return vectors

    def _note(self, tokens: int | None = None) -> None:
        if self._counts:
            tracing.current().used(self.name, {"embedded_tokens": tokens})

    async def close(self) -> None:
        await self.model.close()
        if self._cache is not None:
            await threads.files(self._cache.close)


def _placed(refused: TextRefused, texts: Sequence[str] | Sequence[TokenIds]) -> InvalidRequest:
    # It may be a part of the text that is meant.
    places = [index for index, text in enumerate(texts) if text == refused.text]
    places += [index for index, text in enumerate(texts) if refused.text in text]
    index = places[0]
    return InvalidRequest(f"input.{index}: {refused.reason}", details={**refused.details, "index": index})


class _Key:
    def __init__(self, seed: bytes) -> None:
        self._seed = hashlib.blake2b(seed, digest_size=24)

    def __call__(self, text: str) -> bytes:
        """The hash of all that the text's vector depends on."""
        hashed = self._seed.copy()
        hashed.update(text.encode(errors="surrogatepass"))
        return hashed.digest()


@lru_cache(1000)
def _key(name: str, dimensions: int | None, too_long: TooLong, project: str) -> _Key:
    """A project has its own, or the time that a text takes would tell that another has it, too."""
    whose = [] if project == DEFAULT else [project]  # as all were kept before there were projects
    return _Key(json.dumps([name, dimensions, too_long, *whose]).encode())


def _look_up(
    cache: Cache, key_of: _Key, texts: Sequence[str]
) -> tuple[list[bytes], list[Entry | None], EmbeddingBatch | None]:
    """The texts' keys and entries, and the vectors if nothing is missing."""
    keys = [key_of(text) for text in texts]
    entries = cache.get(keys)
    found = [entry for entry in entries if entry is not None]
    return keys, entries, _vectors(found) if len(found) == len(keys) else None


def _merged(
    cache: Cache, missing: list[bytes], new: EmbeddingBatch, keys: list[bytes], entries: list[Entry | None]
) -> EmbeddingBatch:
    """The vectors of all keys: of those that were there and those that are new, which are kept."""
    fresh = dict(zip(missing, _entries(new), strict=True))
    cache.keep(fresh)
    if len(missing) == len(keys):
        return new
    merged = _vectors([entry or fresh[key] for key, entry in zip(keys, entries, strict=True)])
    return merged._replace(made_by=new.made_by)


def _entries(vectors: EmbeddingBatch) -> list[Entry]:
    cuts = {cut.index: json.dumps([cut.tokens, cut.limit, cut.parts]) for cut in vectors.cut}
    return [
        Entry(row.tobytes(), tokens, cuts.get(index))
        for index, (row, tokens) in enumerate(zip(vectors.values.astype("<f4"), vectors.tokens, strict=True))
    ]


def _vectors(entries: list[Entry]) -> EmbeddingBatch:
    import numpy as np

    block, tokens, cuts = zip(*entries, strict=True)
    values: np.ndarray[Any, Any] = np.frombuffer(b"".join(block), "<f4").reshape(len(entries), -1)
    cut = [Cut(index, *json.loads(fields)) for index, fields in enumerate(cuts) if fields]
    return EmbeddingBatch(values, list(tokens), cut)


_TABLE = """
CREATE TABLE IF NOT EXISTS vectors (
    place INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE, key BLOB NOT NULL,
    checksum INTEGER NOT NULL, vector BLOB NOT NULL, tokens INTEGER NOT NULL, cut TEXT
)
"""
_MODELS = "CREATE TABLE IF NOT EXISTS models (name TEXT PRIMARY KEY, vectors BLOB NOT NULL)"
_PUT_MODEL = "INSERT OR IGNORE INTO models VALUES (?, ?)"
_UNTOLD = -1  # in place of a number of tokens
# A commit survives a kill, though perhaps not a power cut.
_PRAGMAS = ("journal_mode=WAL", "synchronous=NORMAL", "journal_size_limit=4194304")
_GET = "SELECT key, checksum, vector, tokens, cut FROM vectors WHERE id IN (SELECT value FROM json_each(?))"
_PUT = "INSERT OR REPLACE INTO vectors (id, key, checksum, vector, tokens, cut) VALUES (?, ?, ?, ?, ?, ?)"
_MOVE = "UPDATE vectors SET place = (SELECT max(place) + 1 FROM vectors) WHERE place = ?"

# A disk that is full or a file that may not be written; other errors mean that the file is not what it was.
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
    """Entries by key in a SQLite file of at most `megabytes`, of which those not used for the longest time go first.

    It never fails: what cannot be read is missing, what cannot be written is not kept, and the log tells. Rows lie in
    the order of their writing; those read since then are noted in memory, and moved to the end when their turn to go
    has come. Safe to share by threads; the file belongs to one process.
    """

    def __init__(self, file: Path, megabytes: int, disk: Disk | None = None) -> None:
        self._file = file
        self._limit = megabytes * 2**20
        self._disk = disk or Disk(file.parent, 0)
        # A connection each, so that reading does not wait for writing; who needs both takes them in this order.
        self._reading, self._writing = threading.Lock(), threading.Lock()
        # What is in memory waits for no disk.
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
        """Entries that are in memory, without waiting for a thread or the file."""
        with self._memory:
            entry = self._recent.get(key)
        if entry is not None:
            self._read.add(key)
        return entry

    def get(self, keys: Sequence[bytes]) -> list[Entry | None]:
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
        """The name by which the vectors of a model are kept, whatever its server calls it and wherever that is."""
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
            # Twice: they are in the log, too.
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
        """Write what is queued, in ten seconds at most."""
        if self._queue.close():
            with self._reading, self._writing:
                self._disconnect()

    def _connected(self) -> sqlite3.Connection:
        # Threads take turns by our locks.
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
        """Remove the oldest until these fit, a tenth of all at a time; of more than fit at all, keep the last."""
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
    """The file is a database, but not as we left it."""


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
        threads.give_way()
        yield _number(key), key, zlib.crc32(entry.vector), *_stored(entry)


def _stored(entry: Entry) -> Entry:
    return entry if entry.tokens is not None else entry._replace(tokens=_UNTOLD)


def _pragma(connection: sqlite3.Connection, name: str) -> int:
    value: int = connection.execute(f"PRAGMA {name}").fetchone()[0]
    return value


def _bytes(entry: Entry) -> int:
    return len(entry.vector) + 200  # its key, its numbers, and what the file needs for a row


def _number(key: bytes) -> int:
    """What a key is looked up by; the whole key, which is in the row as well, tells whether it is that one."""
    return int.from_bytes(key[:8], "big", signed=True)
