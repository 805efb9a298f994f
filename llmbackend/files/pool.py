"""Keeps a pool of parsing processes (process.py), which are reused, and replaced when they fail."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from anyio import CancelScope

from .. import privacy, tracing
from ..errors import BackendError
from ..plugins import READERS
from ..turns import Places
from .frames import LENGTHS, OUT_OF_MEMORY, frame
from .parsed import Parsed, Unreadable

log = logging.getLogger(__name__)

FILES_A_PROCESS = 500
"""After so many files a process is replaced, to free memory that it holds."""
IDLE_SECONDS = 60
"""Idle processes are ended after this time."""
START_SECONDS = 300
"""The most time for a process to start: to import Python's parsers and a project's own. It takes none of a file's time."""


@dataclass(frozen=True)
class Limits:
    """Limits for reading one file."""

    seconds: float = 60
    memory: int = 2**30
    text: int = 64 * 2**20
    """Bytes of its text as UTF-8."""


class ParsingPool:
    """A pool of parsing processes, for one event loop. Processes are started when there are files for them."""

    def __init__(self, limits: Limits) -> None:
        self.size = min(os.cpu_count() or 1, 4)
        self._limits = limits
        self._places = Places(self.size)
        self._idle: list[_Parser] = []
        self._ending: asyncio.TimerHandle | None = None
        self._preparing: asyncio.Task[None] | None = None

    def prepare(self) -> None:
        """Start a process for files that are coming, unless one is idle, or the pool is busy."""
        if not self._idle and self._places.free and self._preparing is None:
            self._preparing = asyncio.create_task(self._prepare())

    async def _prepare(self) -> None:
        try:
            async with self._places.held(tracing.project()):
                self._keep(await _Parser.start(self._limits))
        except Exception:
            log.debug("no process could be prepared", exc_info=True)  # reading a file tells why
        finally:
            self._preparing = None

    async def parse(self, name: str, data: bytes) -> list[tuple[str, Parsed | Unreadable]]:
        """Return the texts of a file and of the files inside it, by name; the extension of `name` tells the format.

        An inner file without text has the reason instead. Raises Unreadable with the reason for the file itself, and
        BackendError if a parser is not installed.
        """
        if not data and PurePosixPath(name).suffix.lower() not in READERS:
            raise Unreadable("empty")  # thousands of them need no process
        if self._preparing is not None:
            await asyncio.wait([self._preparing])
        async with self._places.held(tracing.project()):
            if self._idle and self._idle[-1].readers != _own_readers():
                self._end_idle()  # a reader was registered after they were started
            if self._idle:
                with suppress(_Ended):  # perhaps because of an earlier file: this one gets a new process
                    return await self._read(self._idle.pop(), name, data)
            try:
                with _naming_own(name):
                    parser = await _Parser.start(self._limits)
                return await self._read(parser, name, data)
            except _Ended as error:
                raise Unreadable(str(error)) from None

    async def _read(self, parser: _Parser, name: str, data: bytes) -> list[tuple[str, Parsed | Unreadable]]:
        kept = False
        try:
            with _naming_own(name):
                head, text = await parser.parse(name, data)
            kept = parser.files < FILES_A_PROCESS
        finally:  # also if the call is cancelled while its file is being read
            if kept:
                self._keep(parser)
            else:
                await parser.end()
        if "missing" in head:
            raise BackendError(
                f"reading files such as {name} needs a package that is not installed: "
                f"pip install 'llmbackend[documents]' (missing: {head['missing']})",
                details={"backend": "documents"},
            )
        if "error" in head["found"][0]:
            raise Unreadable(head["found"][0]["error"])
        found: list[tuple[str, Parsed | Unreadable]] = []
        start = 0
        for one in head["found"]:
            if "error" in one:
                found.append((one["name"], Unreadable(one["error"])))
                continue
            end = start + one["bytes"]
            part = text[start:end].decode()
            found.append((one["name"], Parsed(part, one["syntax"], warnings=tuple(one["warnings"]))))
            start = end
        return found

    def _keep(self, parser: _Parser) -> None:
        self._idle.append(parser)
        if self._ending is not None:
            self._ending.cancel()
        self._ending = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._end_idle)

    def _end_idle(self) -> list[_Parser]:
        idle, self._idle = self._idle, []
        for parser in idle:
            parser.kill()
        return idle

    async def close(self) -> None:
        """End the idle processes. Calls under way end theirs."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.wait([self._preparing])
        if self._ending is not None:
            self._ending.cancel()
        for parser in self._end_idle():
            await parser.end()


def _own_readers() -> list[str]:
    """Return the project's own readers registered so far, as arguments for a process."""
    return [f"{suffix}={part.by}" for suffix, part in READERS.items()]


@contextmanager
def _naming_own(name: str) -> Iterator[None]:
    """Name a project's own reader in the reason if it takes too long or crashes."""
    own = READERS.get(PurePosixPath(name).suffix.lower())
    try:
        yield
    except (Unreadable, _Ended) as error:
        if own is None:
            raise
        raise type(error)(f"{error} (the reader of {own.name}, {own.by})") from None


class _Ended(Exception):
    """A process ended while reading a file; the message gives the likely reason."""


class _Parser:
    def __init__(self, process: Process, limits: Limits, readers: list[str]) -> None:
        self.files = 0
        self.readers = readers
        self._killed = False
        self._process = process
        self._limits = limits

    @classmethod
    async def start(cls, limits: Limits) -> _Parser:
        readers = _own_readers()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-P", "-m", "llmbackend.files.process"),  # do not import from the working directory
            *map(str, (limits.seconds, limits.memory, limits.text)),
            *readers,
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env=privacy.environment(),
        )
        parser = cls(process, limits, readers)
        ready = False
        try:
            async with asyncio.timeout(START_SECONDS):
                await parser._frame()
            ready = True
        except TimeoutError:
            raise _Ended(f"not read: importing its parser took more than {START_SECONDS} s") from None
        finally:
            if not ready:
                await parser.end()
        return parser

    async def parse(self, name: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        files = self._process.stdin
        assert files is not None
        self.files += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                files.write(frame({"name": name}, data))
                with suppress(ConnectionError):  # the process may have written the reason before it ended
                    await files.drain()
                return await self._frame()
        except TimeoutError:
            raise Unreadable(f"took too long: more than {self._limits.seconds:g} s") from None

    async def _frame(self) -> tuple[dict[str, Any], bytes]:
        """The next frame's head and body. Raises _Ended."""
        texts = self._process.stdout
        assert texts is not None
        try:
            lengths = LENGTHS.unpack(await texts.readexactly(LENGTHS.size))
            if max(lengths) > self._limits.text:
                raise Unreadable("its parser misbehaved")
            return json.loads(await texts.readexactly(lengths[0])), await texts.readexactly(lengths[1])
        except (asyncio.IncompleteReadError, ConnectionError):
            code = await self._process.wait()
            raise _Ended(_REASONS.get(code, "broken: its parser crashed")) from None

    def kill(self) -> None:
        # Only once, because a second call would collect the exit code that asyncio waits for.
        if not self._killed and self._process.returncode is None:
            self._killed = True
            self._process.kill()

    async def end(self) -> None:
        """End the process, and wait until it and its pipes are gone."""
        self.kill()
        with CancelScope(shield=True):
            await self._process.communicate()


_REASONS = {
    OUT_OF_MEMORY: "took too much memory",
    -getattr(signal, "SIGKILL", 9): "took too much memory",  # the system as a whole has run out of it
    -getattr(signal, "SIGXCPU", 24): "took too long",
    -getattr(signal, "SIGALRM", 14): "took too long",
}
