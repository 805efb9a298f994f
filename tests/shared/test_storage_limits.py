"""Limits on what is stored and on jobs, by many who come to the same database at once: none of them passes any."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import llmbackend.backend  # noqa: F401  # which registers every table
from llmbackend import Overloaded
from llmbackend.access.caller import Caller, Limits
from llmbackend.access.limits import Most, Whose
from llmbackend.access.room import Size, require_within
from llmbackend.jobs import ledger
from llmbackend.knowledge.collections.manifests import Manifest, Manifests
from llmbackend.storage.database import connect, transaction
from tests.shared import services

AT_ONCE, TRIES = 8, 40


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "state.db"
    url: str = request.getfixturevalue("postgres")
    return services.database(url, f"stored-{uuid.uuid4()}")


def test_nobody_stores_more_than_there_may_be(place: Path | str) -> None:
    engine = connect(place)
    rows = Manifests(engine, "here")
    collections = [
        Manifest("hr", f"c{number}", str(uuid.uuid4()), "m", 256, 512, 64, "now") for number in range(AT_ONCE)
    ]
    for one in collections:
        rows.insert(one, None, Size())
    limits = [(Whose("project", "hr"), Limits(chunks=100, bytes=10**6))]

    def store(number: int) -> int:
        try:
            rows.grow(
                collections[number % AT_ONCE],
                Size(7, 10),
                lambda now, more: require_within(limits, now, more),
            )
        except Overloaded:
            return 0
        return 7

    with ThreadPoolExecutor(AT_ONCE) as pool:
        stored = sum(pool.map(store, range(TRIES)))
    assert stored == 98
    vectors = 98 * 4 * 256
    assert rows.stored("hr") == Size(98, 140 + vectors)
    assert rows.stored("support") == Size()
    for one in collections:  # whatever is told to be gone, there is not less than nothing
        rows.grow(one, Size(-1000, -1000))
    assert rows.stored("hr") == Size()
    engine.dispose()


def test_nobody_has_more_jobs_than_may_wait(place: Path | str) -> None:
    engine = connect(place)
    limits = (Most(Whose("key", "llmb_hr_abcdefgh"), 5), Most(Whose("project", "hr"), 9))

    def add(number: int) -> tuple[str, str] | None:
        key = "llmb_hr_abcdefgh" if number % 2 else "env"
        own = limits if number % 2 else limits[1:]
        with transaction(engine) as connection:
            try:
                return key, ledger.add(connection, ledger.NewJob("t", "{}", "hr", key, most=own)).id
            except Overloaded:
                return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        added = [one for one in pool.map(add, range(TRIES)) if one is not None]
    assert len(added) == 9
    assert sum(key != "env" for key, _ in added) <= 5
    with transaction(engine) as connection:
        ledger.cancel(connection, "hr", added[0][1])
    assert add(0) is not None
    with transaction(engine) as connection, pytest.raises(Overloaded):
        ledger.retry(connection, Caller("hr"), added[0][1], limits[1:])
    engine.dispose()
