"""Schedules of recurring jobs: each has a cron expression and the time when it is next due."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    Row,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    literal,
    select,
    update,
)

from ..access import keys
from ..access.caller import Caller
from ..access.limits import Most
from ..access.names import QualifiedName, qualified
from ..access.room import Room
from ..clock import CLOCK_SECONDS, now, stamp
from ..errors import Conflict, Forbidden, InvalidRequest, LLMBackendError, NotFound
from ..schemas import Schedule
from ..storage.schema import metadata
from . import ledger

log = logging.getLogger(__name__)

AGAIN_SECONDS = 60.0
"""Seconds until another try at a schedule whose next time cannot be computed."""

table = Table(
    "job_schedules",
    metadata,
    Column("owner", String(128), primary_key=True),  # the project
    Column("key", String(96), nullable=False, server_default=""),  # whose rights its jobs have
    Column("name", String(128), primary_key=True),
    Column("cron", String(128), nullable=False),
    Column("timezone", String(64), nullable=False),
    Column("type", String(64), nullable=False),
    Column("params", Text, nullable=False),
    Column("place", String(64), nullable=False),
    Column("priority", Integer, nullable=False),
    Column("next_at", Float, nullable=False, index=True),
    Column("reckoned_at", Float),  # when next_at was worked out
    Column("error", Text),  # why it could not be submitted when it was last due
    Column("job", String(36)),  # the last one that it submitted
    Column("created_at", String(32), nullable=False),
)


_WITHOUT_PARAMS = [column for column in table.c if column.name != "params"]
"""Those of many schedules at once may be gigabytes."""

LARGE = 4 * 2**20
"""Characters of an owner's params after which others' writes have their turn."""

AT_ONCE, SECONDS = 256, 0.05
"""The most schedules that a transaction submits, and about how long it takes: all other writes wait for it."""

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@weekly": "0 0 * * SUN",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
}
"""What crontab(5) calls these."""


def next_after(cron: str, timezone: str, moment: float) -> float:
    """When a cron expression is next due in a time zone, after `moment`. Raises InvalidRequest."""
    from cronsim import CronSim, CronSimError

    try:
        zone = UTC if timezone == "UTC" else ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidRequest(f"no time zone {timezone!r}: give one such as Europe/Berlin") from None
    try:
        return next(CronSim(NICKNAMES.get(cron, cron), datetime.fromtimestamp(moment, zone))).timestamp()
    except CronSimError as error:
        count = len(cron.split())
        wrong = str(error) if count in (5, 6) else f"{count} field{'s' * (count != 1)}"
        raise InvalidRequest(
            f"cron {cron!r}: {wrong}; write it like '30 2 * * MON-FRI' (minute, hour, day, month, weekday), with six fields, "
            f"of which the first is seconds, or as one of {', '.join(NICKNAMES)}"
        ) from error
    except (StopIteration, OverflowError):
        raise InvalidRequest(f"cron {cron!r} is never due") from None


def put(connection: Connection, name: str, cron: str, timezone: str, job: ledger.NewJob) -> Schedule:
    """Create the owner's schedule of that name, or replace it. Raises InvalidRequest."""
    moment = now()
    next_at = next_after(cron, timezone, moment)
    remove_if_there(connection, job.owner, name)
    new = insert(table).values(
        owner=job.owner,
        key=job.key,
        name=name,
        cron=cron,
        timezone=timezone,
        type=job.type,
        params=job.params,
        place=job.place,
        priority=job.priority,
        next_at=next_at,
        reckoned_at=moment,
        created_at=stamp(),
    )
    return _seen(connection.execute(new.returning(*_WITHOUT_PARAMS)).one(), name)


def listed(connection: Connection, caller: Caller) -> list[Schedule]:
    """The schedules of the caller's project; for the administrator, of all projects."""
    reach = () if caller.reach is None else (table.c.owner == caller.reach,)
    shown = select(*_WITHOUT_PARAMS).where(*reach).order_by(table.c.owner, table.c.name)
    rows = connection.execute(shown)
    return [_seen(row, QualifiedName(row.owner, row.name).shown_to(caller)) for row in rows]


def _seen(row: Row[Any], name: str) -> Schedule:
    return Schedule(
        name=name,
        cron=row.cron,
        timezone=row.timezone,
        job_type=row.type,
        priority=row.priority,
        next_at=stamp(row.next_at),
        error=row.error,
    )


def remove(connection: Connection, caller: Caller, name: str) -> None:
    """Delete a schedule of the caller's project, or any, as `project/name`, for the administrator. Raises NotFound."""
    place = qualified(name, caller)
    within_reach = caller.reach in (None, place.project)
    if not (within_reach and remove_if_there(connection, place.project, place.name)):
        raise NotFound(f"no schedule {name!r}", details={"name": name})


