"""Files into texts, several at once, by processes that are kept, and replaced when one fails (parsing_process.py)."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from dataclasses import dataclass
from typing import Any

from ..errors import BackendError
from .parsing import Parsed, Unreadable
from .parsing_process import LENGTHS, TOO_MUCH_MEMORY, frame

FILES_A_PROCESS = 500
"""After which it is replaced, with the memory that it has not given back."""


@dataclass(frozen=True)
class Limits:
    """What reading one file may take."""

    seconds: float = 60
    memory: int = 2**30
    text: int = 64 * 2**20
    """Bytes, as UTF-8."""


class ParsingPool:
    """Belongs to one event loop. Processes are started when there are files for them."""

    def __init__(self, limits: Limits) -> None:
        self.size = min(os.cpu_count() or 1, 4)
        self._limits = limits
        self._turns = asyncio.Semaphore(self.size)
        self._idle: list[_Parser] = []

    async def parse(self, name: str, data: bytes) -> Parsed:
        """The text of a file; its name tells what it is.

        Raises Unreadable with the reason if it has none, BackendError if a parser is not installed.
        """
        async with self._turns:
            parser = await self._parser()
            try:
                head, body = await parser.parse(name, data)
            except BaseException:  # also a cancelled call: its file is still being read
                await parser.end()
                raise
            if parser.files < FILES_A_PROCESS and head.get("error") != TOO_MUCH_MEMORY:
                self._idle.append(parser)
            else:
                await parser.end()
        if "missing" in head:
            raise BackendError(
                f"a package is not installed that reads files such as {name}: "
                f"pip install 'llmbackend[documents]' (missing: {head['missing']})",
                details={"backend": "documents"},
            )
        if "error" in head:
            raise Unreadable(head["error"])
        return Parsed(body.decode(), head["syntax"])

    async def _parser(self) -> _Parser:
        while self._idle:
            parser = self._idle.pop()
            if parser.alive:
                return parser
        return await _Parser.start(self._limits)

    async def close(self) -> None:
        """End the idle processes; files being read are their callers' to give up."""
        while self._idle:
            await self._idle.pop().end()


class _Parser:
    def __init__(self, process: Process, limits: Limits) -> None:
        self.files = 0
        self._process = process
        self._limits = limits

    @classmethod
    async def start(cls, limits: Limits) -> _Parser:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "llmbackend.knowledge.parsing_process"),
            *map(str, (limits.seconds, limits.memory, limits.text)),
            stdin=PIPE,
            stdout=PIPE,
            stderr=DEVNULL,
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},  # and no key of ours
        )
        return cls(process, limits)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    async def parse(self, name: str, data: bytes) -> tuple[dict[str, Any], bytes]:
        files, texts = self._process.stdin, self._process.stdout
        assert files is not None
        assert texts is not None
        self.files += 1
        try:
            async with asyncio.timeout(self._limits.seconds):
                files.write(frame({"name": name}, data))
                await files.drain()
                lengths = LENGTHS.unpack(await texts.readexactly(LENGTHS.size))
                if max(lengths) > self._limits.text:
                    raise Unreadable("its parser misbehaved")
                head = await texts.readexactly(lengths[0])
                body = await texts.readexactly(lengths[1])
        except TimeoutError:
            raise Unreadable(f"took too long: more than {self._limits.seconds:g} s") from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Unreadable(_ENDED.get(await self._process.wait(), "broken: its parser crashed")) from None
        return json.loads(head), body

    async def end(self) -> None:
        if self.alive:
            self._process.kill()
        await self._process.wait()


_ENDED = {
    -signal.SIGKILL: TOO_MUCH_MEMORY,  # by the system
    -getattr(signal, "SIGXCPU", 24): "took too long",
    -getattr(signal, "SIGALRM", 14): "took too long",
}
