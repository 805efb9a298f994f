"""Reading files in processes of their own: what each may take, and what becomes of one that fails."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import psutil
import pytest

from llmbackend.errors import BackendError
from llmbackend.files import landlock
from llmbackend.files import pool as parsing_pool
from llmbackend.files.parsed import Parsed, Unreadable
from llmbackend.files.pool import Limits, ParsingPool
from llmbackend.plugins import READERS
from tests import files
from tests.files import FACT

TEXT = ("a.txt", FACT.encode())
READ = [("a.txt", Parsed(FACT, "plain"))]


@asynccontextmanager
async def _pool(**limits: float) -> AsyncIterator[ParsingPool]:
    pool = ParsingPool(Limits(**limits))  # type: ignore[arg-type]
    try:
        yield pool
    finally:
        await pool.close()


_OTHERS: set[int] = set()
"""Processes of clients that other tests keep open."""


@pytest.fixture(autouse=True)
def _know_others() -> None:
    _OTHERS.update(_children())


def _children() -> dict[int, psutil.Process]:
    found = {one.pid: one for one in psutil.Process().children() if one.pid not in _OTHERS}
    return {pid: one for pid, one in found.items() if _parses(one)}


def _parses(process: psutil.Process) -> bool:
    try:
        return any("files.process" in part for part in process.cmdline())
    except psutil.ZombieProcess:
        return True  # it has just ended, and nobody has waited for it yet
    except psutil.NoSuchProcess:
        return False


def _run(work: Callable[[], Awaitable[None]]) -> None:
    anyio.run(work)
    assert _children() == {}, "a process was left behind"


def test_processes_are_kept_for_the_next_file() -> None:
    async def work() -> None:
        async with _pool() as pool:
            assert _children() == {}, "started when there is something to do"
            assert await pool.parse(*TEXT) == READ
            kept = _children().keys()
            assert len(kept) == 1
            for _ in range(5):
                await pool.parse(*TEXT)
            assert _children().keys() == kept
            async with anyio.create_task_group() as group:
                for _ in range(20):
                    group.start_soon(pool.parse, *TEXT)
            assert 1 <= len(_children()) <= pool.size

    _run(work)


def test_a_process_can_be_started_before_its_files_are_there() -> None:
    async def work() -> None:
        async with _pool() as pool:
            pool.prepare()
            pool.prepare()
            assert await pool.parse(*TEXT) == READ
            kept = _children().keys()
            assert len(kept) == 1
            pool.prepare()
            await anyio.sleep(0.1)
            assert _children().keys() == kept, "one that is idle is enough"
        async with _pool() as pool:
            pool.prepare()
            await anyio.sleep(0.02)  # it has begun to start when the pool is closed

    _run(work)


def test_an_empty_file_needs_no_process() -> None:
    async def work() -> None:
        async with _pool() as pool:
            for name in ("a.txt", "b.PDF", "c", "d.unknown"):
                with pytest.raises(Unreadable, match=r"^empty$"):
                    await pool.parse(name, b"")
            assert _children() == {}

    _run(work)


def test_modules_in_the_working_directory_are_not_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "csv.py").write_text("raise SystemExit")
    monkeypatch.chdir(tmp_path)

    async def work() -> None:
        async with _pool() as pool:
            assert await pool.parse(*TEXT) == READ

    _run(work)


def test_processes_with_nothing_to_do_are_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing_pool, "IDLE_SECONDS", 0.2)

    async def work() -> None:
        async with _pool() as pool:
            await pool.parse(*TEXT)
            with anyio.fail_after(30):
                while _children():  # noqa: ASYNC110
                    await anyio.sleep(0.05)
            assert await pool.parse(*TEXT) == READ

    _run(work)


def test_a_file_that_takes_too_long_is_given_up_and_the_next_is_read() -> None:
    async def work() -> None:
        async with _pool(seconds=1.5) as pool:
            with pytest.raises(Unreadable, match=r"took too long: more than 1\.5 s"):
                await pool.parse("endless.pdf", files.endless_pdf())
            assert _children() == {}
        async with _pool() as pool:
            assert await pool.parse(*TEXT) == READ

    _run(work)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not limit memory")
def test_a_file_that_takes_too_much_memory_is_given_up_and_the_next_is_read() -> None:
    async def work() -> None:
        async with _pool(memory=256 * 2**20) as pool:
            for name, data in (
                ("large.json", b"[" + b"{}," * 10_000_000 + b"{}]"),
                ("large.txt", bytes(300 * 2**20)),  # is too large to be taken at all
            ):
                with pytest.raises(Unreadable, match="took too much memory"):
                    await pool.parse(name, data)
                assert await pool.parse(*TEXT) == READ

    _run(work)


def test_a_text_that_is_too_large_is_given_up() -> None:
    async def work() -> None:
        async with _pool(text=2**20) as pool:
            with pytest.raises(Unreadable, match="too large: it has 2 MB of text, and the limit is 1 MB"):
                await pool.parse("a.txt", b"a" * 2**21)
            assert await pool.parse(*TEXT) == READ

    _run(work)


def test_a_process_that_dies_is_replaced() -> None:
    async def work() -> None:
        async with _pool() as pool:
            await pool.parse(*TEXT)
            (idle,) = _children().values()
            idle.kill()
            assert await pool.parse(*TEXT) == READ

        async with _pool() as pool, anyio.create_task_group() as group:

            async def fails() -> None:
                with pytest.raises(Unreadable, match="took too much memory"):
                    await pool.parse("endless.pdf", files.endless_pdf())

            group.start_soon(fails)
            while not (at_work := _children()):  # noqa: ASYNC110
                await anyio.sleep(0.05)
            for one in at_work.values():
                one.kill()  # as a system does that runs out of memory

    _run(work)


def test_a_call_that_is_left_leaves_no_process_behind() -> None:
    async def work() -> None:
        async with _pool() as pool:
            with anyio.move_on_after(1.5):
                await pool.parse("endless.pdf", files.endless_pdf())
            assert _children() == {}
            assert await pool.parse(*TEXT) == READ

    _run(work)


def test_processes_know_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "s3cret-value")

    async def work() -> None:
        async with _pool() as pool:
            await pool.parse(*TEXT)
            (process,) = _children().values()
            assert process.environ().keys() <= {"PYTHONPATH", "LC_CTYPE"}

    _run(work)


# What a parser must not do, run in a process that is limited as its own.
FORBIDDEN = {
    "reach the network": "import socket; socket.create_connection(('127.0.0.1', 9), 1)",
    "look up a name": "import socket; socket.getaddrinfo('localhost', 80)",
    "start a process": "import subprocess; subprocess.run(['true'])",
    "start a shell": "import os; os.system('true')",
    "write a file": "import tempfile; file = tempfile.TemporaryFile(buffering=0); file.write(b'a')",
}


# What more it must not do where the system has Landlock.
WALLED_OFF = {
    "read a file of the user": "open({secret!r})",
    "read a file beside a script that uses this package": "open({beside!r})",
    "list a folder": "import os; os.listdir({folder!r})",
    "remove a file": "import os; os.unlink({secret!r})",
    "make a folder": "import os; os.mkdir({secret!r} + '2')",
    "read a file of the system": "open('/etc/passwd')",
    "read its parent's environment": "import os; open(f'/proc/{{os.getppid()}}/environ')",
    "read its parent's memory": "import os; open(f'/proc/{{os.getppid()}}/mem')",
    "see its parent's files": "import os; os.listdir(f'/proc/{{os.getppid()}}/fd')",
    "start a process past Python": "import ctypes; import os; os.execv('/bin/true', ['true'])",
    "trace its parent": (
        "import ctypes, os; attach = 16\n"
        "    if ctypes.CDLL(None).ptrace(attach, os.getppid(), 0, 0): raise PermissionError"
    ),
}


@pytest.mark.skipif(not landlock.version(), reason="the system has no Landlock")
@pytest.mark.parametrize("what", WALLED_OFF)
def test_a_wall_is_around_a_parser(what: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.mkdir()
    for file in (secret := tmp_path / "id_rsa", beside := script / ".env"):
        file.write_text("s3cret")
    given = WALLED_OFF[what].format(secret=str(secret), beside=str(beside), folder=str(tmp_path))
    code = (
        "from llmbackend.files import process; process.restrict(2**30)\n"
        f"try:\n    {given}\nexcept PermissionError:\n    print('refused')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(script)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("refused\n", "")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has namespaces")
def test_without_landlock_a_parser_has_neither_network_nor_parent() -> None:
    code = (
        "import ctypes, os, socket\n"
        "from llmbackend.files import landlock, process\n"
        "listening = socket.create_server(('127.0.0.1', 0))\n"
        "address = listening.getsockname()\n"
        "process.landlock.confine = lambda paths: False\n"
        "process.restrict(2**31)\n"
        "try:\n    print(len(open(f'/proc/{os.getppid()}/environ').read()) > 0)\n"
        "except PermissionError:\n    print('refused')\n"
        "made = ctypes.CDLL(None).socket(socket.AF_INET, socket.SOCK_STREAM, 0)\n"
        "raw = address[1].to_bytes(2, 'big') + bytes([127, 0, 0, 1]) + bytes(8)\n"
        "family = socket.AF_INET.to_bytes(2, 'little')\n"
        "print(ctypes.CDLL(None).connect(made, family + raw, 16) == 0)\n"
    )
    may = subprocess.run(["unshare", "-Un", "true"], capture_output=True, check=False).returncode == 0
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.stderr) == ("refused\nFalse\n" if may else "True\nTrue\n", "")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limits")
@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_parser_cannot(what: str) -> None:
    limited = (
        "import signal; from llmbackend.files import process; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); process.restrict(2**30); "
    )
    code = f"{limited}\ntry:\n    {FORBIDDEN[what]}\nexcept OSError as error:\n    print('refused')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("refused\n", "")


def test_a_parser_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "pypdf.py").write_text("raise ModuleNotFoundError('it is not there', name='pypdf')")
    monkeypatch.syspath_prepend(tmp_path)

    async def work() -> None:
        async with _pool() as pool:
            with pytest.raises(
                BackendError, match=r"pip install 'llmbackend\[documents\]' \(missing: pypdf\)"
            ):
                await pool.parse("a.pdf", files.pdf(FACT))
            assert await pool.parse(*TEXT) == READ

    _run(work)


def test_importing_a_reader_takes_none_of_a_files_time() -> None:
    async def work() -> None:
        async with _pool(seconds=2) as pool:
            assert await pool.parse("a.late", b"came late") == [("a.late", Parsed("came late", "markdown"))]

    import late_reader  # noqa: F401

    try:
        _run(work)
    finally:
        del READERS._parts[".late"], READERS._by[".late"]


def test_a_reader_that_is_never_imported_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parsing_pool, "START_SECONDS", 0.01)

    async def work() -> None:
        async with _pool() as pool:
            with pytest.raises(Unreadable, match=r"importing its parser took more than 0\.01 s"):
                await pool.parse(*TEXT)

    _run(work)
