"""Nothing leaves this machine unless a setting names where to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

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
    environment = {
        **os.environ,
        "OPENAI_API_KEY": "sk-somebody",
        "HOME": str(
            tmp_path
        ),  # where the user's data folder is; tests.conftest takes LLMBACKEND_DATA_DIR away
        "XDG_DATA_HOME": str(tmp_path / "data"),
        "LLMBACKEND_MODELS_DIR": str(models_dir),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, "-c", SESSION],
        env=environment,
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert list(tmp_path.rglob("state.db")), "it kept its data here"
