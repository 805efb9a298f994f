"""Limits of keys and projects: requests and tokens over time, requests in flight, jobs, and chunks stored.

Rates count in fixed windows: `60/min` starts anew with each full minute, `1M/day` at midnight UTC. Processes
share a window: each takes small parts of it from a common counter (in the database, or in Redis for windows
below an hour) and spends them alone. So the limit is never exceeded, and at most a hundredth of it is refused
because other processes hold it unspent. The tokens of a call are only known afterwards: a call reserves the
average of its key's calls, and settles the difference at its end.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

from sqlalchemy import BigInteger, Column, Connection, Float, String, Table, delete

from .. import threads
from ..errors import Overloaded
from ..storage.database import Database
from ..storage.schema import metadata
from .caller import NO_LIMITS, Caller, Limits, Rate

PART = 400
"""A process takes 1/400 of a limit at a time, so that four processes together hold at most a hundredth of it
unspent."""
LONG = 3600
"""Windows of at least this many seconds are counted in the database, to survive a restart."""

ANSWER_SECONDS = 1.0
"""Seconds that Redis has for an answer."""
AWAY_SECONDS = 10.0
"""Seconds for which it is not asked after it has failed."""

log = logging.getLogger(__name__)

table = Table(
    "limit_windows",
    metadata,
    Column("name", String(320), primary_key=True),
    Column("window", BigInteger, primary_key=True, autoincrement=False),
    Column("used", BigInteger, nullable=False),
    Column("ends", Float, nullable=False, index=True),
)


class Counters(Protocol):
    """Counters shared by processes."""

    async def add(self, name: str, window: int, ends: float, amount: int) -> int:
        """Add an amount to a window's count and return the new count."""


class DatabaseCounters:
    """Counters in the SQL database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, name: str, window: int, ends: float, amount: int) -> int:
        return await self._database.write(_add, name, window, ends, amount, durable=False)


def _add(connection: Connection, name: str, window: int, ends: float, amount: int) -> int:
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]

    statement = insert(table).values(name=name, window=window, used=amount, ends=ends)
    total: int = connection.execute(
        statement.on_conflict_do_update(
            index_elements=["name", "window"], set_={"used": table.c.used + statement.excluded.used}
        ).returning(table.c.used)
    ).scalar_one()
    if total == amount:  # a new window: delete the old ones
        connection.execute(delete(table).where(table.c.name == name, table.c.ends < time.time() - 60))
    return total


class OwnCounters:
    """Counters in this process."""

    def __init__(self) -> None:
        from limits.storage import MemoryStorage

        self._storage = MemoryStorage()

    async def add(self, name: str, window: int, ends: float, amount: int) -> int:
        return self._storage.incr(*_entry(name, window, ends), amount)


class RedisCounters:
    """Counters in Redis; while that does not answer, in the database, where a window under way begins anew."""

    def __init__(self, url: str, database: Counters) -> None:
        from limits.storage import storage_from_string

        self._storage: Any = storage_from_string(
            url, socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS
        )
        self._database = database
        self._away_until = -math.inf

    async def add(self, name: str, window: int, ends: float, amount: int) -> int:
        if time.monotonic() >= self._away_until:
            try:
                return int(await threads.network(self._storage.incr, *_entry(name, window, ends), amount))
            except Exception as error:  # its message may name the address
                log.warning("limits are counted in the database: Redis failed (%s)", type(error).__name__)
                self._away_until = time.monotonic() + AWAY_SECONDS
        return await self._database.add(name, window, ends, amount)


def _entry(name: str, window: int, ends: float) -> tuple[str, int]:
    """A window's key, and the seconds after which it is forgotten."""
    return f"llmbackend/{name}/{window}", math.ceil(ends - time.time()) + 60


