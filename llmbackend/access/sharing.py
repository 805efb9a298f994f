"""The operations on shares: share, unshare and list."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from typing import Any

from sqlalchemy import Engine

from .. import schemas, threads
from ..alike import alike, did_you_mean
from ..errors import InvalidRequest, NotFound
from ..storage import database
from . import shares
from .caller import Caller
from .issuing import stamp
from .names import QualifiedName
from .register import Register


class Sharing:
    """Shares collections. Used on the core's event loop; changes take effect in this process before a method
    returns."""

    def __init__(self, manifests: Engine, register: Register) -> None:
        """`manifests` is the database of the collections' manifests."""
        self._manifests = manifests
        self._register = register

    async def share(
        self, caller: Caller, collection: QualifiedName, asked: schemas.ShareRequest
    ) -> schemas.Share:
        """Share a collection.

        Raises InvalidRequest if it is with the collection's own project, and NotFound, for the administrator only, if no
        project has this name and some have similar ones: others may not know of them.
        """
        if asked.with_project == collection.project:
            raise InvalidRequest(
                "with_project: this is the collection's own project, which has all rights anyway"
            )
        if caller.everywhere:
            await self._register.look()
            require_no_slip(asked.with_project, self._register.projects)
        share = shares.Share(collection, asked.with_project, asked.can, time.time())
        await self._write(shares.put, share)
        return _described(share, caller)

    async def unshare(self, caller: Caller, collection: QualifiedName, with_project: str) -> schemas.Share:
        """Remove a share and return it. Raises NotFound."""
        return _described(await self._write(shares.remove, collection, with_project), caller)

    async def listed(self, caller: Caller) -> schemas.ShareList:
        """The shares that the caller's project gives and gets."""
        await self._register.look()
        found = [
            _described(share, caller)
            for share in self._register.shares
            if caller.reach in (None, share.collection.project, share.with_project)
            and caller.collections.fit(share.collection.shown_to(caller))
        ]
        return schemas.ShareList(shares=found)

    async def _write(self, work: Callable[..., Any], *args: Any) -> Any:
        def write() -> Any:
            with database.transaction(self._manifests) as connection:
                return work(connection, *args)

        written = await threads.database(write)
        await self._register.look()
        return written


def require_no_slip(project: str, projects: Collection[str]) -> None:
    """Raise NotFound for a name that none of these projects has, but that is similar to one: a slip gives away documents.

    Other new names are fine: a collection may be shared before its readers get their first key.
    """
    if project not in projects and (near := alike(project, projects)):
        raise NotFound(
            f"with_project: no project {project!r} has a key: {did_you_mean(near)} Else make its key first, by create_key",
            details={"project": project, "near": near},
        )


def _described(share: shares.Share, caller: Caller) -> schemas.Share:
    return schemas.Share(
        collection=share.collection.shown_to(caller),
        with_project=share.with_project,
        can=share.can,
        created_at=stamp(share.created_at),
    )
