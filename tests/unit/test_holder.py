"""A data directory belongs to one process, and in it to one core that its clients share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient, TransportError
from llmbackend.holder import Holder
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

HOLD = """
import sys
from pathlib import Path
from llmbackend.holder import Holder
holder = Holder(Path(sys.argv[1]))
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
            Holder(tmp_path)
        assert caught.value.details == {"data_dir": str(tmp_path), "pid": process.pid}
        for part in (str(tmp_path), str(process.pid), "api_url", "DATA_DIR"):
            assert part in caught.value.message


def test_a_client_on_data_that_is_held_gets_the_same_conflict(tmp_path: Path) -> None:
    with _held_elsewhere(tmp_path) as process, pytest.raises(Conflict, match=str(process.pid)):
        LocalTransport(Settings(data_dir=tmp_path))


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    with _held_elsewhere(tmp_path) as process:
        process.kill()
        process.wait()
        Holder(tmp_path).release()


def test_a_released_directory_can_be_held_again(tmp_path: Path) -> None:
    for _ in range(2):
        holder = Holder(tmp_path)
        with pytest.raises(Conflict, match=str(os.getpid())):
            Holder(tmp_path)
        holder.release()
    assert not (tmp_path / "holder.json").exists()


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendError, match="DATA_DIR"):
        Holder(tmp_path / "file" / "data")
    with pytest.raises(BackendError, match="DATA_DIR"):
        Holder(tmp_path / "file")


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
    Holder(tmp_path).release()


@pytest.mark.parametrize(
    "url",
    ["garbage", "sqlite:////no/such/folder/x.db", "oracle9://user:s3cret-value@db/llm"],
    ids=["not a URL", "no such folder", "unknown kind"],
)
def test_a_database_that_cannot_be_used_is_told_by_its_setting(tmp_path: Path, url: str) -> None:
    with pytest.raises(BackendError, match="DATABASE_URL") as caught:
        LocalTransport(Settings(data_dir=tmp_path, database_url=url))
    assert "s3cret-value" not in str(caught.value.to_dict())
