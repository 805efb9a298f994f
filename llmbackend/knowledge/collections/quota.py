"""How much projects store, and whether they may store more.

The SQL database has the size of each collection. Each write updates it; after a kill, it is counted anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ...access.caller import Caller, Limits
from ...access.limits import Limiter, Whose, too_much_stored
from ...engines.interface import Chunk

NUMBER = 8
"""Bytes that a number in metadata counts for."""
DIMENSION = 4
"""Bytes of one dimension of a vector."""


class Size(NamedTuple):
    """A size or, with negative numbers, a change of size."""

    chunks: int = 0
    bytes: int = 0
    """Bytes of texts and metadata, without vectors: those follow from the collection's dimension."""

    def more(self, other: Size) -> Size:
        return Size(self.chunks + other.chunks, self.bytes + other.bytes)

    def less(self, other: Size) -> Size:
        return Size(self.chunks - other.chunks, self.bytes - other.bytes)


NOTHING = Size()


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


Require = Callable[[Size, Size], None]
"""`require(now, more)` raises Overloaded if a project that stores `now`, including vectors, may not store `more`."""


class StorageLimits:
    """The storage limits of projects and keys."""

    def __init__(self, limiter: Limiter, kept: Callable[[str], Awaitable[int]]) -> None:
        """`kept(project)` returns the bytes that a project stores beside its collections."""
        self._limiter = limiter
        self.kept = kept

    async def of(self, caller: Caller, project: str) -> Require | None:
        """Return the check that a caller may store more in that project; None without limits."""
        limits = self._limiter.of_storage(caller, project)
        if not limits:
            return None

        beside = Size(0, await self.kept(project))

        def require(now: Size, more: Size) -> None:
            with self._limiter.noting(caller):
                require_within(limits, now.more(beside), more)

        return require


def require_within(limits: Sequence[tuple[Whose, Limits]], now: Size, more: Size) -> None:
    """Raise Overloaded if `more` on top of `now` passes one of the limits. Removing is always allowed."""
    for whose, most in limits:
        if most.chunks is not None and more.chunks > 0 and now.chunks + more.chunks > most.chunks:
            raise too_much_stored(whose, "chunks", most.chunks, now.chunks, more.chunks)
        if most.bytes is not None and more.bytes > 0 and now.bytes + more.bytes > most.bytes:
            raise too_much_stored(whose, "bytes", most.bytes, now.bytes, more.bytes)
