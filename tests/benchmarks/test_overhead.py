"""What we add to a chat call: the server, beside a bare forwarder and, with --litellm EXECUTABLE, LiteLLM's proxy;
and the client in process, beside the openai client."""

from __future__ import annotations

import asyncio
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import aiohttp
import openai
import pytest
import requests

from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.benchmarks.gateway import CHAT, PAUSE, PIECES
from tests.server import serving

pytestmark = pytest.mark.benchmark

ROUNDS, STREAMS, REQUESTS, CONCURRENCY = 7, 10, 640, 64
CALLS = 300
MESSAGE = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
HEADERS = {"Authorization": "Bearer sk-bench"}
ROOT = Path(__file__).parents[2]


@contextmanager
def _process(*command: str, port: int, **environment: str) -> Iterator[str]:
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(
        command,
        env={**os.environ, **environment},
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    if requests.post(url + CHAT, json=MESSAGE, headers=HEADERS, timeout=5).ok:
                        break
                except requests.ConnectionError:
                    pass
                assert time.monotonic() < deadline, f"{command[0]} did not start"
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _python(*arguments: str, port: int) -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.benchmarks.gateway", arguments[0], str(port), *arguments[1:])


async def _first_piece(session: aiohttp.ClientSession, url: str) -> tuple[float, float]:
    """Seconds to the first piece, and to the last."""
    began = time.perf_counter()
    async with session.post(url + CHAT, json={**MESSAGE, "stream": True}) as reply:
        await reply.content.readany()
        first = time.perf_counter() - began
        async for _ in reply.content.iter_any():
            pass
    return first, time.perf_counter() - began


async def _rate(session: aiohttp.ClientSession, url: str, count: int) -> float:
    """Requests per second, CONCURRENCY at a time."""
    turns = asyncio.Semaphore(CONCURRENCY)

    async def one() -> None:
        async with turns, session.post(url + CHAT, json=MESSAGE) as reply:
            assert reply.status == 200
            await reply.read()

    began = time.perf_counter()
    await asyncio.gather(*(one() for _ in range(count)))
    return count / (time.perf_counter() - began)


async def _measure(urls: dict[str, str]) -> dict[str, tuple[float, float, float]]:
    """By name: milliseconds to the first and the last piece, requests per second; medians of interleaved rounds."""
    firsts: dict[str, list[float]] = {name: [] for name in urls}
    lasts: dict[str, list[float]] = {name: [] for name in urls}
    rates: dict[str, list[float]] = {name: [] for name in urls}
    connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=2)
    async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
        for lap in range(ROUNDS + 1):  # the first is a warm-up
            for name, url in urls.items():
                times = [await _first_piece(session, url) for _ in range(STREAMS)]
                rate = await _rate(session, url, REQUESTS // 8 if name == "LiteLLM" else REQUESTS)
                if lap:
                    firsts[name] += [first * 1000 for first, _ in times]
                    lasts[name] += [last * 1000 for _, last in times]
                    rates[name].append(rate)
    return {
        name: (
            statistics.median(firsts[name]),
            statistics.median(lasts[name]),
            statistics.median(rates[name]),
        )
        for name in urls
    }


def test_chat_passes_through_at_little_cost(
    tmp_path: Path, request: pytest.FixtureRequest, table: Callable[..., None]
) -> None:
    litellm: Path | None = request.config.getoption("--litellm", default=None)
    with ExitStack() as stack:
        port = _free_port()
        direct = stack.enter_context(_process(*_python("upstream", port=port), port=port))
        port = _free_port()
        bare = stack.enter_context(_process(*_python("forwarder", direct, port=port), port=port))
        server = stack.enter_context(
            serving(tmp_path, warm=False, openai_base_url=direct, chat_model="fake", api_key="sk-bench")
        )
        urls = {"upstream": direct, "bare forwarder": bare, "llmbackend": server.url}
        if litellm is not None:
            port = _free_port()
            config = tmp_path / "litellm.yaml"
            config.write_text(
                "model_list:\n"
                f'  - {{model_name: fake, litellm_params: {{model: hosted_vllm/fake, api_base: "{direct}/v1", api_key: x}}}}\n'
                "litellm_settings: {telemetry: false}\n"
                "general_settings: {master_key: sk-bench}\n"
            )
            command = (str(litellm), "--config", str(config), "--host", "127.0.0.1", "--port", str(port))
            urls["LiteLLM"] = stack.enter_context(
                _process(*command, port=port, LITELLM_LOCAL_MODEL_COST_MAP="True", LITELLM_TELEMETRY="False")
            )
        figures = asyncio.run(_measure(urls))
    base = figures["upstream"][0]
    table(
        f"chat through a gateway, medians of {ROUNDS} interleaved rounds, {CONCURRENCY} at once",
        ("", "first piece ms", "added ms", "last piece ms", "requests/s"),
        *((name, first, first - base, last, rate) for name, (first, last, rate) in figures.items()),
    )
    ours, forwarder = figures["llmbackend"], figures["bare forwarder"]
    assert ours[2] >= 0.5 * forwarder[2]
    # The pieces come PAUSE apart: had any been held back, the last would be late as well.
    assert ours[1] - figures["upstream"][1] < PIECES * PAUSE * 1000 / 2
    if "LiteLLM" in figures:
        assert ours[0] - base <= (figures["LiteLLM"][0] - base) / 3
        assert ours[2] >= 10 * figures["LiteLLM"][2]


def test_a_call_in_process_costs_little_more_than_the_openai_client(
    tmp_path: Path, table: Callable[..., None]
) -> None:
    port = _free_port()
    with (
        _process(*_python("upstream", port=port), port=port) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="sk-bench") as bare,
        LLMBackendClient(
            transport=LocalTransport(Settings(data_dir=tmp_path, openai_base_url=url, chat_model="fake"))
        ) as client,
    ):
        calls: dict[str, Callable[[], object]] = {
            "openai client": lambda: bare.chat.completions.create(
                model="fake", messages=[{"role": "user", "content": "Hi"}]
            ),
            "llmbackend": lambda: client.chat("Hi"),
        }
        times: dict[str, list[float]] = {name: [] for name in calls}
        for lap in range(CALLS):
            for name, call in calls.items():
                began = time.perf_counter()
                call()
                if lap >= CALLS // 10:  # the first are a warm-up
                    times[name].append((time.perf_counter() - began) * 1000)
    medians = {name: statistics.median(found) for name, found in times.items()}
    table(
        f"chat in process, medians of {len(times['llmbackend'])} interleaved calls",
        ("", "ms"),
        *medians.items(),
        ("ratio", medians["llmbackend"] / medians["openai client"]),
    )
    assert medians["llmbackend"] <= 1.5 * medians["openai client"]
