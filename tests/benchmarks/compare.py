"""What calls cost here beside another checkout, in one sitting: `make compare WITH=../other`, or `ONLY="search server"`.

Each checkout measures in a process of its own, by its own .venv. They take turns, a few calls at a time, so that what
else the machine does slows both alike. Shown are the fastest call and the processor's time of a call (the median of the
turns), there and here, each with the ratio: above 1, this checkout is slower.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

Calls = dict[str, Callable[[], object]]

HERE = Path(__file__).resolve()
ROUNDS, BLOCK = int(os.environ.get("ROUNDS", 20)), 0.06  # turns of each, and about how many seconds one takes
QUERY = "badi kanda lera mo fis"
CHAT = {"model": "fake", "messages": [{"role": "user", "content": "Hi"}]}
KEY = "sk-bench"


def _client(folder: Path, **settings: Any) -> Any:
    from llmbackend import LLMBackendClient
    from llmbackend.local import LocalTransport
    from llmbackend.settings import Settings

    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **settings)))


@contextmanager
def _search(folder: Path, process: psutil.Process) -> Iterator[tuple[Calls, psutil.Process]]:
    from corpus import passages

    documents = [
        {"id": str(number), "text": text, "metadata": {"shelf": number % 10}}
        for number, text in enumerate(passages(4000))
    ]
    queries = itertools.cycle([" ".join(text.split()[:6]) for text in passages(20_000, seed=3)])
    numbers = itertools.count()
    with _client(folder) as client:
        client.rag_ingest(documents, "c")
        yield (
            {
                "search, new words": lambda: client.rag_search(next(queries), "c"),
                "search, the same again": lambda: client.rag_search(QUERY, "c"),
                "search, dense": lambda: client.rag_search(QUERY, "c", mode="dense"),
                "search, sparse": lambda: client.rag_search(QUERY, "c", mode="sparse"),
                "search, a filter": lambda: client.rag_search(QUERY, "c", filters={"shelf": 3}),
                "search, a filter for nothing": lambda: client.rag_search(QUERY, "c", filters={"box": 3}),
                "embed, a new text": lambda: client.embed_single(f"text number {next(numbers)}"),
                "embed, the same again": lambda: client.embed_single("some text"),
                "health": client.health,
                "get_collection": lambda: client.get_collection("c"),
            },
            process,
        )


@contextmanager
def _ingest(folder: Path, process: psutil.Process) -> Iterator[tuple[Calls, psutil.Process]]:
    from corpus import passages

    texts = passages(500)
    numbers = itertools.count()

    def fresh() -> None:
        number = next(numbers)
        client.rag_ingest([f"{number} {text}" for text in texts], "fresh")

    with _client(folder, embedding_cache_mb=0) as client:
        client.rag_ingest(texts, "same")
        yield (
            {
                "ingest, 500 passages": fresh,
                "ingest, the same again": lambda: client.rag_ingest(texts, "same"),
                "ingest, one passage": lambda: client.rag_ingest([f"passage {next(numbers)}"], "one"),
            },
            process,
        )


@contextmanager
def _jobs(folder: Path, process: psutil.Process) -> Iterator[tuple[Calls, psutil.Process]]:
    with _client(folder) as client:

        def small(count: int) -> None:
            ids = [client.submit_job("batch_embed", {"texts": ["some text"]}) for _ in range(count)]
            for job in ids:
                client.wait_for_job(job, 60)

        first = client.submit_job("batch_embed", {"texts": ["some text"]})
        client.wait_for_job(first, 60)
        yield (
            {
                "20 jobs, to the last one's end": lambda: small(20),
                "get_job_status": lambda: client.get_job_status(first),
            },
            process,
        )


@contextmanager
def _chat(folder: Path, process: psutil.Process) -> Iterator[tuple[Calls, psutil.Process]]:
    with _upstream() as url, _client(folder, openai_base_url=url, chat_model="fake") as client:
        yield (
            {
                "chat in process": lambda: client.chat("Hi"),
                "chat in process, streamed": lambda: list(client.chat("Hi", stream=True)),
            },
            process,
        )


@contextmanager
def _server(folder: Path, process: psutil.Process) -> Iterator[tuple[Calls, psutil.Process]]:
    import requests

    from llmbackend import LLMBackendClient

    with ExitStack() as stack:
        upstream = stack.enter_context(_upstream())
        url, server = stack.enter_context(_serving(folder, upstream))
        client = stack.enter_context(LLMBackendClient(url, KEY))
        session = stack.enter_context(requests.Session())
        session.headers["Authorization"] = f"Bearer {KEY}"
        client.rag_ingest([f"text number {number} about things" for number in range(500)], "c")
        many = _Many(url + "/v1/chat/completions")
        stack.callback(many.close)
        yield (
            {
                "/health/live": lambda: session.get(url + "/health/live").json(),
                "/health/ready": lambda: session.get(url + "/health/ready").json(),
                "rag_search": lambda: client.rag_search("things about text", "c"),
                "embed, the same again": lambda: client.embed_single("some text"),
                "chat": lambda: session.post(many.url, json=CHAT).json(),
                "256 chats, 64 at once": lambda: many(256, CHAT),
                "64 streams at once": lambda: many(64, {**CHAT, "stream": True}),
            },
            server,
        )


class _Many:
    """Posts side by side, by a client that costs little."""

    def __init__(self, url: str) -> None:
        import aiohttp

        self.url = url
        self._loop = asyncio.new_event_loop()

        async def session() -> aiohttp.ClientSession:
            headers = {"Authorization": f"Bearer {KEY}"}
            return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=64), headers=headers)

        self._session = self._loop.run_until_complete(session())

    def __call__(self, count: int, body: dict[str, Any]) -> None:
        async def one() -> None:
            async with self._session.post(self.url, json=body) as reply:
                assert reply.status == 200, await reply.text()
                await reply.read()

        async def all_of_them() -> None:
            await asyncio.gather(*(one() for _ in range(count)))

        self._loop.run_until_complete(all_of_them())

    def close(self) -> None:
        self._loop.run_until_complete(self._session.close())
        self._loop.close()


@contextmanager
def _upstream() -> Iterator[str]:
    """The model server that costs nothing."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, str(HERE.with_name("gateway.py")), "upstream", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(("127.0.0.1", port)).close()
                break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}"
        process.terminate()


