"""A llmbackend server in a process of its own, for tests to call, kill and start again."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.warm import Warm

KEY = "your-secure-api-key"
PLUGIN = Path(__file__).parent / "plugin"
"""Where a package lies that has job types of its own."""


Process = subprocess.Popen[str] | Warm


@dataclass
class Server:
    url: str
    process: Process


@contextmanager
def serving(data_dir: Path, *, warm: bool = True, **settings: Any) -> Iterator[Server]:
    """`llmbackend serve` on a free port; settings become LLMBACKEND_* variables. Stopped with SIGTERM at the end.

    `warm`: it is not what a start does that is tested.
    """
    process = start(data_dir, warm=warm, **settings)
    try:
        yield Server(address(process), process)
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def working(data_dir: Path, *, warm: bool = True, **settings: Any) -> Iterator[Process]:
    """`llmbackend worker`, once it works. Stopped with SIGTERM at the end."""
    process = start(data_dir, "worker", warm=warm, **settings)
    try:
        announced(process, " works on jobs")
        yield process
    finally:
        process.terminate()
        process.wait(timeout=30)


def start(
    data_dir: Path,
    command: str = "serve",
    *,
    inside: Sequence[str] = (),
    namespaces: int | None = None,
    plugin: Path | None = PLUGIN,
    warm: bool = False,
    first: str = "",
    **settings: Any,
) -> Process:
    """`llmbackend COMMAND`; `first` is code that runs before it."""
    data_dir.mkdir(parents=True, exist_ok=True)
    given = {"data_dir": data_dir, "host": "127.0.0.1", "port": 0, **settings}
    variables = {f"LLMBACKEND_{name.upper()}": str(value) for name, value in given.items()}
    variables["PYTHONPATH"] = str(plugin or "")
    # In a folder where no developer's `.env` lies.
    where: dict[str, Any] = {"cwd": data_dir, "inside": inside, "namespaces": namespaces}
    how = ["-c", f"{first}\nfrom llmbackend.cli import main\nmain()"] if first else ["-m", "llmbackend"]
    return python([*how, command], **where, warm=warm, **variables)


def python(
    arguments: Sequence[str],
    *,
    cwd: Path,
    inside: Sequence[str] = (),
    namespaces: int | None = None,
    warm: bool = True,
    **variables: str,
) -> Process:
    """Python with these arguments, and variables beside this process's.

    One that is not warm is started by the command `inside`; a warm one can have the `namespaces` of another process.
    """
    env = {**os.environ, **variables}
    if warm and sys.platform == "linux":
        return Warm(arguments, env=env, cwd=cwd, namespaces=namespaces)
    return subprocess.Popen(
        [*inside, sys.executable, *arguments],
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address(process: Process, timeout: float = 60) -> str:
    """The URL that a starting server announces; fails with what it said instead."""
    return announced(process, " at http", timeout).split(" at ", 1)[1].split()[0]


def announced(process: Process, what: str, timeout: float = 60) -> str:
    """The line in which a starting process says that it is there; fails with what it said instead."""
    said: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    process.said = said  # what follows can be read from it later

    def listen() -> None:
        for line in process.stderr or ():
            said.put(line)
        said.put(None)

    threading.Thread(target=listen, daemon=True).start()
    lines: list[str] = []
    while (line := said.get(timeout=timeout)) is not None:
        lines.append(line)
        if what in line:
            return line
    raise AssertionError(f"it did not start: {''.join(lines)}")
