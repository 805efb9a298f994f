"""A process that only runs jobs: `llmbackend worker`. Any number of them can share a database."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable

from pydantic import SecretStr

from .backend import Backend
from .errors import Conflict
from .settings import Settings

WORKERS = 1000
"""Most workers on one data directory."""


def run(settings: Settings, started: Callable[[str], None] = lambda folder: None) -> None:
    """Run up to `settings.workers` jobs at once until stopped (SIGINT, SIGTERM), then hand back unfinished ones.

    The jobs are those of DATABASE_URL, or of the server on the same DATA_DIR. Raises BackendError if it cannot start.
    """
    asyncio.run(_run(settings, started))


async def _run(settings: Settings, started: Callable[[str], None]) -> None:
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop(*_: object) -> None:
        loop.call_soon_threadsafe(stopped.set)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)  # the loop has no handlers of its own on Windows
    backend = await _open(settings)
    try:
        started(str(backend.settings.data_dir))
        await stopped.wait()
    finally:
        await backend.close()


async def _open(settings: Settings) -> Backend:
    """Open a backend in the first worker's folder that no other worker holds; the data directory itself is the server's."""
    shared = settings.database_url or SecretStr(f"sqlite:///{settings.data_dir / 'state.db'}")
    for number in range(1, WORKERS):
        changed = {
            "data_dir": settings.data_dir / "workers" / str(number),
            "models_dir": settings.models_path,
            "database_url": shared,
        }
        try:
            return await Backend.open(settings.model_copy(update=changed))
        except Conflict:
            continue
    raise Conflict(f"there are already {WORKERS} workers on {settings.data_dir}", details={})