@contextmanager
def _serving(folder: Path, upstream: str) -> Iterator[tuple[str, psutil.Process]]:
    settings = {
        "data_dir": folder,
        "port": 0,
        "api_key": KEY,
        "openai_base_url": upstream,
        "chat_model": "fake",
        "log_level": "warning",
    }
    variables = {f"LLMBACKEND_{name.upper()}": str(value) for name, value in settings.items()}
    code = """
from importlib import import_module
from importlib.util import find_spec
from llmbackend import settings
name = "llmbackend.server.running"
running = import_module(name if find_spec(name) else "llmbackend.server.app")  # of earlier versions
running.run(settings.load(), lambda url: print(url, flush=True))
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env={**os.environ, **variables}, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip(), psutil.Process(process.pid)
        process.terminate()


GROUPS = {"search": _search, "ingest": _ingest, "jobs": _jobs, "chat": _chat, "server": _server}


def _used(process: psutil.Process) -> float:
    """Seconds that a process has used of the processor: exact on Linux, where psutil counts hundredths."""
    if sys.platform != "linux":
        return sum(process.cpu_times()[:2])
    return time.clock_gettime(~process.pid << 3 | 2)  # clock_getcpuclockid(3)


def _settle(process: psutil.Process) -> None:
    """Wait until what a process does by itself, some seconds after its start, is done."""
    time.sleep(12)
    for _ in range(60):
        used = _used(process)
        time.sleep(1)
        if _used(process) - used < 0.05:
            return


def _measure(group: str) -> None:
    """In one of the checkouts: tell what can be called, then call what is asked for, so often, and tell the times."""
    with TemporaryDirectory() as folder, GROUPS[group](Path(folder), psutil.Process()) as (calls, process):
        _settle(process)
        print(json.dumps(list(calls)), flush=True)
        for line in sys.stdin:
            name, times = line.rsplit(" ", 1)
            used = _used(process)
            took = []
            for _ in range(int(times)):
                began = time.perf_counter()
                calls[name]()
                took.append(time.perf_counter() - began)
            print(json.dumps([min(took), _used(process) - used]), flush=True)


class _Side:
    """A checkout that measures."""

    def __init__(self, checkout: Path, group: str) -> None:
        self._process = subprocess.Popen(
            [str(checkout / ".venv/bin/python"), str(HERE), "--measure", group],
            cwd=checkout,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.names = self._read()

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self._process.args} ended early")
        return json.loads(line)

    def __call__(self, name: str, times: int) -> tuple[float, float]:
        """Seconds of the fastest call, and of the processor for all of them."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{name} {times}\n")
        self._process.stdin.flush()
        fastest, used = self._read()
        return fastest, used

    def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)


def _compare(there: Path, here: Path, groups: list[str]) -> None:
    for group in groups:
        sides = [_Side(there, group), _Side(here, group)]
        print(
            f"\n{group:32}{'ms there':>10}{'here':>10}{'ratio':>7}{'cpu ms there':>15}{'here':>10}{'ratio':>7}"
        )
        for name in sides[0].names:
            times = max(1, min(200, int(BLOCK / max(side(name, 3)[0] for side in sides))))
            fastest, turns = [float("inf")] * 2, ([], [])
            for turn in range(ROUNDS):
                for number in (0, 1) if turn % 2 else (1, 0):
                    one, processor = sides[number](name, times)
                    fastest[number] = min(fastest[number], one)
                    turns[number].append(processor / times)
            cells = ""
            for before, after in (fastest, [statistics.median(one) for one in turns]):
                ratio = f"{after / before:7.2f}" if before else f"{'-':>7}"
                cells += f"{1000 * before:10.3f}{1000 * after:10.3f}{ratio}     "
            print(f"{name:32}{cells}", flush=True)
        for side in sides:
            side.end()


if __name__ == "__main__":
    if sys.argv[1] == "--measure":
        _measure(sys.argv[2])
    else:
        _compare(Path(sys.argv[1]).resolve(), HERE.parents[2], sys.argv[2:] or list(GROUPS))
