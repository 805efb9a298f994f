"""Counts usage: requests, tokens, time and chunks by project, key, model, operation and day.

Counts are kept in memory and added to the database twice a second, so that a killed process loses at most a second of
them. If a model's server does not report tokens, they are estimated; `estimated_tokens` is the number of those.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from sqlalchemy import Column, Connection, Executable, Float, Integer, String, Table, func, select

from .access.caller import Caller
from .schemas.usage import BY, Price, UsageReport, UsageRequest, UsageRow
from .storage.database import Database
from .storage.schema import metadata
from .vitals import Vitals

if TYPE_CHECKING:
    from .tracing import Trace

WRITE_SECONDS = 0.5
"""Seconds between two additions to the database."""

COUNTS = (
    *("requests", "errors", "prompt_tokens", "completion_tokens", "embedded_tokens", "estimated_tokens"),
    *("milliseconds", "chunks"),
)

table = Table(
    "usage",
    metadata,
    Column("project", String(128), primary_key=True),
    Column("key", String(128), primary_key=True),
    Column("model", String(512), primary_key=True),
    Column("operation", String(64), primary_key=True),
    Column("day", String(10), primary_key=True, index=True),
    *(
        Column(name, Float if name == "milliseconds" else Integer, nullable=False, server_default="0")
        for name in COUNTS
    ),
)


class Used(NamedTuple):
    """What usage is counted by."""

    project: str
    key: str
    model: str
    operation: str
    day: int
    """Days since 1970, in UTC."""


class Listener(Protocol):
    def __call__(self, caller: Caller, counts: Mapping[str, float]) -> None: ...


Watcher = Callable[["Trace", str, float], None]
"""Called with a trace, its outcome, and its duration in seconds."""

_KINDS = {"prompt_tokens": "prompt", "completion_tokens": "completion", "embedded_tokens": "embedded"}


class Meter:
    """Counts usage. Thread-safe."""

    def __init__(self, patience: float, *listeners: Listener) -> None:
        """`listeners` are called with each addition, and must be quick."""
        self.patience = patience
        """Seconds to wait for the replies of a call that was given up, so that their servers tell their tokens."""
        self._totals: dict[Used, dict[str, float]] = {}
        self._tokens: Counter[tuple[str, str]] = Counter()
        # Reentrant, because garbage collection may end a call while another is counted.
        self._counting = threading.RLock()
        self._listeners = listeners
        self._watchers: list[Watcher] = []
        self.failures: Counter[tuple[str, str]] = Counter()
        """Failed attempts, by model server and error code."""

    def watch(self, watcher: Watcher) -> None:
        """Call this listener with each ended call; it must be quick."""
        self._watchers.append(watcher)

    def finished(self, trace: Trace, outcome: str, seconds: float) -> None:
        for watcher in self._watchers:
            watcher(trace, outcome, seconds)

    def add(self, caller: Caller, operation: str, model: str, **counts: float) -> None:
        used = Used(caller.project, caller.key, model[:512], operation, int(time.time()) // 86400)
        with self._counting:
            self._count(used, counts)
            for name, kind in _KINDS.items():
                if name in counts:
                    self._tokens[model, kind] += int(counts[name])
        for listener in self._listeners:
            listener(caller, counts)

    def tokens(self) -> dict[tuple[str, str], int]:
        """Return the tokens since the start, by model and kind."""
        with self._counting:
            return dict(self._tokens)

    def take(self) -> dict[Used, dict[str, float]]:
        """Return the counts since the last call of this method."""
        with self._counting:
            taken, self._totals = self._totals, {}
        return taken

    def put_back(self, taken: Mapping[Used, dict[str, float]]) -> None:
        with self._counting:
            for used, counts in taken.items():
                self._count(used, counts)

    def _count(self, used: Used, counts: Mapping[str, float]) -> None:
        total = self._totals.setdefault(used, {})
        for name, count in counts.items():
            total[name] = total.get(name, 0) + count


class Book:
    """Writes what a meter counts into the database."""

    def __init__(self, meter: Meter, database: Database, vitals: Vitals) -> None:
        self._meter = meter
        self._database = database
        self._vitals = vitals
        self._writing: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._writing = asyncio.create_task(self._write())

    async def _write(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            with self._vitals.step("usage"):
                await self.flush()

    async def flush(self) -> None:
        """Write the counts so far. A cancelled caller does not stop the write."""
        if taken := self._meter.take():
            try:
                await self._database.write(_add, taken, durable=False)
            except Exception:
                self._meter.put_back(taken)
                raise

    async def report(
        self, reach: str | None, asked: UsageRequest, prices: Mapping[str, Price]
    ) -> UsageReport:
        """Report the usage so far, of the project `reach`, or of all if that is None."""
        await self.flush()
        since, until = asked.days
        rows = await self._database.read(read, reach, asked.by.split(","), since, until, prices)
        return UsageReport(since=since, until=until, rows=[UsageRow.model_validate(row) for row in rows])

    async def close(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            await asyncio.wait([self._writing])
        with self._vitals.step("usage"):
            await self.flush()


def _add(connection: Connection, taken: Mapping[Used, Mapping[str, float]]) -> None:
    rows = [
        {**used._asdict(), "day": _day(used.day), **dict.fromkeys(COUNTS, 0), **taken[used]}
        for used in sorted(taken)  # always in the same order, so that two processes cannot deadlock
    ]
    connection.execute(_adding(connection.dialect.name), rows)


@lru_cache
def _adding(dialect: str) -> Executable:
    """Return the statement that adds rows, made once: making it takes longer than running it."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert  # type: ignore[assignment]

    statement = insert(table)
    added = {name: table.c[name] + statement.excluded[name] for name in COUNTS}
    return statement.on_conflict_do_update(index_elements=BY, set_=added)


@lru_cache(4)
def _day(number: int) -> str:
    return (date(1970, 1, 1) + timedelta(number)).isoformat()


def read(
    connection: Connection,
    project: str | None,
    by: Sequence[str],
    since: str,
    until: str,
    prices: Mapping[str, Price],
) -> list[dict[str, Any]]:
    """Return the sums by these dimensions, most tokens first, of one project, or of all if that is None."""
    columns = [table.c[name] for name in dict.fromkeys((*by, "model"))]
    sums = [func.sum(table.c[name]).label(name) for name in COUNTS]
    query = select(*columns, *sums).where(table.c.day.between(since, until)).group_by(*columns)
    if project is not None:
        query = query.where(table.c.project == project)
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for row in connection.execute(query).mappings():
        place = tuple(row[name] for name in by)
        total = found.setdefault(
            place, {name: row[name] for name in by} | dict.fromkeys((*COUNTS, "cost"), 0)
        )
        for name in COUNTS:
            total[name] += row[name] if name == "milliseconds" else int(row[name])
        total["cost"] += cost(dict(row), prices)
    if not prices:
        for total in found.values():
            total["cost"] = None
    if "day" in by:
        return [found[place] for place in sorted(found, key=lambda place: place[list(by).index("day")])]
    return sorted(found.values(), key=lambda total: -sum(total[name] for name in COUNTS[2:5]))


def cost(row: Mapping[str, Any], prices: Mapping[str, Price]) -> float:
    """Return the cost of a row's `prompt_tokens`, `completion_tokens` and `embedded_tokens`, in the prices' currency."""
    price = next((price for name, price in prices.items() if fnmatchcase(row["model"], name)), Price())
    tokens = (row["prompt_tokens"], row["completion_tokens"], row["embedded_tokens"])
    return float(sum(count * cost for count, cost in zip(tokens, price, strict=True))) / 1_000_000
