"""Jobs that come again and again: a cron line each, and the moment when it is due next."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    String,
    Table,
    Text,
    delete,
    insert,
    literal,
    select,
    update,
)

from ..database import metadata
from ..errors import InvalidRequest, NotFound
from ..schemas import Schedule
from . import ledger
from .tables import now, stamp

table = Table(
    "job_schedules",
    metadata,
    Column("owner", String(128), primary_key=True),
    Column("name", String(128), primary_key=True),
    Column("cron", String(128), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("params", Text, nullable=False),
    Column("place", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("next_at", Float, nullable=False, index=True),
    Column("created_at", String(32), nullable=False),
)


def next_after(cron: str, timezone: str, moment: float) -> float:
    """When the line is due next, as the clocks of that time zone go; raises InvalidRequest."""
    from cronsim import CronSim, CronSimError

    try:
        zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(f"no time zone {timezone!r}: give one such as Europe/Berlin") from None
    try:
        return next(CronSim(cron, datetime.fromtimestamp(moment, zone))).timestamp()
    except CronSimError as error:
        raise InvalidRequest(f"cron {cron!r}: {error}; it is like '30 2 * * MON-FRI'") from error
    except StopIteration:
        raise InvalidRequest(f"cron {cron!r} is never due") from None


def put(connection: Connection, name: str, cron: str, timezone: str, job: ledger.NewJob) -> Schedule:
    """Make the owner's schedule of that name, or replace it."""
    remove_if_there(connection, job.owner, name)
    connection.execute(
        insert(table).values(
            owner=job.owner,
            name=name,
            cron=cron,
            timezone=timezone,
            type=job.type,
            params=job.params,
            place=job.place,
            priority=job.priority,
            next_at=next_after(cron, timezone, now()),
            created_at=stamp(),
        )
    )
    return next(one for one in listed(connection, job.owner) if one.name == name)


def listed(connection: Connection, owner: str) -> list[Schedule]:
    found: list[Schedule] = []
    shown = (table.c.name, table.c.cron, table.c.timezone, table.c.type, table.c.priority, table.c.next_at)
    for row in connection.execute(select(*shown).where(table.c.owner == owner).order_by(table.c.name)):
        one = Schedule(
            name=row.name,
            cron=row.cron,
            timezone=row.timezone,
            job_type=row.type,
            priority=row.priority,
            next_at=stamp(row.next_at),
        )
        found.append(one)
    return found


def remove(connection: Connection, owner: str, name: str) -> None:
    """Raises NotFound."""
    if not remove_if_there(connection, owner, name):
        raise NotFound(f"no schedule {name!r}", details={"name": name})


def remove_if_there(connection: Connection, owner: str, name: str) -> bool:
    gone = connection.execute(delete(table).where(table.c.owner == owner, table.c.name == name))
    return gone.rowcount > 0


def any_due(connection: Connection) -> bool:
    return connection.execute(_DUE, {"moment": now()}).first() is not None


_DUE = select(literal(1)).where(table.c.next_at <= ledger.MOMENT).limit(1)


def submit_due(connection: Connection) -> None:
    """A job for each schedule that is due, one however often it was missed."""
    moment = now()
    for row in connection.execute(select(table).where(table.c.next_at <= moment)).all():
        which = (table.c.owner == row.owner, table.c.name == row.name, table.c.next_at == row.next_at)
        following = next_after(row.cron, row.timezone, moment)
        if connection.execute(update(table).where(*which).values(next_at=following)).rowcount == 1:
            job = ledger.NewJob(
                type=row.type,
                params=row.params,
                owner=row.owner,
                place=row.place,
                priority=row.priority,
                idempotency_key=f"schedule {row.name} {stamp(row.next_at)}",
            )
            ledger.add(connection, job)
