"""Rows of a job's result: written in chunks while it runs, read in pages, never all in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, bindparam, delete, func, insert, select, update

from ..errors import Conflict
from ..storage import kept
from . import ledger
from .ledger import Claim
from .tables import dependencies, jobs, params, webhooks
from .tables import rows as table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INLINE_BYTES = 2**20
"""Larger results are not included in a job's status, but read in pages."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive rows: lines of JSON, or vectors of little-endian float32 if `dimension` is not 0."""

    first: int
    count: int
    dimension: int
    data: bytes


class Results:
    """The result being written. Appended rows are stored by the next checkpoint, or at the end of the job."""

    def __init__(self, count: int = 0, size: int = 0) -> None:
        self.count = count
        """Rows so far, including earlier attempts'."""
        self.size = size
        self._waiting: list[Chunk] = []

    def append(self, rows: Sequence[Any]) -> None:
        """Append rows of JSON."""
        lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
        self._add(len(rows), 0, "\n".join(lines).encode("utf-8", "surrogatepass"))

    def append_vectors(self, vectors: NDArray[np.float32]) -> None:
        """Append rows of vectors: a (count, dimension) matrix."""
        count, dimension = vectors.shape
        self._add(count, dimension, vectors.astype("<f4", copy=False).tobytes())

    def _add(self, count: int, dimension: int, data: bytes) -> None:
        if count:
            self._waiting.append(Chunk(self.count, count, dimension, data))
            self.count += count
            self.size += len(data)

    def take(self) -> list[Chunk]:
        """Return the chunks not stored yet and forget them; the caller stores them."""
        taken, self._waiting = self._waiting, []
        return taken


def advance(connection: Connection, job: Claim, values: dict[str, Any], chunks: list[Chunk]) -> None:
    """Update the attempt's job, and store chunks of its result. Raises LostAttempt."""
    if "row_bytes" in values:
        values = {**values, **_kept(job, values)}
    ledger.advance(connection, job, values)
    store(connection, job.number, chunks)


def complete(
    connection: Connection, job: Claim, result: str, values: dict[str, Any], chunks: list[Chunk]
) -> None:
    ledger.complete(connection, job, result, {**values, **_kept(job, values, result)})
    store(connection, job.number, chunks)


def _kept(job: Claim, values: dict[str, Any], result: str = "") -> dict[str, int]:
    texts = kept.size(job.params, values.get("checkpoint", job.checkpoint), result)
    return {"kept_bytes": texts + values["row_bytes"]}


def store(connection: Connection, job: int, chunks: Sequence[Chunk]) -> None:
    """Store chunks of a job's result."""
    if chunks:
        connection.execute(_STORE, [{"job": job, **asdict(chunk)} for chunk in chunks])


_STORE = insert(table)


def expire(connection: Connection, oldest: str) -> int:
    """Delete the params and results of up to 100 jobs that ended before `oldest`; return how many jobs."""
    old = (
        select(jobs.c.number)
        .join(params, params.c.job == jobs.c.number)
        .where(jobs.c.finished_at < oldest)
        .limit(100)
    )
    numbers = list(connection.execute(old).scalars())
    if numbers:
        connection.execute(delete(table).where(table.c.job.in_(numbers)))
        connection.execute(delete(params).where(params.c.job.in_(numbers)))
        connection.execute(
            update(jobs).where(jobs.c.number.in_(numbers)).values(result=None, checkpoint=None, kept_bytes=0)
        )
    return len(numbers)


def forget(connection: Connection, oldest: str) -> int:
    """Delete up to 100 jobs that ended before `oldest`, with all their rows; return how many."""
    old = select(jobs.c.number).where(jobs.c.finished_at < oldest).order_by(jobs.c.number).limit(100)
    numbers = list(connection.execute(old).scalars())
    if numbers:
        _forget(connection, numbers)
    return len(numbers)


def remove(connection: Connection, reach: str | None, job_id: str) -> None:
    """Delete a job that has ended, with all its rows. Raises NotFound, and Conflict if it has not ended."""
    row = ledger.find(connection, reach, job_id, jobs.c.number, jobs.c.status, lock=True)
    if row.status in ("queued", "running"):
        raise Conflict(
            f"job {job_id} is {row.status}: only a job that has ended can be deleted; cancel it first",
            details={"job_id": job_id, "status": row.status},
        )
    _forget(connection, [row.number])


def _forget(connection: Connection, numbers: list[int]) -> None:
    for its in (table, params, webhooks, dependencies):
        connection.execute(delete(its).where(its.c.job.in_(numbers)))
    # Dependants were notified when these ended.
    connection.execute(delete(dependencies).where(dependencies.c.waits_for.in_(numbers)))
    connection.execute(delete(jobs).where(jobs.c.number.in_(numbers)))


def read(connection: Connection, job: int, offset: int = 0, limit: int | None = None) -> Iterator[Chunk]:
    """Chunks with up to `limit` rows from `offset` on."""
    query = _FROM if limit is None else _FROM.where(table.c.first < offset + limit)
    for row in connection.execute(query, {"of_job": job, "offset": offset}):
        chunk = Chunk(*row)
        stop = chunk.count if limit is None else min(chunk.count, offset + limit - chunk.first)
        yield _cut(chunk, max(0, offset - chunk.first), stop)


_JOB, _OFFSET = table.c.job == bindparam("of_job"), bindparam("offset", type_=table.c.first.type)

_FROM = (
    select(table.c.first, table.c.count, table.c.dimension, table.c.data)
    .where(
        _JOB,
        table.c.first
        >= select(func.max(table.c.first)).where(_JOB, table.c.first <= _OFFSET).scalar_subquery(),
        table.c.first + table.c.count > _OFFSET,
    )
    .order_by(table.c.first)
)


def stored(connection: Connection, job: int) -> list[Any]:
    """All JSON rows stored so far; vectors are left out."""
    return values([chunk for chunk in read(connection, job) if not chunk.dimension])


def _cut(chunk: Chunk, start: int, stop: int) -> Chunk:
    if (start, stop) == (0, chunk.count):
        return chunk
    if chunk.dimension:
        width = 4 * chunk.dimension
        data = chunk.data[start * width : stop * width]
    else:
        data = b"\n".join(chunk.data.split(b"\n")[start:stop])
    return Chunk(chunk.first + start, stop - start, chunk.dimension, data)


def lines(chunk: Chunk) -> list[bytes]:
    """One line of JSON per row; a vector is `{index, embedding}` with base64 of its float32, as in OpenAI's API."""
    if not chunk.dimension:
        return chunk.data.split(b"\n")
    width = 4 * chunk.dimension
    return [
        b'{"index":%d,"embedding":"%s"}'
        % (chunk.first + row, base64.b64encode(chunk.data[row * width : (row + 1) * width]))
        for row in range(chunk.count)
    ]


def text(chunks: Sequence[Chunk]) -> bytes:
    """All rows as lines of JSON."""
    return b"".join(line + b"\n" for chunk in chunks for line in lines(chunk))


def values(chunks: Sequence[Chunk]) -> list[Any]:
    """Rows as parsed JSON."""
    return [json.loads(line) for chunk in chunks for line in lines(chunk)]


def whole(chunks: Sequence[Chunk]) -> Any:
    """All rows as included in a small result: a list, or base64 of all vectors one after the other."""
    if chunks and chunks[0].dimension:
        return base64.b64encode(b"".join(chunk.data for chunk in chunks)).decode()
    return values(chunks)
