"""Processes of Python that begin with the package imported: forked from one that has done so, which is most of a start.

They are as any other in all else: a `-m` or `-c` of their own, arguments, environment, folder, streams, and an end that
is awaited. What a start itself is tested for needs a process that is not warm.
"""

from __future__ import annotations

import atexit
import ctypes
import gc
import json
import os
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NoReturn

_ADDRESS = "TESTS_WARM_PROCESS"
_MESSAGE = 2**17
_NUMBER = struct.Struct("i")
_starting = threading.Lock()


class Warm:
    """What is used of subprocess.Popen."""

    def __init__(
        self, arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, namespaces: int | None = None
    ) -> None:
        """`arguments` are what would follow `python`; it sees users and disks as the process `namespaces` does."""
        out, out_end = os.pipe()
        said, said_end = os.pipe()
        self._status, status_end = os.pipe()
        order = {"arguments": list(arguments), "env": dict(env), "cwd": str(cwd), "namespaces": namespaces}
        with _starting:
            socket.send_fds(_orders(), [json.dumps(order).encode()], [out_end, said_end, status_end])
        for end in (out_end, said_end, status_end):
            os.close(end)
        self.stdout = open(out)  # noqa: SIM115
        self.stderr = open(said)  # noqa: SIM115
        self.returncode: int | None = None
        [self.pid] = _NUMBER.unpack(os.read(self._status, _NUMBER.size))

    def poll(self) -> int | None:
        return self._ended(0)

    def wait(self, timeout: float | None = None) -> int:
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired([], timeout or 0)
        return code

    def _ended(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._status], [], [], timeout)[0]:
            [self.returncode] = _NUMBER.unpack(os.read(self._status, _NUMBER.size))
            os.close(self._status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        with ThreadPoolExecutor(2) as reading:
            said = [reading.submit(stream.read) for stream in (self.stdout, self.stderr)]
            try:
                self.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()  # and with it, what is read ends
                raise
        return said[0].result(), said[1].result()


def share() -> None:
    """Have the processes that this one starts, as xdist's are, use one with it: what it imports takes seconds."""
    os.environ[_ADDRESS] = _start()


def _start() -> str:
    """Where a process, that all are forked from, takes orders; it ends when this one does."""
    address = f"llmbackend-tests-{uuid.uuid4()}"
    ended, _ = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as orders:
        orders.bind(f"\0{address}")
        ends = [orders.fileno(), ended]
        environment = {**os.environ, "PYTHONPATH": ""}
        subprocess.Popen([sys.executable, __file__, *map(str, ends)], pass_fds=ends, env=environment)
    os.close(ended)
    return address


@cache
def _orders() -> socket.socket:
    orders = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    orders.connect(f"\0{os.environ.get(_ADDRESS) or _start()}")
    return orders


# There


_PARTS = (
    "cli",
    "server.running",
    "jobs.wakeups",
    "inference.local_chat",
    "engines.bm25_first",
    "analysis",
    "analysis.document",
    "analysis.workflow",
)
_LAZY = (
    "anyio._backends._asyncio",
    "llama_index.core.agent.workflow",
    "onnxruntime",
    "qdrant_edge",
    "safetensors.numpy",
    "Stemmer",
    "tokenizers",
    "uvicorn.lifespan.off",
    "uvicorn.loops.uvloop",
    "vaderSentiment.vaderSentiment",
)
"""What those import once it is needed."""


@cache
def _import_all() -> None:
    import_module("llmbackend.llamaindex_import").load()
    for name in (*(f"llmbackend.{part}" for part in _PARTS), *_LAZY):
        import_module(name)
    entry_points()  # remembers where packages lie
    import_module("llmbackend.inference.static_vectors").wordllama().loaded()
    gc.collect()
    gc.freeze()  # else each process collects all of that at its end, a second's work, most of it copies of pages


def _take_orders(orders: socket.socket, ended: int) -> None:
    """Returns in each of the processes that are asked for, once it is set up; else ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # of those that wait for them
    while orders in select.select([orders, ended], [], [])[0]:
        _import_all()
        message, ends, _, _ = socket.recv_fds(orders, _MESSAGE, 3)
        if os.fork() == 0:
            orders.close()
            os.close(ended)
            _fork(json.loads(message), *ends)
            return
        for end in ends:
            os.close(end)
    sys.exit()


def _fork(order: dict, out: int, said: int, status: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process:
        os.close(out)
        os.close(said)
        _keep(process, status)
    os.close(status)
    for end, stream in ((out, 1), (said, 2)):
        os.dup2(end, stream)
        os.close(end)
    if order["namespaces"] is not None:
        _enter(order["namespaces"])
    os.environ.clear()
    os.environ.update(order["env"])
    tempfile.tempdir = None  # the environment tells where it is
    os.chdir(order["cwd"])
    sys.path[:0] = [path for path in order["env"].get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.argv[:] = order["arguments"]


def _enter(process: int) -> None:
    """What os.setns does in Python 3.12. A process may do so while it has one thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    namespaces = [os.open(f"/proc/{process}/ns/{name}", os.O_RDONLY) for name in ("user", "mnt")]
    for namespace in namespaces:
        if libc.setns(namespace, 0):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        os.close(namespace)


def _keep(process: int, status: int) -> NoReturn:
    """Tell who it is, and how it ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.write(status, _NUMBER.pack(process))
    _, ended = os.waitpid(process, 0)
    os.write(status, _NUMBER.pack(os.waitstatus_to_exitcode(ended)))
    os._exit(0)


def _run() -> NoReturn:
    """Ends as Python does, but for freeing all that was imported, which takes longer than the rest of a short life."""
    try:
        _run_arguments()
        code: Any = None
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):  # nobody reads it any more
            stream.flush()
    os._exit(code or 0)


def _run_arguments() -> None:
    how, what, *_ = sys.argv
    del sys.argv[0]
    if how == "-m":
        runpy.run_module(what, run_name="__main__", alter_sys=True)
    else:
        sys.argv[0] = "-c"
        exec(compile(what, "<string>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    _take_orders(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    _run()
