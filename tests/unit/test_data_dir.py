"""A data directory belongs to one process, and in it to one core that its clients share."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient, TransportError
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.storage.data_dir import DataDirLock

HOLD = """
import sys
from pathlib import Path
from llmbackend.storage.data_dir import DataDirLock
lock = DataDirLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def _held_elsewhere(folder: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_the_second_process_is_told_who_holds_the_data_and_what_to_do(tmp_path: Path) -> None:
    with _held_elsewhere(tmp_path) as process:
        with pytest.raises(Conflict) as caught:
            DataDirLock(tmp_path)
        assert caught.value.details == {"data_dir": str(tmp_path), "pid": process.pid}
        for part in (str(tmp_path), str(process.pid), "api_url", "DATA_DIR"):
            assert part in caught.value.message


def test_a_client_that_cannot_be_opened_leaves_nothing(tmp_path: Path) -> None:
    before = {thread for thread in threading.enumerate() if thread.name == "llmbackend-writer"}
    with pytest.raises(BackendError, match="REDIS_URL"):
        LocalTransport(Settings(data_dir=tmp_path, redis_url="nonsense"))
    assert {thread for thread in threading.enumerate() if thread.name == "llmbackend-writer"} <= before
    LocalTransport(Settings(data_dir=tmp_path)).close()


def test_a_client_on_data_that_is_held_gets_the_same_conflict(tmp_path: Path) -> None:
    with _held_elsewhere(tmp_path) as process, pytest.raises(Conflict, match=str(process.pid)):
        LocalTransport(Settings(data_dir=tmp_path))


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with _held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        DataDirLock(tmp_path).release()


def test_a_released_directory_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        lock = DataDirLock(tmp_path)
        with pytest.raises(Conflict, match=str(os.getpid())):
            DataDirLock(tmp_path)
        lock.release()
    assert not (tmp_path / "holder.json").exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="DATA_DIR"):
        DataDirLock(tmp_path / "file" / "data")
    with pytest.raises(BackendError, match="DATA_DIR"):
        DataDirLock(tmp_path / "file")


def test_clients_of_one_process_share_the_core(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path)
    first, second = LocalTransport(options), LocalTransport(Settings(data_dir=tmp_path))
    assert first._core is second._core
    with LLMBackendClient(transport=first) as client:
        client.create_collection("shared")
    with LLMBackendClient(transport=second) as client:
        assert [one.name for one in client.list_collections()] == ["shared"]
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        assert [one.name for one in client.list_collections()] == ["shared"], "opened anew"


def test_other_settings_for_the_same_data_are_a_conflict(tmp_path: Path) -> None:
    first = LocalTransport(Settings(data_dir=tmp_path))
    with pytest.raises(Conflict, match="other settings"):
        LocalTransport(Settings(data_dir=tmp_path, workers=7))
    first.close()
    LocalTransport(Settings(data_dir=tmp_path, workers=7)).close()


def test_a_closed_client_says_so_and_closes_twice(tmp_path: Path) -> None:
    client = LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path)))
    client.close()
    client.close()
    with pytest.raises(TransportError, match="closed"):
        client.health()


def test_a_core_that_cannot_start_lets_go_of_the_data(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="EMBEDDING_MODEL"):
        LocalTransport(Settings(data_dir=tmp_path, embedding_model="no-server-for-it"))
    DataDirLock(tmp_path).release()


def test_a_database_that_cannot_be_used_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "state.db").write_text("This is no database, and longer than its header would be." * 20)
    with pytest.raises(BackendError, match=r"state\.db .* move it away"):
        LocalTransport(Settings(data_dir=tmp_path))
    with pytest.raises(BackendError, match=r"nowhere.* may read and write it"):
        LocalTransport(Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/nowhere/state.db"))
    monkeypatch.setattr("llmbackend.storage.database.BUSY", 100)
    with closing(sqlite3.connect(tmp_path / "busy.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(BackendError, match=r"busy\.db .* another process .* try again"):
            LocalTransport(Settings(data_dir=tmp_path, database_url=f"sqlite:///{tmp_path}/busy.db"))


def test_a_change_of_the_working_directory_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=Path("data")))) as client:
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        client.rag_ingest("a text", "town")
    assert list((tmp_path / "other").iterdir()) == []
    assert (tmp_path / "data" / "state.db").exists()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is for Unix")
def test_a_client_in_a_forked_child_says_so_rather_than_hang(tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from llmbackend import LLMBackendClient, TransportError\n"
        "client = LLMBackendClient()\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    try:\n"
        "        client.health()\n"
        "    except TransportError as error:\n"
        "        os._exit(0 if 'forked' in error.message else 1)\n"
        "    os._exit(2)\n"
        "status = os.waitpid(pid, 0)[1]\n"
        "assert client.health().status == 'ok'\n"
        "sys.exit(os.waitstatus_to_exitcode(status))\n"
    )
    environment = {**os.environ, "LLMBACKEND_DATA_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)
    assert done.returncode == 0


def test_threads_may_use_a_client_after_the_main_thread_has_ended(tmp_path: Path) -> None:
    code = (
        "import threading, time\n"
        "from llmbackend import LLMBackendClient\n"
        "client = LLMBackendClient()\n"
        "def late():\n"
        "    time.sleep(0.5)\n"
        "    print(len(client.embed_single('a text')))\n"
        "    client.close()\n"
        "threading.Thread(target=late).start()\n"
    )
    environment = {**os.environ, "LLMBACKEND_DATA_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, timeout=60, check=False, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "256\n", "")
