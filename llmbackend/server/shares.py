"""What callers share, requests under way and the memory of their bodies: limited for all, and for each of them."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import Overloaded


class Shares:
    """So much for all together, of which one owner has `most` at once."""

    def __init__(self, whole: int, most: Callable[[], int], what: str, setting: str) -> None:
        self._left = whole
        self._most = most
        self._taken: dict[str, int] = {}
        self._what = what
        self._setting = setting

    def take(self, owner: str, amount: int) -> None:
        """Raises Overloaded if there is not so much."""
        taken = self._taken.get(owner, 0) + amount
        if taken > (most := self._most()):
            whose, limit = "this project's", most
        elif amount > self._left:
            whose, limit = "all callers'", sum(self._taken.values()) + self._left
        else:
            self._left -= amount
            self._taken[owner] = taken
            return
        raise Overloaded(
            f"{whose} {self._what} under way are {limit} already, or would be more: try again later, "
            f"or raise {self._setting}",
            details={"limit": limit, "retry_after": 1},
        )

    def give_back(self, owner: str, amount: int) -> None:
        self._left += amount
        if left := self._taken.pop(owner) - amount:
            self._taken[owner] = left


class Reservation:
    """The part of a share that one request has, until it is released."""

    def __init__(self, shares: Shares, owner: str) -> None:
        self._shares = shares
        self._owner = owner
        self._size = 0

    def grow(self, size: int) -> None:
        """Have at least so much; raises Overloaded."""
        if size > self._size:
            self._shares.take(self._owner, size - self._size)
            self._size = size

    def release(self) -> None:
        if self._size:
            self._shares.give_back(self._owner, self._size)
            self._size = 0
