"""Nothing leaves this machine unless a setting names where to."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from llmbackend import LLMBackendClient
from tests.server import python, serving

SESSION = """
import sys
from tests import conftest  # refuses every connection beyond loopback
from llmbackend import LLMBackendClient
with LLMBackendClient() as client:
    client.rag_ingest("Vacation is 28 days a year.", "hr")
    assert "28" in client.rag_query("How long is vacation?", "hr")
    client.embed_single("a text")
    client.chat("Hello", max_tokens=5)
    client.analyze_document("The delivery was late, and nobody told us why.")
"""


def test_a_connection_beyond_this_machine_is_refused_in_tests() -> None:
    with pytest.raises(AssertionError, match=r"192\.0\.2\.1"):
        socket.create_connection(("192.0.2.1", 80), timeout=1)
    with pytest.raises(AssertionError, match=r"api\.openai\.com"):
        socket.getaddrinfo("api.openai.com", 443)


def test_a_whole_session_connects_to_nobody_though_an_openai_key_is_set(
    tmp_path: Path, models_dir: Path
) -> None:
    variables = {
        "OPENAI_API_KEY": "sk-somebody",
        "HOME": str(
            tmp_path
        ),  # where the user's data folder is: tests.conftest takes LLMBACKEND_DATA_DIR away
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "LLMBACKEND_MODELS_DIR": str(models_dir),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    process = python(["-c", SESSION], cwd=tmp_path, **variables)
    _, said = process.communicate(timeout=120)
    assert (process.returncode, said) == (0, "")
    assert list(tmp_path.rglob("state.db")), "it kept its data here"


WATCHED = """
import ipaddress, os, sys

def noted(event, args):
    if event == "socket.getaddrinfo" and args[0] not in ("localhost", "127.0.0.1", "::1", "", None):
        note(args[0])
    if event == "socket.connect" and isinstance(args[1], tuple):
        try:
            near = ipaddress.ip_address(args[1][0]).is_loopback
        except ValueError:
            near = args[1][0] == "localhost"
        if not near:
            note(args[1][0])

def note(host):
    with open(os.environ["CONNECTIONS"], "a") as file:
        print(host, file=file)

if "CONNECTIONS" in os.environ:
    note("watching")
    sys.addaudithook(noted)
"""
"""Every process of Python that has it in its path imports it when it starts."""


def test_a_server_connects_to_nobody(
    tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "seen"
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(WATCHED)
    monkeypatch.setenv("CONNECTIONS", str(seen))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-somebody")
    data = tmp_path / "data"
    with (
        serving(data, warm=False, plugin=tmp_path / "path", models_dir=models_dir) as server,
        LLMBackendClient(server.url) as client,
    ):
        client.rag_ingest("Vacation is 28 days a year.", "hr")
        assert "28" in client.rag_query("How long is vacation?", "hr")
        file = ("a.html", b"<p>Read it, and <img src='http://example.com/a.png'> see.</p>")
        assert client.rag_ingest_files([file], "hr").failed == []
        client.chat("Hello", max_tokens=5)
        client.analyze_document("The delivery was late, and nobody told us why.")
        client.wait_for_job(client.submit_job("batch_embed", {"texts": ["a"]}), 60)
        assert client.doctor()
    assert set(seen.read_text().split()) == {"watching"}
