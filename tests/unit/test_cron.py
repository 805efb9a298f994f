"""When cron lines are due: told in no time, whatever they ask for."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest

from llmbackend import InvalidRequest
from llmbackend.jobs.schedules import next_after

NEVER = ["0 0 31 2 *", "0 0 30 2 *", "0 0 31 4,6,9,11 *"]
RARELY = ["0 0 29 2 *", "0 0 29 2 1#5", "59 23 31 12 *", "0 0 L 2 *"]
LAST = datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC).timestamp()


def _next(cron: str, zone: str, moment: float) -> float:
    began = time.process_time()
    try:
        return next_after(cron, zone, moment)
    finally:
        assert time.process_time() - began < 2, "of milliseconds"


@pytest.mark.parametrize("zone", ["UTC", "Europe/Berlin", "Pacific/Apia"])
@pytest.mark.parametrize("cron", NEVER)
def test_a_line_that_is_never_due_is_refused(cron: str, zone: str) -> None:
    for moment in (time.time(), LAST - 86_400):
        with pytest.raises(InvalidRequest, match="cron"):
            _next(cron, zone, moment)


@pytest.mark.parametrize("cron", RARELY)
def test_a_line_that_is_rarely_due_is_found(cron: str) -> None:
    assert _next(cron, "UTC", time.time()) > time.time()


@pytest.mark.parametrize("cron", ["* * * * *", *RARELY, ",".join(["1"] * 48) + " * * * *"])
def test_nothing_is_due_after_the_last_year(cron: str) -> None:
    with pytest.raises(InvalidRequest, match="never due"):
        _next(cron, "UTC", LAST)


@pytest.mark.parametrize(
    ("nickname", "line"),
    [
        ("@hourly", "0 * * * *"),
        ("@daily", "0 0 * * *"),
        ("@weekly", "0 0 * * SUN"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
    ],
)
def test_a_nickname_is_a_line(nickname: str, line: str) -> None:
    moment = datetime(2026, 2, 3, 4, 5, tzinfo=UTC).timestamp()
    assert next_after(nickname, "Europe/Berlin", moment) == next_after(line, "Europe/Berlin", moment)
    with pytest.raises(InvalidRequest, match=f"1 field; .*{nickname}"):
        next_after(nickname[:-1], "UTC", moment)
