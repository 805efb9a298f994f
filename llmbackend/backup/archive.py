"""A backup's file: compressed lines of JSON. The first is a header; the last tells how many lines of each
kind there are.

The format is independent of database and engine: rows of tables by column names, and chunks with their
vectors. A truncated or damaged file is reported before anything of it is used.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .. import __version__, slices
from ..disk import Disk, translated
from ..engines.interface import Chunk, Stored
from ..errors import InvalidRequest
from ..storage import schema

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMAT = 1
SUFFIX = ".jsonl.gz"
UNFINISHED = ".unfinished"
PART = 2**24
"""Free disk space is checked for this many bytes at a time."""

Line = dict[str, Any]


class Writer:
    """Writes a backup, whose file gets its name only when it is complete. Methods block."""

    def __init__(self, file: Path, disk: Disk, about: Mapping[str, Any]) -> None:
        self.file = file
        self.counts: Counter[str] = Counter()
        self._disk = disk
        self._unfinished = file.with_name(file.name + UNFINISHED)
        self._asked = 0
        disk.require(PART)
        # The file contains everything, so only its owner may read it.
        self._raw: IO[bytes] = os.fdopen(
            os.open(self._unfinished, os.O_CREAT | os.O_RDWR | os.O_TRUNC, 0o600), "wb"
        )
        self._lines = self._compressed()
        self._add(
            {
                "llmbackend_backup": FORMAT,
                "version": __version__,
                "schema": schema.numbers()[-1],
                **about,
            }
        )

    def rows(self, table: str, database: int, rows: Iterator[Mapping[str, Any]]) -> None:
        """Write rows of a table of the database with that number."""
        for row in rows:
            slices.give_way()
            values = {name: _written(value) for name, value in row.items()}
            self._add({"table": table, "database": database, "row": values}, "rows")

    def collection(self, row: Mapping[str, Any]) -> tuple[int, Counter[str]]:
        """Begin a collection; return its beginning, for `rewind`."""
        self._lines.close()
        begins = self._raw.tell(), self.counts.copy()
        self._lines = self._compressed()
        self._add({"collection": {name: _written(value) for name, value in row.items()}}, "collections")
        return begins

    def rewind(self, begins: tuple[int, Counter[str]]) -> None:
        """Take back everything written since the collection's beginning."""
        self._lines.close()
        self._raw.seek(begins[0])
        self._raw.truncate()
        self.counts = begins[1]
        self._lines = self._compressed()

    def chunks(self, stored: Stored) -> None:
        """Write chunks of the collection begun last."""
        rows = stored.vectors.astype("<f4", copy=False)
        for chunk, vector in zip(stored.chunks, rows, strict=True):
            slices.give_way()
            self._add(
                {
                    "chunk": [chunk.document_id, chunk.hash, chunk.number, chunk.total, chunk.text],
                    "metadata": chunk.metadata,
                    "place": chunk.place,
                    "vector": base64.b64encode(vector.tobytes()).decode(),
                },
                "chunks",
            )

    def finish(self) -> int:
        """Complete the file; return its size in bytes."""
        self._add({"end": dict(self.counts)})
        self._lines.close()
        with translated(self.file.parent):
            self._raw.flush()
            os.fsync(self._raw.fileno())
            size = self._raw.tell()
            self._raw.close()
            self._unfinished.replace(self.file)
        return size

    def drop(self) -> None:
        """Remove the unfinished file."""
        with suppress(OSError, ValueError):
            self._raw.close()
        self._unfinished.unlink(missing_ok=True)

    def _compressed(self) -> gzip.GzipFile:
        return gzip.GzipFile(fileobj=self._raw, mode="wb", compresslevel=1, mtime=0)

    def _add(self, line: Line, what: str | None = None) -> None:
        if what is not None:
            self.counts[what] += 1
        with translated(self.file.parent):
            self._lines.write(json.dumps(line, ensure_ascii=True).encode() + b"\n")
            if self._raw.tell() > self._asked:
                self._asked = self._raw.tell() + PART
                self._disk.require(PART)


def read(file: Path) -> Iterator[Line]:
    """Yield the lines of a backup, the header first, without the last line. Raises InvalidRequest if it is
    not complete."""
    counts: Counter[str] = Counter()
    end: Any = None
    try:
        with gzip.open(file) as lines:
            for number, text in enumerate(lines):
                line = json.loads(text)
                if number == 0:
                    _check_header(file, line)
                elif end is not None:
                    raise ValueError("it continues after its end")
                elif "end" in line:
                    end = line["end"]
                    continue
                else:
                    counts["rows" if "row" in line else "chunks" if "chunk" in line else "collections"] += 1
                yield line
            if end is None or Counter(end) != counts:
                raise ValueError("its end is missing")
    except (EOFError, ValueError, TypeError, KeyError, zlib.error, gzip.BadGzipFile) as error:
        raise _not_whole(file, error) from error
    except OSError as error:
        raise InvalidRequest(
            f"{file} cannot be read ({error.strerror or error})", details={"file": str(file)}
        ) from error


def check(file: Path, tell: Callable[[int], None]) -> tuple[Line, Counter[str]]:
    """Read all of it; return the header and the number of lines of each kind. Raises InvalidRequest if it is
    damaged."""
    counts: Counter[str] = Counter()
    header: Line = {}
    for number, line in enumerate(read(file)):
        if number == 0:
            header = line
        else:
            counts["rows" if "row" in line else "chunks" if "chunk" in line else "collections"] += 1
            try:
                _ = (
                    chunk_of(line)
                    if "chunk" in line
                    else values(line["row"] if "row" in line else line["collection"])
                )
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise _not_whole(file, error) from error
        if number % 1000 == 0:
            tell(number)
    return header, counts


def _not_whole(file: Path, error: Exception) -> InvalidRequest:
    said = str(error) or "it is cut short"
    return InvalidRequest(
        f"{file} is not a complete backup ({said}): use another one", details={"file": str(file)}
    )


def _check_header(file: Path, header: Any) -> None:
    if not isinstance(header, dict) or "llmbackend_backup" not in header:
        raise ValueError("it does not begin like a backup")
    if (header["llmbackend_backup"], header["schema"]) != (FORMAT, schema.numbers()[-1]):
        raise InvalidRequest(
            f"{file} was made by version {header['version']}, which has other tables than {__version__}: restore it "
            "with that version, then start this one on the same DATA_DIR",
            details={"file": str(file), "version": header["version"]},
        )


def values(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row with its original values."""
    return {name: _value(value) for name, value in row.items()}


def chunk_of(line: Line) -> tuple[Chunk, NDArray[np.float32]]:
    """A chunk and its vector."""
    import numpy as np

    vector = np.frombuffer(base64.b64decode(line["vector"], validate=True), dtype="<f4")
    document, digest, number, total, text = line["chunk"]
    return Chunk(document, digest, number, total, text, line["metadata"], line["place"]), vector


def _written(value: Any) -> Any:
    if isinstance(value, bytes | memoryview | bytearray):
        return {"bytes": base64.b64encode(value).decode()}
    return {"json": value} if isinstance(value, dict | list) else value


def _value(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return base64.b64decode(value["bytes"]) if "bytes" in value else value["json"]
