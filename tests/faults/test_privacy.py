"""What the server knows stays in its process: another of the same user finds no key in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import server
from tests.server import KEY

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="of Linux's /proc")

# As a user without privileges, who is the same inside and outside: root may look into everything.
PLAIN = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
READ = "print(open('/proc/{}/{}', 'rb').read({}).count({!r}))"


def _read(pid: int, name: str) -> subprocess.CompletedProcess[str]:
    code = READ.format(pid, name, 10_000, KEY.encode())
    enter = ["nsenter", "-U", "-t", str(pid), "--preserve-credentials"] if _plain() else []
    command = [*enter, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def _plain() -> list[str]:
    """What makes a process of such a user; where that is forbidden, these tests are not to be run by root."""
    able = shutil.which("unshare") and subprocess.run([*PLAIN, "true"], check=False).returncode == 0
    return PLAIN if able else []


@pytest.mark.parametrize(
    ("command", "ready"),
    [
        ("serve", " at http"),
        pytest.param("worker", " works on jobs", marks=pytest.mark.long),
    ],
)
def test_the_environment_is_not_to_be_read(
    command: str, ready: str, tmp_path: Path, models_dir: Path
) -> None:
    process = server.start(tmp_path, command, inside=_plain(), api_key=KEY, models_dir=models_dir)
    try:
        server.announced(process, ready)
        for name in ("environ", "maps"):
            tried = _read(process.pid, name)
            assert (tried.returncode, tried.stdout) == (1, "")
            assert "PermissionError" in tried.stderr
    finally:
        process.terminate()
        assert process.wait(timeout=30) == 0


def test_what_an_ordinary_process_has_can_be_read() -> None:
    """Or else the other test would not tell anything."""
    code = "import sys; print('ready', file=sys.stderr, flush=True); sys.stdin.read()"
    command = [*_plain(), sys.executable, "-c", code]
    with subprocess.Popen(
        command, env={"KEY": KEY}, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        assert _read(process.pid, "environ").stdout == "1\n"
        assert process.stdin is not None
        process.stdin.close()
