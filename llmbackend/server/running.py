"""Running a server: where it listens, which signals stop it, and what it does in quiet moments."""

from __future__ import annotations

import asyncio
import errno
import gc
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn

from .. import llamaindex_import, threads, tracing
from ..backend import Backend
from ..errors import Conflict, InvalidRequest
from ..settings import Settings
from .access import LOOPBACK
from .app import create_app
from .connections import IDLE, Connection, Connections
from .metrics import Metrics
from .refusals import Refusals


def check_exposure(settings: Settings) -> None:
    """Raise InvalidRequest if the server would listen beyond this machine without a key."""
    if not settings.callers and settings.host not in LOOPBACK:
        raise InvalidRequest(
            f"HOST is {settings.host} and there is no API_KEY: set one, or listen on 127.0.0.1 only"
        )


def check_address(host: str, port: int) -> None:
    """Check that a server can listen there, before anything is opened. Raises InvalidRequest or Conflict."""
    try:
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, protocol, _, address in addresses:
            with socket.socket(family, kind, protocol) as trying:
                trying.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                trying.bind(address)
                trying.listen()
    except (socket.gaierror, UnicodeError) as error:
        raise InvalidRequest(
            f"HOST {host!r} is neither an address nor a name of this machine: set another"
        ) from error
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise Conflict(
                f"port {port} of {host} is in use by another process: stop that, or choose another with --port or PORT"
            ) from error
        if error.errno == errno.EACCES:
            raise InvalidRequest(
                f"this user may not listen on port {port}: choose 1024 or higher with --port or PORT"
            ) from error
        if error.errno == errno.EADDRNOTAVAIL:
            raise InvalidRequest(f"HOST {host!r} is not an address of this machine: set another") from error
        raise InvalidRequest(
            f"a server cannot listen at {host}, port {port}: {error.strerror or error}"
        ) from error


def run(settings: Settings, started: Callable[[str], None] = lambda url: None) -> None:
    """Serve until stopped (SIGINT, SIGTERM); call `started` with the URL once requests are answered.

    Raises InvalidRequest, Conflict or BackendError if it cannot start.
    """
    # uvicorn's choice of event loop: uvloop if installed.
    with asyncio.Runner(loop_factory=uvicorn.Config("").get_loop_factory()) as runner:
        runner.run(_serve(settings, started))


async def _serve(settings: Settings, started: Callable[[str], None]) -> None:
    check_exposure(settings)
    check_address(settings.host, settings.port)
    if settings.metrics_port is not None:
        check_address(settings.host, settings.metrics_port)
    backend = await Backend.open(settings, forwards=True)
    gc.collect()
    gc.freeze()  # what exists by now stays for good: exempt it from later collections
    gc.set_threshold(*COLLECTED)
    gc.callbacks.append(_Freezing())
    sys.setswitchinterval(
        0.001
    )  # seconds that a busy thread may keep the event loop waiting; Python's default is 5 ms
    refusals, metrics = Refusals(backend.audited), Metrics(backend)
    connections = Connections(_most_connections(settings))
    try:
        config = uvicorn.Config(
            create_app(backend, refusals, metrics),
            http=partial(Connection, connections),  # type: ignore[arg-type]
            ws="none",
            host=settings.host,
            port=settings.port,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=GRACE,
            timeout_keep_alive=int(IDLE),
        )
        watching = asyncio.create_task(connections.watch(refusals.summarise))
        quiet_work = asyncio.create_task(_use_quiet_moments())
        measuring = None
        if settings.metrics_port is not None:
            measuring = asyncio.create_task(metrics.serve(settings.host, settings.metrics_port))
        try:
            await _Server(config, started, backend.end_watches).serve()
        finally:
            watching.cancel()
            quiet_work.cancel()
            if measuring is not None:
                measuring.cancel()
                await asyncio.wait([measuring])
    finally:
        await backend.close()


GRACE = 10
"""Seconds that a server which is stopped gives to requests under way."""


async def _use_quiet_moments() -> None:
    """Do what would otherwise delay requests: import LlamaIndex, which takes seconds and is needed for agents and for
    analyses by larger models; collect garbage."""
    await asyncio.sleep(QUIET)
    await tracing.quiet(QUIET)
    await threads.files(llamaindex_import.load)
    while True:
        await asyncio.sleep(BETWEEN)
        await tracing.quiet(QUIET)
        if gc.get_count()[2]:
            gc.collect()


BETWEEN = 60.0
"""Seconds between collections of garbage in quiet moments."""

QUIET = 5.0
"""Seconds without a call after which a server loads what it has not needed yet, and collects its garbage."""

COLLECTED = (10_000, 2, 240)
"""The thresholds of Python's garbage collector: new objects until the youngest are examined, more than dozens of
requests under way have (a twelfth of a chat's time went there at 2,000, and 10,000 take a few milliseconds); how often
until the next generation is; and how often until all are. The last takes a tenth of a second, in which nothing else
runs, so it is done in quiet moments if there are any."""


class _Freezing:
    """Exempts all objects that survive a long garbage collection from later ones. Most of them are modules
    imported late.

    A collection stops all threads; this one would take a tenth of a second each time. Cyclic garbage among
    the exempted objects is never freed, but it is little: it takes tens of thousands of new objects to make a
    collection long again.
    """

    def __init__(self) -> None:
        self._began = 0.0

    def __call__(self, phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            self._began = time.thread_time()
        elif info["generation"] == 2 and time.thread_time() > self._began + LONG_COLLECTION:
            gc.freeze()


LONG_COLLECTION = 0.02  # seconds


def _most_connections(settings: Settings) -> int:
    """MAX_CONNECTIONS, or half of the files that this process may open, so that the rest is left for
    collections and models."""
    if sys.platform == "win32":  # connections are not files there
        return settings.max_connections
    import resource

    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(files, min(4 * settings.max_connections, most if most != resource.RLIM_INFINITY else 2**20))
    if wanted > files:
        with suppress(OSError, ValueError):  # a sandbox may refuse: keep the limit there is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
            files = wanted
    return min(settings.max_connections, files // 2)


class _Server(uvicorn.Server):
    """uvicorn that reports the URL it listens on, because with port 0 the system chooses."""

    def __init__(
        self, config: uvicorn.Config, started: Callable[[str], None], stopping: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._tell = started
        self._stopping = stopping

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals without uvicorn's re-raising them at its end, before the backend is closed."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            host = f"[{self.config.host}]" if ":" in self.config.host else self.config.host
            self._tell(f"http://{host}:{port}")

    async def shutdown(self, sockets: Any = None) -> None:
        self._stopping()
        await super().shutdown(sockets)
