"""A start that cannot be: one line that names the thing and what to do, exit code 1, and nothing is left behind."""

from __future__ import annotations

import os
import re
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient, LLMBackendError
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import start


def _garbage(folder: Path) -> None:
    (folder / "state.db").write_bytes(b"garbage" * 1000)


def _truncated(folder: Path) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("CREATE TABLE a (b)")
        connection.executemany("INSERT INTO a VALUES (?)", [("x" * 1000,)] * 100)
    connection.close()
    os.truncate(folder / "state.db", 50_000)


def _emptied(folder: Path) -> None:
    (folder / "state.db").touch()
    (folder / "collections" / "one").mkdir(parents=True)


def _other_tables(folder: Path) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("CREATE TABLE jobs (a)")
    connection.close()


def _newer(folder: Path) -> None:
    with sqlite3.connect(folder / "state.db") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()


def _no_folder(folder: Path) -> None:
    folder.rmdir()
    folder.write_text("a file")


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "garbage": (_garbage, "state.db.*it is damaged.*restore it from a backup"),
    "truncated": (_truncated, "state.db.*it is damaged.*restore it from a backup"),
    "emptied": (_emptied, "state.db.*there are collections beside it.*restore it from a backup"),
    "other tables": (_other_tables, "state.db.*its table jobs has no"),
    "of a newer version": (_newer, "state.db.*a newer version made it"),
    "a file in place of the folder": (_no_folder, "DATA_DIR .* cannot be used"),
}
URLS = {
    "database_url": [
        *("foo://u:s3cret@h/d", "s3cret", "postgresql://u:s3cret@127.0.0.1:9/d"),
        *("postgresql://u:s3cret@127.0.0.1:99999/d", "postgresql://u:s3cret@127.0.0.1:9/d?strange=option"),
    ],
    "redis_url": ["foo://:s3cret@h"],
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_data_directory_is_told_and_left_as_it_is(what: str, tmp_path: Path) -> None:
    damage, told = DAMAGE[what]
    folder = tmp_path / "data"
    folder.mkdir()
    damage(folder)
    header = 100  # bytes, in which SQLite notes how it was opened
    before = {file.name: file.read_bytes()[header:] for file in folder.rglob("*.db")}
    threads = threading.active_count()
    for _ in range(2):  # the first has let go of the folder
        with pytest.raises(LLMBackendError, match=told):
            LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder)))
    assert before == {name: (folder / name).read_bytes()[header:] for name in before}
    assert threading.active_count() <= threads + 1  # that ends clients with the process


@pytest.mark.parametrize(("name", "url"), [(name, url) for name, urls in URLS.items() for url in urls])
def test_a_url_that_cannot_be_used_is_told_without_its_password(name: str, url: str, tmp_path: Path) -> None:
    options = Settings.model_validate({"data_dir": tmp_path, name: url})
    with pytest.raises(LLMBackendError) as caught:
        LLMBackendClient(transport=LocalTransport(options))
    assert "s3cret" not in str(caught.value)


def test_a_chat_model_that_is_not_there_is_told(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, chat_model=str(tmp_path / "none.gguf"))
    with pytest.raises(LLMBackendError, match=r"CHAT_MODEL .*none\.gguf'.* no such file"):
        LLMBackendClient(transport=LocalTransport(options))


def test_a_damaged_queue_and_cache_are_made_anew(tmp_path: Path) -> None:
    for name in ("queue.db", "embeddings.db"):
        (tmp_path / name).write_bytes(b"garbage" * 1000)
    shared = Settings(
        data_dir=tmp_path, database_url=f"sqlite:///{tmp_path / 'state.db'}"
    )  # which uses the queue
    with LLMBackendClient(transport=LocalTransport(shared)) as client:
        job = client.submit_job("batch_embed", {"texts": ["a text"]})
        assert client.wait_for_job(job, 60).count == 1
    assert (tmp_path / "queue.db").read_bytes().startswith(b"SQLite")


def _run(folder: Path, command: str, *inside: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [*inside, sys.executable, "-m", "llmbackend", command],
        env={**os.environ, "LLMBACKEND_DATA_DIR": str(folder), "LLMBACKEND_PORT": "0", **variables},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    return done.returncode, done.stderr


def _run_warm(folder: Path, **settings: Any) -> tuple[int | None, str]:
    process = start(folder, warm=True, **settings)
    _, said = process.communicate(timeout=90)
    return process.returncode, said


def test_a_port_in_use_and_a_strange_host_are_told_in_a_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        code, said = _run_warm(tmp_path, port=taken.getsockname()[1])
    assert (code, said.count("\n")) == (1, 1)
    assert "is in use by another process" in said
    assert "--port" in said
    code, said = _run_warm(tmp_path, host="192.0.2.1", api_key="a-key")
    assert (code, said.count("\n")) == (1, 1)
    assert "HOST '192.0.2.1' is not an address of this machine" in said


NOBODY = ["unshare", "-U", "--map-user=1000", "--map-group=1000"]
"""What makes even root's process one without privileges."""


@pytest.mark.skipif(sys.platform != "linux", reason="it takes Linux to become nobody")
@pytest.mark.parametrize(
    ("command", "mode", "port", "told"),
    [
        ("serve", 0o700, "80", "this user may not listen on port 80"),
        ("serve", 0o500, "0", "DATA_DIR .* cannot be used"),
        pytest.param("worker", 0o500, "0", "DATA_DIR .* cannot be used", marks=pytest.mark.long),
    ],
)
def test_what_a_user_may_not_do_is_told_in_a_line(
    command: str, mode: int, port: str, told: str, tmp_path: Path
) -> None:
    if os.geteuid() != 0:
        inside = []
    else:
        inside = NOBODY
        if subprocess.run([*NOBODY, "true"], check=False, capture_output=True).returncode:
            pytest.skip("root may do everything, and cannot become nobody here")
    tmp_path.chmod(mode)
    try:
        code, said = _run(
            tmp_path, command, *inside, LLMBACKEND_DATA_DIR=str(tmp_path / "data"), LLMBACKEND_PORT=port
        )
    finally:
        tmp_path.chmod(0o700)
    assert (code, said.count("\n")) == (1, 1), said
    assert re.search(told, said)


@pytest.mark.parametrize("command", ["serve", pytest.param("worker", marks=pytest.mark.long)])
def test_a_process_that_cannot_start_ends_with_a_line(command: str, tmp_path: Path) -> None:
    _garbage(tmp_path)
    code, said = _run(tmp_path, command)
    assert (code, said.count("\n")) == (1, 1), said
    assert "it is damaged" in said
