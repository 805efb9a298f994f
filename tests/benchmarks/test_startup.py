"""What it costs to import the package, and to make the cheapest call."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import serving

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

RUNS = 9
CALLS = 300


def _seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def _milliseconds(call: Callable[[], object]) -> float:
    """The median of many calls, after warming up."""
    for _ in range(CALLS // 10):
        call()
    return 1000 * statistics.median(_seconds(call) for _ in range(CALLS))


def test_importing_takes_a_few_times_as_long_as_python_itself(table: Table) -> None:
    def interpreter(code: str) -> float:
        return _seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True))

    interpreter("import llmbackend")  # from now on it is in the file cache
    pairs = [(interpreter("pass"), interpreter("import llmbackend")) for _ in range(RUNS)]
    bare, with_import = (statistics.median(column) for column in zip(*pairs, strict=True))
    table(
        f"import, median of {RUNS} (s)",
        ("bare interpreter", bare),
        ("with import llmbackend", with_import),
        ("ratio", with_import / bare),
    )
    assert with_import <= 8 * bare


@pytest.fixture
def bare_url() -> Iterator[str]:
    command = [sys.executable, "-m", "tests.benchmarks.bare"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.terminate()


def test_health_is_cheap_on_both_transports(tmp_path: Path, bare_url: str, table: Table) -> None:
    options = Settings(data_dir=tmp_path / "local")
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        time.sleep(2)  # LlamaIndex is imported in the background at first
        local = _milliseconds(client.health)
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "server", warm=False) as server, requests.Session() as session:
        with LLMBackendClient(server.url) as client:
            http = _milliseconds(client.health)
        ready = _milliseconds(lambda: session.get(f"{server.url}/health/ready").json())
        bare = _milliseconds(lambda: session.get(bare_url).json())
    table(
        f"health, median of {CALLS} calls",
        ("", "ms", "of a bare request"),
        ("client, in process", local, local / bare),
        ("client, HTTP", http, http / bare),
        ("requests.Session, llmbackend", ready, ready / bare),
        ("requests.Session, bare Starlette", bare, 1.0),
    )
    assert local <= bare
    assert http <= 5 * bare
