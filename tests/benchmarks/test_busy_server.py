"""Sixteen callers at once on an embedding server with 128 permits, and somebody with questions."""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.benchmarks.bounded_server import by_hand

pytestmark = pytest.mark.benchmark

Table = Callable[..., None]

CALLERS = 16
SECONDS = 10.0
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("a_text", [0.0005, 0.003], ids=["2,000 texts/s", "330 texts/s"])
def test_callers_share_a_bounded_server(tmp_path: Path, table: Table, a_text: float) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.benchmarks.bounded_server", str(port), str(a_text)]
    url = f"http://127.0.0.1:{port}"
    settings = Settings(data_dir=tmp_path, tei_url=url, embedding_cache_mb=0)
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            _reached(url)
            texts = [f"Document {number} tells of item {number * 7919 % 997}." for number in range(512)]
            alone = _rate(url, lambda: asyncio.run(by_hand(url, texts, SECONDS)))
            with LLMBackendClient(transport=LocalTransport(settings)) as client:
                quiet = _questions(client, SECONDS / 2)
                rate = _rate(url, lambda: _write(client, texts))
                with ThreadPoolExecutor(1) as thread:
                    writing = thread.submit(_write, client, texts)
                    busy = _questions(client, SECONDS - 1)
                    writing.result()
            refused = _counts(url)["refused"]
        finally:
            process.terminate()
    assert refused == 0
    table(
        f"{CALLERS} callers on a server of {1 / a_text:,.0f} texts a second at most",
        ["", "texts/s", "of by hand", "a question p50 ms", "p99 ms", "of quiet p99"],
        ["by hand", f"{alone:,.0f}", "", f"{quiet[0]:.1f}", f"{quiet[1]:.1f}", ""],
        [
            "llmbackend",
            f"{rate:,.0f}",
            f"{rate / alone:.2f}",
            f"{busy[0]:.1f}",
            f"{busy[1]:.1f}",
            f"{busy[1] / quiet[1]:.1f}",
        ],
    )


def _write(client: LLMBackendClient, texts: list[str]) -> None:
    """CALLERS embed these texts again and again, for SECONDS."""
    until = time.monotonic() + SECONDS

    def write() -> None:
        while time.monotonic() < until:
            client.embed(texts)

    with ThreadPoolExecutor(CALLERS) as threads:
        for done in [threads.submit(write) for _ in range(CALLERS)]:
            done.result()


def _rate(url: str, work: Callable[[], None]) -> float:
    """Texts a second that the server finishes in the midst of this work of SECONDS."""
    with ThreadPoolExecutor(1) as thread:
        working = thread.submit(work)
        time.sleep(1)
        before, began = _counts(url)["done"], time.monotonic()
        time.sleep(SECONDS - 2)
        done, took = _counts(url)["done"] - before, time.monotonic() - began
        working.result()
    return done / took


def _reached(url: str) -> None:
    for _ in range(300):
        try:
            requests.get(f"{url}/info", timeout=5)
            return
        except requests.ConnectionError:
            time.sleep(0.1)


def _counts(url: str) -> dict[str, int]:
    counts: dict[str, int] = requests.get(f"{url}/counts", timeout=30).json()
    return counts


def _questions(client: LLMBackendClient, seconds: float) -> tuple[float, float]:
    """Milliseconds of a question, the median and p99."""
    end, times, number = time.monotonic() + seconds, list[float](), 0
    while time.monotonic() < end:
        number += 1
        began = time.perf_counter()
        client.embed([f"question {number} {began}"])
        times.append(1000 * (time.perf_counter() - began))
        time.sleep(0.02)
    return statistics.median(times), statistics.quantiles(times, n=100)[98]
