"""A data directory belongs to one process at a time, however that process ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbackend import Conflict, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import python, serving, start

OPEN = """
import sys
from pathlib import Path
from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

with LLMBackendClient(transport=LocalTransport(Settings(data_dir=Path(sys.argv[1])))) as client:
    print(client.health().status)
"""


def _open(data_dir: Path) -> LLMBackendClient:
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=data_dir)))


def _open_elsewhere(data_dir: Path) -> tuple[int, str, str]:
    """The same in a process of its own: its exit code, and what it said on stdout and stderr."""
    process = python(["-c", OPEN, str(data_dir)], cwd=data_dir.parent)
    out, said = process.communicate(timeout=60)
    return process.wait(), out, said


def test_the_second_is_told_who_holds_it_and_what_to_do(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for _ in range(2):  # being refused changes nothing for the next
            with pytest.raises(Conflict) as caught:
                _open(tmp_path)
            assert caught.value.details == {"data_dir": str(tmp_path), "pid": server.process.pid}
            for part in (str(tmp_path), str(server.process.pid), "serve", "api_url", "DATA_DIR"):
                assert part in caught.value.message
        with LLMBackendClient(server.url) as client:
            assert client.health().status == "ok"
    with _open(tmp_path) as client:
        assert client.health().status == "ok"


def test_a_second_server_says_so_in_one_line(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        second = start(tmp_path, warm=True)
        _, said = second.communicate(timeout=60)
    assert second.returncode == 1
    assert said.startswith("conflict: ")
    assert str(server.process.pid) in said
    assert "Traceback" not in said


def test_a_closed_client_leaves_it_to_the_next(tmp_path: Path) -> None:
    for _ in range(3):
        with _open(tmp_path) as client:
            assert client.health().status == "ok"


def test_a_process_of_its_own_is_refused_and_let_in_after(tmp_path: Path) -> None:
    with _open(tmp_path) as client:
        assert client.health().status == "ok"
        code, _, said = _open_elsewhere(tmp_path)
        assert code == 1
        assert "Conflict: " in said
    code, out, said = _open_elsewhere(tmp_path)
    assert (code, out.strip()) == (0, "ok"), said


def test_what_a_killed_process_left_blocks_nobody(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        server.process.kill()
        server.process.wait()
        assert (tmp_path / "holder.json").exists()  # it had no time to tidy up
        with _open(tmp_path) as client:
            assert client.health().status == "ok"
