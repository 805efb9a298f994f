"""A queue of collections that were written to, for background work."""

from __future__ import annotations

import asyncio
from typing import Generic, TypeVar

_Item = TypeVar("_Item")


class Written(Generic[_Item]):
    """A queue that contains each item at most once."""

    def __init__(self) -> None:
        self._waiting: dict[_Item, None] = {}
        self._some = asyncio.Event()
        self._others: list[Written[_Item]] = []

    def also(self) -> Written[_Item]:
        """Return another queue, which from now on gets every item that is put into this one."""
        other: Written[_Item] = Written()
        self._others.append(other)
        return other

    def put(self, item: _Item) -> None:
        self._waiting.setdefault(item)
        self._some.set()
        for other in self._others:
            other.put(item)

    def first(self, item: _Item) -> None:
        """Move an item to the front, if it is in the queue."""
        if item in self._waiting:
            del self._waiting[item]
            self._waiting = {item: None, **self._waiting}

    def __contains__(self, item: _Item) -> bool:
        return item in self._waiting

    async def next(self) -> _Item:
        """Remove and return the first item; wait until there is one."""
        await self._some.wait()
        item = next(iter(self._waiting))
        del self._waiting[item]
        if not self._waiting:
            self._some.clear()
        return item
