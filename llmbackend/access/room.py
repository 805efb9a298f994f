"""Room for what is kept in the SQL database, params and results of jobs and responses, in a project's limit of bytes."""

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
    project: str
    limits: Sequence[tuple[Whose, Limits]]
    elsewhere: int
    """Bytes of the project's collections."""

    def require(self, connection: Connection, more: int) -> None:
        """Raises Overloaded if so many bytes more are too many."""
        if connection.dialect.name == "postgresql":  # one stores at a time, or the limit could be passed
            lock = func.pg_advisory_xact_lock(func.hashtextextended(f"stored by {self.project}", 0))
            connection.execute(select(lock))
        used = self.elsewhere + kept.by(connection, self.project)
        for whose, most in self.limits:
            if most.bytes is not None and used + more > most.bytes:
                raise too_much_stored(whose, "bytes", most.bytes, used, more)


class Rooms:
    def __init__(
        self, limiter: Limiter, database: Database, collections: Callable[[str], Awaitable[int]]
    ) -> None:
        """`collections` tells the bytes of a project's collections."""
        self._limiter = limiter
        self._database = database
        self._collections = collections
        self._told: dict[str, int] = {}

    async def of(self, caller: Caller) -> Room | None:
        """None if nothing limits the bytes that the caller's project may have stored."""
        room = self.at_once(caller)
        if room is None:
            return None
        self._told[room.project] = await self._collections(room.project)
        return self.at_once(caller)

    def at_once(self, caller: Caller) -> Room | None:
        """As `of`, with the bytes of collections as this process was last told."""
        limits = self._limiter.of_storage(caller, caller.project)
        if all(most.bytes is None for _, most in limits):
            return None
        return Room(caller.project, limits, self._told.get(caller.project, 0))

    async def require(self, caller: Caller, more: int) -> None:
        """Raises Overloaded if so many bytes more are too many for the caller's project."""
        if (room := await self.of(caller)) is not None:
            with self._limiter.noting(caller):
                await self._database.read(room.require, more)
