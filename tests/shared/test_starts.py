"""A PostgreSQL that lets nobody in: told in a line, without the password."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest

from llmbackend import BackendError, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

CASES = {
    "no such database": ("test", "nowhere", 'database "nowhere" does not exist'),
    "wrong password": ("locked", "postgres", "password authentication failed"),
}


@pytest.fixture
def locked(postgres: str) -> str:
    """Its host and port; the user `locked` needs a password there."""
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS locked")
        connection.execute("CREATE ROLE locked LOGIN PASSWORD 'right'")
        (rules,) = connection.execute("SHOW hba_file").fetchone() or ("",)
        before = Path(rules).read_text()
        Path(rules).write_text(f"host all locked 127.0.0.1/32 scram-sha-256\n{before}")
        connection.execute("SELECT pg_reload_conf()")
    place = urlsplit(postgres).netloc.rpartition("@")[2]
    deadline = time.monotonic() + 60
    with suppress(psycopg.OperationalError):
        while time.monotonic() < deadline:  # it rereads them in its own time: until then, it trusts
            psycopg.connect(f"postgresql://locked:wrong@{place}/postgres").close()
            time.sleep(0.05)
    return place


@pytest.mark.parametrize("what", CASES)
def test_why_a_database_cannot_be_used_is_told(what: str, locked: str, tmp_path: Path) -> None:
    user, name, told = CASES[what]
    options = Settings.model_validate(
        {"data_dir": tmp_path, "database_url": f"postgresql://{user}:s3cret@{locked}/{name}"}
    )
    with pytest.raises(BackendError, match=f"{told}.*DATABASE_URL") as caught:
        LLMBackendClient(transport=LocalTransport(options))
    assert "s3cret" not in str(caught.value)
    assert "\n" not in caught.value.message
