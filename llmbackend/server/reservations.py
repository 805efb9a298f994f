"""Shared resources, such as requests in flight and their bodies' memory, limited in all and per owner."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Overloaded


class Shares:
    """A limited resource: `whole` units in all, of which one owner may hold `most()` at once."""

    def __init__(self, whole: int, most: Callable[[], int], what: str, setting: str) -> None:
        self.most = most
        self._left = whole
        self._taken: dict[str, int] = {}
        self._what = what
        self._setting = setting

    def take(self, owner: str, amount: int) -> None:
        """Take an amount for an owner. Raises Overloaded if it exceeds what is left or what one owner may hold."""
        taken = self._taken.get(owner, 0) + amount
        if taken > (most := self.most()):
            whose, limit = "this project's", most
        elif amount > self._left:
            whose, limit = "all callers'", sum(self._taken.values()) + self._left
        else:
            self._left -= amount
            self._taken[owner] = taken
            return
        raise Overloaded(
            f"{whose} {self._what} in flight would exceed the limit of {limit}: try again later, "
            f"or raise {self._setting}",
            details={"limit": limit, "retry_after": 1},
        )

    def give_back(self, owner: str, amount: int) -> None:
        self._left += amount
        if left := self._taken.pop(owner) - amount:
            self._taken[owner] = left


class Reservation:
    """What one request holds of a shared resource, until it is released."""

    def __init__(self, shares: Shares, owner: str) -> None:
        self._shares = shares
        self._owner = owner
        self._size = 0

    def grow(self, size: int) -> None:
        """Hold at least `size` units, or all that an owner may. Raises Overloaded."""
        size = min(size, self._shares.most())
        if size > self._size:
            self._shares.take(self._owner, size - self._size)
            self._size = size

    def release(self) -> None:
        if self._size:
            self._shares.give_back(self._owner, self._size)
            self._size = 0
