"""Writes documents to an index and removes them, and notes the change of their collection's size in the SQL database.

After a kill, that size is counted anew.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from anyio import CancelScope

from ...access.room import NOTHING, Require, Size
from ...engines.interface import Chunk, VectorIndex

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_Result = TypeVar("_Result")

Version = tuple[str, str]
"""A document's id and the hash of its content."""

NUMBER = 8
"""Bytes that a number in metadata counts for."""

MEASURED_AT_ONCE = 256
"""Documents that are measured in one call, during which an index may block everything else."""


async def to_its_end(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Await the work to its end even if the caller is cancelled, so that no document stays half written."""
    task = asyncio.create_task(work)
    try:
        with CancelScope(shield=True):
            await asyncio.wait([task])
    except asyncio.CancelledError:  # raised by asyncio's task.cancel(), which ignores anyio's shield
        with CancelScope(shield=True):
            await asyncio.wait([task])
        raise
    return task.result()


def size(chunks: Iterable[Chunk]) -> Size:
    found = [_bytes(chunk.text) + _bytes(chunk.metadata) + _bytes(chunk.place) for chunk in chunks]
    return Size(len(found), sum(found))


def _bytes(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode(errors="replace"))
    if isinstance(value, dict):
        return sum(_bytes(name) + _bytes(one) for name, one in value.items())
    if isinstance(value, list):
        return sum(map(_bytes, value))
    return NUMBER


def _sizes(index: VectorIndex, document_ids: Sequence[str]) -> Size:
    """Return the size of all versions of these documents. Blocks."""
    total = NOTHING
    for start in range(0, len(document_ids), MEASURED_AT_ONCE):
        names, cursor = document_ids[start : start + MEASURED_AT_ONCE], None
        while True:
            page = index.passages(1000, cursor, names)
            total, cursor = total.more(size(page.heads)), page.cursor
            if cursor is None:
                break
    return total


def removed(
    index: VectorIndex, *, document_ids: Sequence[str], note: Callable[[Require | None, Size], None]
) -> int:
    """Remove documents; return how many of them existed. Blocks."""
    gone = _sizes(index, document_ids)
    deleted = index.delete(document_ids)
    note(None, NOTHING.less(gone))
    return deleted


def store(
    index: VectorIndex,
    versions: Sequence[Version],
    chunks: Sequence[Chunk],
    vectors: NDArray[np.float32],
    note: Callable[[Size], None],
) -> int:
    """Write versions, then remove older ones; return how many documents were replaced. Blocks.

    The change of size is noted before the write, so after a kill, or if older versions could not be removed, the noted
    size is too large rather than too small.
    """
    older = index.known([name for name, _ in versions])
    more = size(chunks).less(_sizes(index, sorted(older)))
    note(more)
    replaced = [version for version in versions if version[0] in older]
    # Another process may have written the same version since the caller looked: a failure here must not remove it.
    stored = {name for name, digest in replaced if digest in older[name]}
    new = [version for version in versions if version[0] not in stored]
    try:
        index.upsert(chunks, vectors)
    except BaseException:
        index.discard(new)
        note(NOTHING.less(more))
        raise
    try:
        index.keep_only(versions, older)
    except BaseException:
        # Where the older version is gone already, the new one is all there is of its document.
        there = index.known([name for name, _ in new])
        index.discard([(name, digest) for name, digest in new if there.get(name, set()) - {digest}])
        raise
    return len(replaced)