class Window:
    """This process's share of one rate limit."""

    def __init__(self, name: str, rate: Rate, counters: Counters, part: int) -> None:
        self.name, self.rate = name, rate
        self._counters = counters
        self._part = part
        self.number = -1
        self._taken = 0  # by all processes, as last seen
        self._here = 0  # taken by this process and unspent; negative if overspent
        self._taking = asyncio.Lock()

    @property
    def left(self) -> int:
        """What may still be spent in the current window, as far as this process knows."""
        self._turn()
        return max(0, self.rate.amount - self._taken + min(self._here, self._taken))

    @property
    def reset(self) -> float:
        """Seconds until the next window."""
        seconds = self.rate.seconds
        return seconds - time.time() % seconds

    def _turn(self) -> None:
        number = int(time.time() // self.rate.seconds)
        if number != self.number:
            self.number, self._taken, self._here = number, 0, 0

    async def take(self, amount: int) -> int:
        """Spend up to an amount; return what was spent, or 0 if nothing is left."""
        self._turn()
        if self._here < amount:
            async with self._taking:
                await self._fetch(amount)
        spent = max(0, min(amount, self._here))
        self._here -= spent
        return spent

    async def _fetch(self, amount: int) -> None:
        self._turn()
        while self._here < amount and self._taken < self.rate.amount:
            number, wanted = self.number, max(self._part, amount - self._here)
            total = await self._counters.add(self.name, number, (number + 1) * self.rate.seconds, wanted)
            if number != self.number:
                return
            self._taken = total
            self._here += max(0, wanted - max(0, total - self.rate.amount))

    def settle(self, amount: int) -> None:
        """Spend an amount even if it is not left."""
        self._turn()
        self._here -= amount

    def give_back(self, amount: int, number: int) -> None:
        """Return what was taken in a window, if it is still the current one."""
        self._turn()
        if number == self.number:
            self._here += amount


class Holder:
    """The state of a key or project that has limits."""

    def __init__(self, name: str, limits: Limits, window: Any) -> None:
        self.name = name
        self.concurrent = limits.concurrent
        self.under_way = 0
        self.requests: Window | None = window(f"{name}/requests", limits.rate) if limits.rate else None
        self.tokens: list[Window] = [window(f"{name}/tokens/{rate}", rate) for rate in limits.tokens]
        self.average = 1.0
        """Moving average of tokens per call."""


class Admitted:
    """A request under limits: `enter` before it runs, `leave` when it is over."""

    def __init__(self, holders: list[Holder], spends: bool) -> None:
        self._holders = holders
        self._spends = spends
        self._reserved: list[tuple[Window, int, int]] = []
        self._under_way: list[Holder] = []

    async def enter(self) -> None:
        """Reserve what the request needs. Raises Overloaded if a limit is reached."""
        for holder in self._holders:
            if holder.concurrent is not None:
                if holder.under_way >= holder.concurrent:
                    raise _exceeded(holder, "requests at once", str(holder.concurrent), 1.0)
                holder.under_way += 1
                self._under_way.append(holder)
        for holder in self._holders:
            for window in holder.tokens if self._spends else ():
                spent = await window.take(max(1, round(holder.average)))
                if not spent:
                    raise _exceeded(holder, "tokens", str(window.rate), window.reset)
                self._reserved.append((window, spent, window.number))
        for holder in self._holders:
            if holder.requests is not None and not await holder.requests.take(1):
                raise _exceeded(holder, "requests", str(holder.requests.rate), holder.requests.reset)

    def leave(self, tokens: int | None) -> None:
        """End the request, after its tokens have been settled; None if it never asked a model."""
        for holder in self._under_way:
            holder.under_way -= 1
        for window, spent, number in self._reserved:
            window.give_back(spent, number)
        if tokens:
            for holder in self._holders:
                holder.average += (tokens - holder.average) / 8
        self._under_way, self._reserved = [], []

    def headers(self) -> list[tuple[bytes, bytes]]:
        """OpenAI's x-ratelimit headers, for the limits of which the smallest share is left."""
        found: list[tuple[bytes, bytes]] = []
        for what, windows in (
            ("requests", [holder.requests for holder in self._holders if holder.requests is not None]),
            ("tokens", [window for holder in self._holders for window in holder.tokens]),
        ):
            if windows:
                window = min(windows, key=lambda one: one.left / one.rate.amount)
                for name, value in (
                    ("limit", window.rate.amount),
                    ("remaining", window.left),
                    ("reset", f"{window.reset:.3f}s"),
                ):
                    found.append((f"x-ratelimit-{name}-{what}".encode(), str(value).encode()))
        return found


def _exceeded(holder: Holder, what: str, limit: str, wait: float) -> Overloaded:
    whose = "this key's" if holder.name.startswith("key:") else "this project's"
    return Overloaded(
        f"{whose} limit of {limit} {'' if what == 'requests at once' else 'for '}{what} is reached: try again in {math.ceil(wait)} s",
        details={"limit": limit, "what": what, "retry_after": round(wait, 3)},
    )


class Whose(NamedTuple):
    """A key or project that a limit belongs to."""

    kind: Literal["key", "project"]
    name: str
    callers: bool = True

    def __str__(self) -> str:
        return f"this {self.kind}'s" if self.callers else f"{self.kind} {self.name}'s"


class Most(NamedTuple):
    """A limit on jobs queued or running."""

    whose: Whose
    jobs: int


UNTIL_FREED = 3600
"""`retry_after` if only deleting something makes room: longer than clients wait, so that they do not retry."""


def too_many_jobs(most: Most, used: int) -> Overloaded:
    return Overloaded(
        f"{most.whose} limit of {most.jobs} jobs queued or running is reached ({used} are): try again "
        "when some have ended, or cancel some",
        details={"limit": str(most.jobs), "what": "jobs", "used": used, "retry_after": 5},
    )


def too_much_stored(
    whose: Whose, what: Literal["chunks", "bytes"], most: int, used: int, more: int
) -> Overloaded:
    return Overloaded(
        f"{whose} limit of {most} stored {what} would be exceeded: {used} are stored, and this adds {more}. "
        "Delete documents, collections, jobs or stored responses, or have the limit raised",
        details={
            "limit": str(most),
            "what": f"stored {what}",
            "used": used,
            "wanted": more,
            "retry_after": UNTIL_FREED,
        },
    )


class Limiter:
    """Applies the limits of keys and projects. Used on the core's event loop."""

    def __init__(
        self,
        projects: Mapping[str, Limits],
        database: Database,
        redis_url: str | None,
        shared: bool,
    ) -> None:
        """`projects` are limits by project, `*` for all others; `shared` is whether other processes use the database."""
        self._projects = projects
        self._database = DatabaseCounters(database)
        self._redis_url = redis_url
        self._shared = shared
        self._short: Counters | None = None
        self._holders: dict[tuple[str, str, Limits], list[Holder]] = {}
        self._by_name: dict[str, Holder] = {}
        self.hits: Counter[tuple[str, str]] = Counter()
        """How often each caller's limit of each kind was reached since the start."""

    def admission(self, caller: Caller, *, spends: bool) -> Admitted | None:
        """The limits on a request, which `spends` tokens or not; None if there are none."""
        if not self._projects and not caller.limits.requests:
            return None
        holders = self._of(caller)
        return Admitted(holders, spends) if holders else None

    async def wait(self, caller: Caller) -> float | None:
        """Seconds until a job of the caller may use tokens again; None if it may now."""
        for holder in self._of(caller):
            for window in holder.tokens:
                if not (spent := await window.take(1)):
                    return window.reset
                window.give_back(spent, window.number)
        return None

    def of_jobs(self, caller: Caller) -> Sequence[Most]:
        """The limits on jobs of the caller's key and of its project."""
        own, project = caller.limits.jobs, self._project(caller.project).jobs
        found = [Most(Whose("key", caller.key), own)] if own is not None else []
        return [*found, Most(Whose("project", caller.project), project)] if project is not None else found

    def of_storage(self, caller: Caller, project: str) -> Sequence[tuple[Whose, Limits]]:
        """The limits on what a project may store, for a caller that is about to store more."""
        found = [(Whose("project", project, caller.project == project), self._project(project))]
        if caller.project == project:
            found.append((Whose("key", caller.key), caller.limits))
        return [(whose, limits) for whose, limits in found if limits.storage]

    @contextmanager
    def noting(self, caller: Caller) -> Iterator[None]:
        """Count it if the block reaches a limit of the caller."""
        try:
            yield
        except Overloaded as error:
            self.reached(error, caller)
            raise

    def reached(self, error: Overloaded, caller: Caller) -> None:
        """Count an error that a limit of the caller has caused."""
        self.hits[str(caller), str(error.details.get("what", ""))] += 1

    def reached_by_kind(self) -> dict[str, int]:
        """How often limits of each kind were reached since the start, by all callers together."""
        found: Counter[str] = Counter()
        for (_, what), count in self.hits.items():
            found[what] += count
        return dict(found)

    def used(self, caller: Caller, counts: Mapping[str, float]) -> None:
        """Settle the tokens that a call has used. The meter calls this."""
        if not self._by_name:
            return
        tokens = sum(
            counts.get(name, 0) for name in ("prompt_tokens", "completion_tokens", "embedded_tokens")
        )
        if tokens:
            for name in (f"key:{caller.key}", f"project:{caller.project}"):
                if (holder := self._by_name.get(name)) is not None:
                    for window in holder.tokens:
                        window.settle(int(tokens))

    def _project(self, project: str) -> Limits:
        return self._projects.get(project) or self._projects.get("*") or NO_LIMITS

    def _of(self, caller: Caller) -> list[Holder]:
        place = caller.project, caller.key, caller.limits
        found = self._holders.get(place)
        if found is None:
            own = (
                (f"key:{caller.key}", caller.limits),
                (f"project:{caller.project}", self._project(caller.project)),
            )
            found = [self._holder(name, limits) for name, limits in own if limits.requests]
            if len(self._holders) > 10_000:  # most are of keys that are gone
                self._holders.clear()
            self._holders[place] = found
        return found

    def _holder(self, name: str, limits: Limits) -> Holder:
        if name not in self._by_name:
            self._by_name[name] = Holder(name, limits, self._window)
        return self._by_name[name]

    def _window(self, name: str, rate: Rate) -> Window:
        if rate.seconds >= LONG:
            return Window(name, rate, self._database, max(1, rate.amount // PART))
        if self._short is None:
            if self._redis_url is not None:
                self._short = RedisCounters(self._redis_url, self._database)
            else:
                self._short = self._database if self._shared else OwnCounters()
        alone = self._redis_url is None and not self._shared
        return Window(name, rate, self._short, rate.amount if alone else max(1, rate.amount // PART))
