"""PostgreSQL and Redis for a while, where they are installed (on Debian: postgresql, redis-server)."""

from __future__ import annotations

import glob
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Missing(Exception):
    """It is not installed."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _until_open(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except OSError:
            assert process.poll() is None, f"{process.args} ended"
            assert time.monotonic() < deadline, f"{process.args} does not answer"
            time.sleep(0.05)


@contextmanager
def _running(command: list[str], port: int, **options: Any) -> Iterator[None]:
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **options
    ) as process:
        try:
            _until_open(port, process)
            yield
        finally:
            process.send_signal(signal.SIGINT)  # at SIGTERM, PostgreSQL would wait for its clients to leave


@contextmanager
def postgres() -> Iterator[str]:
    """The URL of a server's database that may be dropped and made by whoever connects; raises Missing."""
    found = [shutil.which("initdb"), *sorted(glob.glob("/usr/lib/postgresql/*/bin/initdb"), reverse=True)]
    initdb = next((path for path in found if path), None)
    if initdb is None:
        raise Missing("PostgreSQL is not installed")
    # It refuses to run as root; and pytest's folders are closed to other users whenever another session begins.
    options: dict[str, Any] = {"user": "postgres"} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory() as data:
        if options:
            shutil.chown(data, options["user"])
        make = [initdb, "-D", data, "-A", "trust", "-U", "test", "--no-sync"]
        subprocess.run(make, check=True, capture_output=True, cwd="/", **options)
        port = _free_port()
        server = [str(Path(initdb).with_name("postgres")), "-D", data, "-p", str(port)]
        server += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        url = f"postgresql://test@127.0.0.1:{port}/postgres"
        with _running(server, port, cwd="/", **options):
            _until_it_starts(url)
            yield url


def _until_it_starts(url: str) -> None:
    """Its port is open before the server lets anybody in."""
    import psycopg

    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
            return
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


@contextmanager
def redis(folder: Path) -> Iterator[str]:
    """The URL of a server; raises Missing."""
    executable = shutil.which("redis-server") or shutil.which("valkey-server")
    if executable is None:
        raise Missing("Redis is not installed")
    port = _free_port()
    with _running(
        [executable, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)], port
    ):
        yield f"redis://127.0.0.1:{port}/0"


def database(url: str, name: str) -> str:
    """A new database on that server; its URL."""
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')  # type: ignore[call-overload]
    return url.rsplit("/", 1)[0] + f"/{name}"
