"""Whether what goes into the SQL database (params and results of jobs, responses) fits into a project's limit
of bytes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, func, select

from ..storage import kept
from ..storage.database import Database
from .caller import Caller, Limits
from .limits import Limiter, Whose, too_much_stored


@dataclass(frozen=True, slots=True)
class Room:
    """The limits of bytes of one project, and what its collections take up."""

    project: str
    limits: Sequence[tuple[Whose, Limits]]
    elsewhere: int
    """The bytes of the project's collections."""

    def require(self, connection: Connection, more: int) -> None:
        """Raise Overloaded if so many more bytes would exceed a limit."""
        # One transaction at a time, or together they could exceed it.
        if connection.dialect.name == "postgresql":
            lock = func.pg_advisory_xact_lock(func.hashtextextended(f"stored by {self.project}", 0))
            connection.execute(select(lock))
        used = self.elsewhere + kept.by(connection, self.project)
        for whose, most in self.limits:
            if most.bytes is not None and used + more > most.bytes:
                raise too_much_stored(whose, "bytes", most.bytes, used, more)


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
