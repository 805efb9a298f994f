"""The process's view of keys and shares: the database's rows in memory, never more than a second old."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Engine, Row

from .. import threads
from ..errors import LLMBackendError
from ..storage.database import Database
from . import keys, shares
from .caller import DEFAULT, ENVIRONMENT, LOCAL, OPERATOR, Caller, Standing, of_project
from .decision import AccessNeeded, Asks, Granted, Shared, decide, ended
from .keys import Key
from .names import QualifiedName

log = logging.getLogger(__name__)

SOON = 0.3
"""From this age on, in seconds, the rows are refreshed in the background."""
LATE = 0.8
"""From this age on, callers wait for the refresh, so that a key revoked in another process stops working
within a second."""
NOTED = 10.0
"""Seconds between two writes of when keys were last used."""


class _Seen(NamedTuple):
    versions: tuple[int, ...]
    keys: Sequence[Row[Any]] | None
    """None if nothing has changed."""
    shares: Sequence[shares.Share]


class Register:
    """The valid keys and the shares, as read from the database. Used on the core's event loop."""

    def __init__(self, database: Database, manifests: Engine, callers: Mapping[str, Caller]) -> None:
        """`manifests` is the engine of the database with the shares; `callers` are those of keys in the
        environment, by key."""
        self._database = database
        self._manifests = manifests
        self._callers = {hashlib.sha256(key.encode()).digest(): caller for key, caller in callers.items()}
        self._keys: dict[str, Key] = {}
        self._shared: dict[str, dict[QualifiedName, Shared]] = {}
        self.several = len({caller.project for caller in callers.values()}) > 1
        """Whether more than one project has keys."""
        self.shares: Sequence[shares.Share] = ()
        self._versions: tuple[int, ...] = ()
        self._looked = float("-inf")
        self._looking: asyncio.Task[None] | None = None
        self._used: dict[str, float] = {}
        self._noted = time.monotonic()
        self.default_model: Callable[[Asks], Awaitable[str]]
        """Returns the name of the default model of a kind; empty if unknown."""

    @property
    def guarded(self) -> bool:
        """Whether callers need a key: as soon as any key exists, even a revoked one."""
        return bool(self._callers or self._keys)

    async def caller_with(self, given: str) -> Caller | None:
        """The caller with this key; None if the key is unknown, revoked or expired."""
        if key_id := keys.public_id(given):
            return await self._caller_with(key_id, given)
        digest = hashlib.sha256(given.encode()).digest()
        found = None
        for known, caller in self._callers.items():
            if hmac.compare_digest(digest, known):
                found = caller
        return found

    async def _caller_with(self, key_id: str, given: str) -> Caller | None:
        await self.fresh()
        if key_id not in self._keys:  # another process may have just made it
            await self.look()
        key, digest, moment = self._keys.get(key_id), keys.digest(given), time.time()
        if key is None or not key.opens_with(digest, moment) or key.caller.standing.ended:
            return None
        self._used[key_id] = moment
        return key.caller

    async def caller_of(self, project: str, key_id: str) -> Caller:
        """The owner of a job or schedule, with the key's present rights. Raises Unauthorized if it is no longer valid."""
        if key_id in ("", ENVIRONMENT, OPERATOR):
            return self._without_row(project, key_id)
        await self.fresh()
        if key_id not in self._keys:
            await self.look()
        key = self._keys.get(key_id)
        if key is None or key.caller.standing.ended:
            raise ended()
        return key.caller

    def _without_row(self, project: str, key_id: str) -> Caller:
        if key_id == "":  # in process, or from before projects existed
            # Back then all collections belonged to `default`, so a job of another owner means one of those.
            return LOCAL if project == DEFAULT else of_project(DEFAULT, key="")
        # A worker may have no keys in its environment; a process that has some knows which are still valid.
        known = [one for one in self._callers.values() if (one.project, one.key) == (project, key_id)]
        if self._callers and not known:
            raise ended()
        return known[0] if known else of_project(project, everywhere=key_id == OPERATOR, key=key_id)

    def key(self, project: str | None, key_id: str) -> Caller | None:
        """The caller of a key of a project, or of any project if None; None if there is no such key."""
        key = self._keys.get(key_id)
        return key.caller if key is not None and project in (None, key.row.project) else None

    @property
    def standing_keys(self) -> list[Caller]:
        """The callers of all valid keys in the database."""
        return [key.caller for key in self._keys.values() if not key.caller.standing.ended]

    @property
    def projects(self) -> set[str]:
        """The projects that have or had keys, and that of calls without one."""
        callers = [*self._callers.values(), *(key.caller for key in self._keys.values())]
        return {DEFAULT, *(caller.project for caller in callers)}

    async def permit(self, caller: Caller, needed: AccessNeeded) -> Granted:
        """Decide by the present keys and shares whether a call is allowed, like `decision.decide`, which says
        what is raised."""
        if needed.collections and any("/" in name for name in needed.collections):
            await self.fresh()
        models: Sequence[str] = ()
        if needed.models and not caller.models.all:
            models = [name or await self.default_model(kind) for kind, name in needed.models]
        return decide(caller, needed, models, self.shared_with(caller.project))

    async def require(self, caller: Caller) -> None:
        """Raise Unauthorized if the key of running work is no longer valid."""
        if caller.standing.watched:
            await self.fresh()
            if caller.standing.ended:
                raise ended()

    def shared_with(self, project: str) -> Mapping[QualifiedName, Shared]:
        """The collections that other projects share with this one."""
        return self._shared.get(project, _NOTHING)

    def visible(self, name: QualifiedName, caller: Caller) -> bool:
        """Whether the caller may know of a collection."""
        its_own = caller.everywhere or name.project == caller.project
        shown = its_own or name in self.shared_with(caller.project)
        return shown and caller.collections.fit(name.shown_to(caller))

    async def fresh(self) -> None:
        """Make sure that the rows are less than a second old. Raises BackendError."""
        age = time.monotonic() - self._looked
        if age < SOON:
            return
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
            self._looking.add_done_callback(self._looked_once)
        if age >= LATE:
            await asyncio.shield(self._looking)

    def _looked_once(self, looking: asyncio.Task[None]) -> None:
        self._looking = None
        if not looking.cancelled() and (error := looking.exception()) is not None:
            log.warning("keys and shares could not be read: %s", error)

    async def look(self) -> None:
        """Read the database now, to see all changes made before. Raises BackendError."""
        while (under_way := self._looking) is not None:
            await asyncio.wait([under_way])
        self._looked = float("-inf")
        await self.fresh()

    async def _look(self) -> None:
        began = time.monotonic()
        seen = await threads.database(self._see, self._versions)
        if seen.keys is not None:
            self._learn(seen.keys)
            self.shares = seen.shares
            self._shared = {}
            for one in seen.shares:
                self._shared.setdefault(one.with_project, {})[one.collection] = one.can
        self._versions = seen.versions
        self._looked = began
        if self._used and began - self._noted > NOTED:
            self._note_used()

    def _see(self, known: tuple[int, ...]) -> _Seen:
        with self._database.engine.connect() as connection:
            versions: tuple[int, ...] = (keys.version(connection),)
            if self._manifests is self._database.engine:
                if versions == known:
                    return _Seen(versions, None, ())
                return _Seen(versions, keys.listed(connection, None), shares.every(connection))
            with self._manifests.connect() as beside:
                versions += (keys.version(beside),)
                if versions == known:
                    return _Seen(versions, None, ())
                return _Seen(versions, keys.listed(connection, None), shares.every(beside))

    def _learn(self, rows: Sequence[Row[Any]]) -> None:
        now = {row.id: row for row in rows}
        for key_id, key in self._keys.items():
            if key_id not in now:
                key.caller.standing.revoked = True
        before = self._keys
        self._keys = {
            key_id: before[key_id]
            if key_id in before and before[key_id].row == row
            else Key(row, before[key_id].caller.standing if key_id in before else Standing(watched=True))
            for key_id, row in now.items()
        }
        projects = {caller.project for caller in self._callers.values()}
        self.several = len(projects.union(row.project for row in rows)) > 1

    def _note_used(self) -> asyncio.Future[None]:
        self._noted, used = time.monotonic(), self._used
        self._used = {}
        return self._database.write(keys.note_used, used, durable=False)

    async def close(self) -> None:
        """Write when keys were last used."""
        if self._looking is not None:
            await asyncio.wait([self._looking])
        if self._used:
            try:
                await self._note_used()
            except LLMBackendError as error:
                log.warning("could not record when keys were last used: %s", error)


_NOTHING: Mapping[QualifiedName, Shared] = MappingProxyType({})
