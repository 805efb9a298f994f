"""Reports a backend's health: whether it is ready, its sizes and load, and problems of its parts."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from sqlalchemy import text

from . import __version__, doctor, plugins, schemas
from .access.caller import Caller
from .access.room import Size
from .compose import Components
from .jobs import reading


class State(NamedTuple):
    """Sizes and load of all parts."""

    jobs: dict[tuple[str, str], int]
    """The number of jobs by type and status."""
    ages: dict[tuple[str, str], float]
    collections: int
    disk_free: int
    disk_reserve: int
    cache_bytes: int
    cache_hits: int
    cache_misses: int
    tokens: dict[tuple[str, str], int]
    """Tokens by model and kind: prompt, completion or embedded."""
    upstream_errors: dict[tuple[str, str], int]
    limits: dict[str, int]
    parts: dict[str, str]


async def state(parts: Components) -> State:
    await parts.dependencies.look()
    jobs, ages = await parts.database.read(reading.waiting)
    file = parts.settings.data_dir / "embeddings.db"
    return State(
        jobs=jobs,
        ages=ages,
        collections=parts.collections.open_count,
        disk_free=parts.disk.free,
        disk_reserve=parts.disk.reserve,
        cache_bytes=file.stat().st_size if file.exists() else 0,
        cache_hits=parts.embedder.hits,
        cache_misses=parts.embedder.misses,
        tokens=parts.meter.tokens(),
        upstream_errors=dict(parts.meter.failures),
        limits=parts.limiter.reached_by_kind(),
        parts=_by_part(parts, parts.disk.problem, parts.vitals.parts()),
    )


async def ready(parts: Components) -> schemas.Health:
    await parts.dependencies.look()
    own = parts.vitals.parts()
    told = {disk: disk.problem for disk in {parts.disk, parts.jobs_disk} if disk is not None}
    # A full disk counts as a failure, except if Qdrant and PostgreSQL are elsewhere, so that it only holds a cache.
    vectors = parts.disk if parts.qdrant is None else None
    problems = [problem for disk, problem in told.items() if problem and disk in (vectors, parts.jobs_disk)]
    problems += [f"{part}: {state}" for part, state in own.items() if state != "ok"]
    if problems:  # the database may work again, although no write has shown that yet
        parts.database.write(lambda connection: connection.execute(text("SELECT 1")), durable=False)
    return schemas.Health(
        status="failing" if problems else "ok",
        problems=problems,
        parts=_by_part(parts, told[parts.disk], own),
        version=__version__,
        chat=parts.chat.name,
        embeddings=parts.embedder.name,
        own_file_types=list(plugins.READERS),
    )


async def diagnosis(parts: Components, caller: Caller) -> schemas.Diagnosis:
    """Return what the doctor finds; only the administrator sees the keys and limits of others."""
    checks = await doctor.examine(
        parts.settings,
        parts.chat,
        parts.embedder.model,
        parts.judge,
        parts.reranker,
        parts.qdrant,
        parts.disk,
        partial(_lacking, parts),
    )
    keys = parts.register.standing_keys
    if caller.everywhere and (keys or parts.limiter.hits):
        checks.append(doctor.access(keys, parts.limiter.hits))
    checks += await _storage(parts, caller)
    return schemas.Diagnosis(ok=all(check.ok for check in checks), version=__version__, checks=checks)


async def _storage(parts: Components, caller: Caller) -> list[schemas.Check]:
    """Check the storage of the caller's project, or for the administrator, of the projects nearest to their limits."""
    projects = {caller.project}
    if caller.everywhere:
        projects |= {name.project for name in parts.collections.names()}
    checks = []
    for project in sorted(projects):
        if limits := parts.limiter.of_storage(caller, project):
            kept = await parts.kept_bytes(project)
            used = (await parts.collections.stored(project)).more(Size(0, kept))
            checks += [doctor.storage(project, whose, most, used) for whose, most in limits]
    return sorted(checks, key=lambda check: -doctor.share(check))[:PROJECTS_SHOWN]


PROJECTS_SHOWN = 20
"""Most projects whose storage the doctor shows."""


async def _lacking(parts: Components) -> list[str]:
    return [*parts.collections.lacking_parsers(), *await parts.agents.lacking(doctor.PROBE_SECONDS)]


def _by_part(parts: Components, disk: str | None, own: dict[str, str]) -> dict[str, str]:
    return {"disk": disk or "ok", **parts.chat.servers(), **parts.dependencies.parts, **own}
