"""Webhooks: notifying a URL that a job has ended. Signed, retried until accepted, never sent to private addresses."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection, func, literal, select, update

from ..clock import now, stamp
from ..errors import InvalidRequest
from ..outbound import addresses, sending, signatures
from ..schemas import JobStatus
from ..storage.database import Database
from . import reading
from .ledger import MOMENT
from .tables import jobs
from .tables import webhooks as table

log = logging.getLogger(__name__)

TIMEOUT = 15.0
MOST_TRIES = 15
LONGEST_PAUSE = 3600.0

# Deliveries in flight per process. A receiver that hangs holds one for TIMEOUT seconds, so each host leaves room for the
# others of its owner, and each owner for other owners.
AT_ONCE = 256
AT_ONCE_BY_OWNER = 32
AT_ONCE_BY_HOST = 4

LOOK_SECONDS = 0.5
"""Longest wait until the next look for due deliveries, while others are in flight."""
PAUSE_SECONDS = 0.02
"""Shortest pause between looks."""

UNDELIVERED = f"not delivered: a public address must answer with a status of 2xx within {TIMEOUT:g} s"
"""The only reason that callers see; details would let them probe a network through webhooks."""


@dataclass(frozen=True)
class Delivery:
    """A webhook that is due."""

    number: int
    id: str
    owner: str
    host: str
    url: str
    tries: int


def check(url: str, secret: bytes | None, private: bool) -> None:
    """Raise InvalidRequest for a URL that can never be delivered to, or if there is no secret."""
    if secret is None:
        raise InvalidRequest("webhook: there is no WEBHOOK_SECRET to sign it with: set one on the server")
    addresses.parsed(url, "webhook", private=private)


class Deliveries:
    """Delivers due webhooks concurrently; any number of processes share the work."""

    def __init__(self, database: Database, secret: bytes | None, private: bool, keep_days: float) -> None:
        self._database = database
        self.secret = secret
        self._private = private
        self._keep_days = keep_days
        self._owners: Counter[str] = Counter()  # deliveries in flight
        self._hosts: Counter[str] = Counter()
        self._under_way: set[asyncio.Task[None]] = set()

    async def deliver_due(self) -> None:
        """Deliver until nothing is due or in flight. A receiver cannot make this raise."""
        while self.secret is not None:
            await self._begin_due(self.secret)
            if not self._under_way:
                return
            await asyncio.wait(self._under_way, timeout=LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _begin_due(self, secret: bytes) -> None:
        while free := AT_ONCE - len(self._under_way):
            full = (_full(self._owners, AT_ONCE_BY_OWNER), _full(self._hosts, AT_ONCE_BY_HOST))
            chosen = self._choose(await self._database.read(_due, *full), free)
            if not chosen:
                return
            taken = await self._database.write(_take, chosen, durable=False)
            for one in chosen:
                if one.number in taken:  # otherwise another process took it
                    self._owners[one.owner] += 1
                    self._hosts[one.host] += 1
                    task = asyncio.create_task(self._deliver(one, secret))
                    self._under_way.add(task)
                    task.add_done_callback(partial(self._ended, one))

    def _ended(self, one: Delivery, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        for count, name in ((self._owners, one.owner), (self._hosts, one.host)):
            count[name] -= 1
            if not count[name]:
                del count[name]

    def _choose(self, due: Sequence[Delivery], free: int) -> list[Delivery]:
        """As many of the due deliveries as the limits allow."""
        owners, hosts = self._owners.copy(), self._hosts.copy()
        chosen: list[Delivery] = []
        for one in due:
            if (
                len(chosen) < free
                and owners[one.owner] < AT_ONCE_BY_OWNER
                and hosts[one.host] < AT_ONCE_BY_HOST
            ):
                owners[one.owner] += 1
                hosts[one.host] += 1
                chosen.append(one)
        return chosen

    async def close(self) -> None:
        """Cancel deliveries in flight; they become due again soon."""
        while self._under_way:
            for task in self._under_way:
                task.cancel()
            await asyncio.wait(set(self._under_way))

    async def _deliver(self, one: Delivery, secret: bytes) -> None:
        try:
            error: str | None = None
            try:
                _, job = await self._database.read(reading.watched, one.owner, one.id, self._keep_days)
                await self._send(one, job, secret)
            except Exception as failure:  # a failing receiver, or a row that cannot be read
                error = UNDELIVERED
                log.warning("job %s: %s did not take its webhook: %r", one.id, one.host, failure)
            await self._database.write(_note, one.number, one.tries + 1, error)
        except Exception:
            log.exception("the outcome of the webhook of job %s could not be recorded", one.id)

    async def _send(self, one: Delivery, job: JobStatus, secret: bytes) -> None:
        timestamp = int(time.time())
        event = {"type": f"job.{job.status}", "timestamp": stamp(timestamp), "data": job.model_dump()}
        body = json.dumps(event).encode()
        # The id stays the same for each retry, so that a receiver can recognize them.
        headers = signatures.signed(
            signatures.of_project(secret, one.owner), f"job_{one.id}_{job.finished_at}", timestamp, body
        )
        status = await sending.posted(one.url, body, headers, TIMEOUT, private=self._private)
        if not 200 <= status < 300:
            raise ValueError(f"it answered {status}")


def _full(count: Counter[str], most: int) -> list[str]:
    return [name for name, number in count.items() if number >= most]


def any_due(connection: Connection) -> bool:
    return connection.execute(_DUE, {"moment": now()}).first() is not None


_DUE = select(literal(1)).where(table.c.due_at <= MOMENT).limit(1)


def _due(connection: Connection, owners: list[str], hosts: list[str]) -> list[Delivery]:
    """Due deliveries in turns: the oldest of each owner and host, then the second oldest of each, and so on.

    Those of the given `owners` and `hosts`, which are at their limits, are left out.
    """
    turn = func.row_number().over(partition_by=(jobs.c.owner, table.c.host), order_by=table.c.due_at)
    due = (
        select(table, jobs.c.id, jobs.c.owner, turn.label("turn"))
        .join(jobs, jobs.c.number == table.c.job)
        .where(
            table.c.due_at <= now(),
            jobs.c.owner.not_in(owners),
            func.coalesce(table.c.host, "").not_in(hosts),
        )
        .subquery()
    )
    first = select(due).where(due.c.turn <= AT_ONCE_BY_HOST).order_by(due.c.turn, due.c.due_at).limit(AT_ONCE)
    return [
        Delivery(row.job, row.id, row.owner, row.host or "", row.url, row.tries)
        for row in connection.execute(first)
    ]


def _take(connection: Connection, chosen: Sequence[Delivery]) -> set[int]:
    """Claim deliveries for this process for as long as they may take; return the numbers of those that it got."""
    moment = now()
    taken = connection.execute(
        update(table)
        .where(table.c.job.in_([one.number for one in chosen]), table.c.due_at <= moment)
        .values(due_at=moment + 2 * TIMEOUT, reckoned_at=moment, tries=table.c.tries + 1)
        .returning(table.c.job)
    )
    return set(taken.scalars())


def _note(connection: Connection, number: int, tries: int, error: str | None) -> None:
    moment = now()
    again = moment + min(2.0**tries, LONGEST_PAUSE) if error is not None and tries < MOST_TRIES else None
    connection.execute(
        update(table)
        .where(table.c.job == number, table.c.tries == tries)
        .values(due_at=again, reckoned_at=moment, error=error, delivered_at=None if error else stamp(moment))
    )
