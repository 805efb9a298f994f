"""Whether what a project is about to store fits into its limits: in collections, and in the SQL database (params and
results of jobs, responses)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from ..storage import kept
from ..storage.database import Database
from .caller import Caller, Limits
from .limits import Limiter, Whose, too_much_stored


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


@dataclass(frozen=True, slots=True)
class Room:
    """The limits of bytes of one project, and what its collections take up."""

    project: str
    limits: Sequence[tuple[Whose, Limits]]
    elsewhere: int
    """The bytes of the project's collections."""

    def require(self, connection: Connection, more: int) -> None:
        """Raise Overloaded if so many more bytes would exceed a limit."""
        kept.lock(connection, self.project)
        used = self.elsewhere + kept.by(connection, self.project)
        require_within(self.limits, Size(0, used), Size(0, more))


class Rooms:
    """Makes the Room of a caller's project."""

    def __init__(
        self, limiter: Limiter, database: Database, collections: Callable[[str], Awaitable[int]]
    ) -> None:
        """`collections` returns the bytes of a project's collections."""
        self._limiter = limiter
        self._database = database
        self._collections = collections
        self._told: dict[str, int] = {}

    async def of(self, caller: Caller) -> Room | None:
        """The room of the caller's project; None if its bytes are not limited."""
        room = self.at_once(caller)
        if room is None:
            return None
        self._told[room.project] = await self._collections(room.project)
        return self.at_once(caller)

    def at_once(self, caller: Caller) -> Room | None:
        """Like `of`, but without waiting: with the collections' bytes as they were last read in this process."""
        limits = self._limiter.of_storage(caller, caller.project)
        if all(most.bytes is None for _, most in limits):
            return None
        return Room(caller.project, limits, self._told.get(caller.project, 0))

    async def require(self, caller: Caller, more: int) -> None:
        """Raise Overloaded if so many more bytes would exceed a limit of the caller's project."""
        if (room := await self.of(caller)) is not None:
            with self._limiter.noting(caller):
                await self._database.read(room.require, more)