def remove_if_there(connection: Connection, owner: str, name: str) -> bool:
    """Delete a schedule; return whether there was one."""
    gone = connection.execute(delete(table).where(table.c.owner == owner, table.c.name == name))
    return gone.rowcount > 0


# Due, or with a next time that was computed "in the future": then the clock was set back since, and the
# schedule would come that much later. Rows of older versions have no reckoned_at.
_DUE = (table.c.next_at <= ledger.MOMENT) | (
    func.coalesce(table.c.reckoned_at, 0.0) > ledger.MOMENT + CLOCK_SECONDS
)
# Owners take turns, and of an owner's, the longest due comes first, or those left over might never have their turn.
_TURN = func.row_number().over(partition_by=table.c.owner, order_by=table.c.next_at)
_IN_TURN = select(*_WITHOUT_PARAMS).where(_DUE).order_by(_TURN, table.c.next_at).limit(AT_ONCE)
_ANY_DUE = select(literal(1)).where(_DUE).limit(1)


def any_due(connection: Connection) -> bool:
    return connection.execute(_ANY_DUE, {"moment": now()}).first() is not None


Limits = Callable[[str, str], tuple[Sequence[Most], Room | None]]
"""Returns the limits on jobs and storage of an owner and a key."""


def submit_due(connection: Connection, limits: Limits) -> bool:
    """Submit one job for each due schedule, however many times it was missed, within the `limits` of owner and key.

    None if its last job has not ended: jobs that take longer than the time between them would be more and more. If a
    schedule cannot be submitted, its error is stored for `listed`, and the others go on. So that others' writes do not wait
    for all of them, many schedules, or those of an owner whose params are LARGE, are left for the next transaction. Returns
    whether there may be such.
    """
    moment, began = now(), time.monotonic()
    submitted: Counter[str] = Counter()
    rows = connection.execute(_IN_TURN, {"moment": moment}).all()
    for number, row in enumerate(rows):
        if number and time.monotonic() - began > SECONDS:
            return True
        if submitted[row.owner] > LARGE:
            continue
        try:
            with connection.begin_nested():
                submitted[row.owner] += _submit(connection, row, moment, limits)
        except Exception as error:
            # Other errors than ours may quote internals, so they are only logged.
            ours = error.message if isinstance(error, LLMBackendError) else "failed unexpectedly: see the log"
            if ours != row.error:
                log.warning("schedule %r of %s could not be submitted: %r", row.name, row.owner, error)
            _put_off(connection, row, moment, ours)
    return len(rows) == AT_ONCE


def _submit(connection: Connection, row: Row[Any], moment: float, limits: Limits) -> int:
    """Submit the schedule's job, if nobody else does; return the characters of its params."""
    # The process that moves it on also submits the job, in the same transaction, so it is submitted once.
    moved = _move_on(connection, row, moment, next_after(row.cron, row.timezone, moment), None)
    if moved and not keys.counts(connection, row.key, moment):
        raise Forbidden("the key that made this schedule is no longer valid: set it again with another")
    if not moved or row.next_at > moment:
        return 0
    if row.job is not None and ledger.goes_on(connection, row.job):
        raise Conflict(f"left out, since its last job has not ended: {row.job}")
    most, room = limits(row.owner, row.key)
    mine = (table.c.owner == row.owner, table.c.name == row.name)
    params = connection.execute(select(table.c.params).where(*mine)).scalar_one()
    added = ledger.add(
        connection,
        ledger.NewJob(
            type=row.type,
            params=params,
            owner=row.owner,
            key=row.key,
            place=row.place,
            priority=row.priority,
            most=most,
            room=room,
        ),
    )
    connection.execute(update(table).where(*mine).values(job=added.id))
    return len(params)


def _put_off(connection: Connection, row: Row[Any], moment: float, error: str) -> None:
    try:
        following = next_after(row.cron, row.timezone, moment)
    except Exception:
        following = moment + AGAIN_SECONDS
    _move_on(connection, row, moment, following, error)


def _move_on(connection: Connection, row: Row[Any], moment: float, next_at: float, error: str | None) -> bool:
    """Set when a schedule is next due; return False if another process did so first."""
    same = table.c.owner == row.owner, table.c.name == row.name, table.c.next_at == row.next_at
    values = {"next_at": next_at, "reckoned_at": moment, "error": error}
    return connection.execute(update(table).where(*same).values(**values)).rowcount == 1
