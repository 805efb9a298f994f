"""Who used how much: to the token what the model's servers count themselves, whatever becomes of the calls."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import random
import signal
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from llmbackend import AsyncLLMBackendClient, BackendError, InvalidRequest, LLMBackendClient, LLMBackendError
from llmbackend.async_local import AsyncLocalTransport
from llmbackend.cli.usage import usage as show_usage
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY, serving
from tests.upstream.counting import SLOW, Counting, counting

TOKENS = ("prompt_tokens", "completion_tokens", "embedded_tokens")
KINDS = (
    "chat",
    "stream",
    "left",
    "gone",
    "fail",
    "busy",
    "fallback",
    "lost",
    "embed",
    "rerank",
    "query",
    "rag",
    "respond",
    "agent",
    "job",
)


@pytest.fixture
def servers() -> Iterator[list[Counting]]:
    with counting("first", refuses="elsewhere") as first, counting("second") as second:
        yield [first, second]


def _options(servers: list[Counting]) -> dict[str, Any]:
    first, second = servers
    return {
        "vllm_url": first.url,
        "openai_base_url": second.url,
        "chat_model": "m",
        "chat_cool_down": 0,
        "embedding_model": "m",
        "embedding_cache_mb": 0,
        "rerank_url": second.url,
        "upstream_timeout": 20,
        "hang_up_seconds": 20,
    }


@pytest.fixture(params=["local", "http"])
def client(
    request: pytest.FixtureRequest, servers: list[Counting], tmp_path: Path
) -> Iterator[LLMBackendClient]:
    options = _options(servers)
    if request.param == "local":
        with LLMBackendClient(
            transport=LocalTransport(Settings.model_validate({"data_dir": tmp_path, **options}))
        ) as client:
            yield client
    else:
        with (
            serving(tmp_path, api_key=KEY, **options) as server,
            LLMBackendClient(server.url, KEY) as client,
        ):
            yield client


def _one(client: LLMBackendClient, number: int) -> None:
    """A call of one kind or another; which fails where it has to."""
    kind = KINDS[number % len(KINDS)]
    text = f"call {number} " + "word " * (number % 17) + f"write {number % 23 + 1}"
    if kind == "chat":
        client.chat(text)
    elif kind in ("fail", "busy"):  # once, and is asked again or elsewhere
        client.chat(f"{text} {kind}", stream=False)
    elif kind == "fallback":
        "".join(client.chat(f"{text} elsewhere", stream=True))
    elif kind == "lost":
        with pytest.raises(InvalidRequest):
            client.chat(text, temperature=-1)
    elif kind == "stream":
        "".join(client.chat(text, stream=True))
    elif kind == "left":
        with client.chat(f"{text} hang", stream=True) as stream:
            for _ in range(number % 23 + 1):
                next(stream)
    elif kind == "gone":
        _give_up(client, f"{text} slow")
    elif kind == "embed":
        client.embed([f"{text} {part}" for part in range(number % 5 + 1)])
    elif kind == "rerank":
        client.rerank("which", [text, f"{text} more"])
    elif kind == "query":
        client.rag_query(f"What is {number}?", "docs")
    elif kind == "rag":
        client.chat(f"What is {number}?", model="rag/docs")
    elif kind == "respond":
        _respond(client, text, stream=bool(number % 2))
    elif kind == "agent":
        client.run_agent(f"What is {number}?", collections=["docs"])
    else:
        prompts = [text, f"{text} again", text]  # of which two are one
        client.wait_for_job(client.submit_job("batch_chat", {"prompts": prompts}), 60)


def _respond(client: LLMBackendClient, text: str, *, stream: bool) -> None:
    """Over HTTP on OpenAI's wire, in process as a job."""
    url = getattr(client._transport, "api_url", None)
    if url is None:
        client.wait_for_job(client.submit_job("respond", {"input": text}), 60)
        return
    asked = {"input": text, "stream": stream, "background": not stream}
    reply = requests.post(f"{url}/v1/responses", json=asked, headers={"X-API-Key": KEY}, timeout=60)
    assert reply.status_code == 200, reply.text
    if not stream:
        name, deadline = reply.json()["id"], time.monotonic() + 60
        while reply.json()["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
            reply = requests.get(f"{url}/v1/responses/{name}", headers={"X-API-Key": KEY}, timeout=60)


def _give_up(client: LLMBackendClient, text: str) -> None:
    """Ask for a reply, and hang up before it can be there."""
    url = getattr(client._transport, "api_url", None)
    asked = {"messages": [{"role": "user", "content": text}]}
    if url is None:
        call = client._transport.begin("chat", asked)  # type: ignore[attr-defined]
        time.sleep(SLOW / 2)
        call.cancel()
        return
    with suppress(requests.ReadTimeout):  # a busy machine may look for the reply only once it is there
        requests.post(
            f"{url}/v1/chat/completions", json=asked, headers={"X-API-Key": KEY}, timeout=(60, SLOW / 2)
        )


def _totals(client: LLMBackendClient) -> Counter[str]:
    found: Counter[str] = Counter()
    for row in client.usage(by="operation"):
        found.update({name: row[name] for name in (*TOKENS, "estimated_tokens", "requests")})
    return found


def _books(servers: list[Counting]) -> Counter[str]:
    return sum((server.books for server in servers), Counter())


def _compare(client: LLMBackendClient, servers: list[Counting], calls: int, at_once: int) -> None:
    client.rag_ingest(["Number 7 is the harbour.", "Number 8 is the quay."], "docs")
    order = list(range(calls))
    random.Random(7).shuffle(order)
    with ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(_one, client, number) for number in order]:
            done.result()
    _settled(client, servers)


def _settled(client: LLMBackendClient, servers: list[Counting]) -> None:
    """Once calls that were left have ended, in their own time: the same tokens in both books."""
    deadline = time.monotonic() + 60
    while True:
        found = _totals(client)
        if all(found[name] == _books(servers)[name] for name in TOKENS) or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    assert {name: found[name] for name in TOKENS} == {name: _books(servers)[name] for name in TOKENS}
    assert found["estimated_tokens"] == 0


def test_usage_is_to_the_token_what_the_servers_count(
    client: LLMBackendClient, servers: list[Counting]
) -> None:
    _compare(client, servers, 120, 8)


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_usage_of_ten_thousand_calls_is_to_the_token_what_the_servers_count(
    client: LLMBackendClient, servers: list[Counting]
) -> None:
    _compare(client, servers, 10_000, 16)


def _ended(client: LLMBackendClient) -> dict[str, int]:
    """How many calls have ended, of each operation but this one."""
    return {row.operation: row.requests for row in client.usage(by="operation") if row.operation != "usage"}


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def _hang_up(url: str, path: str, body: dict[str, Any], servers: list[Counting]) -> None:
    """Ask, and hang up once a model is at work for it."""
    before = sum(server.seen for server in servers)
    content = json.dumps(body).encode()
    place = urlsplit(url)
    head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Length: {len(content)}\r\n\r\n"
    with socket.create_connection((place.hostname, place.port), timeout=20) as connection:
        connection.sendall(head.encode() + content)
        until(lambda: sum(server.seen for server in servers) > before)


HUNG_UP: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "slow one write 9"}]}),
    "shape": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "slow one"}], "schema": {"type": "object"}},
    ),
    "stream": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "slow one write 9"}], "stream": True},
    ),
    "elsewhere": (
        "/v1/chat/completions",
        {"messages": [{"role": "user", "content": "slow elsewhere write 9"}], "stream": True},
    ),
    "embed": ("/v1/embeddings", {"input": [f"slow {number}" for number in range(40)]}),
    "rerank": ("/v1/rerank", {"query": "which", "documents": ["slow one", "another"]}),
    "query": ("/v1/rag/query", {"question": "What is slow?", "collection": "docs", "stream": True}),
}


def test_calls_whose_callers_hang_up_count_what_their_servers_count(
    servers: list[Counting], tmp_path: Path
) -> None:
    with (
        serving(tmp_path, **_options(servers)) as server,
        LLMBackendClient(server.url) as client,
    ):
        client.rag_ingest(["Number 7 is the harbour.", "Number 8 is the quay."], "docs")
        for path, body in HUNG_UP.values():
            _hang_up(server.url, path, body, servers)
        until(lambda: sum(_ended(client).values()) == len(HUNG_UP) + 1)
        _settled(client, servers)
        assert _ended(client)["chat"] == 4


@pytest.mark.parametrize("kind", ["chat", "stream", "embed", "rerank"])
def test_a_call_that_is_given_up_in_no_time_is_estimated(
    servers: list[Counting], tmp_path: Path, kind: str
) -> None:
    with (
        serving(tmp_path, **{**_options(servers), "hang_up_seconds": 0}) as server,
        LLMBackendClient(server.url) as client,
    ):
        if kind == "embed":
            client.embed(["warm"])  # or the first that it asks would be who it is
        before = sum(_totals(client)[name] for name in TOKENS)
        _hang_up(server.url, *HUNG_UP[kind], servers)
        until(lambda: _totals(client)["estimated_tokens"] > 0)
        found = _totals(client)
        assert found["estimated_tokens"] == sum(found[name] for name in TOKENS) - before


INTERRUPTED: dict[str, Callable[[Any], Any]] = {
    "chat": lambda client: client.chat("slow one write 9"),
    "shape": lambda client: client.chat("slow one", schema={"type": "object"}),
    "stream": lambda client: client.chat("slow one write 9", stream=True),
    "elsewhere": lambda client: client.chat("slow elsewhere write 9", stream=True),
    "embed": lambda client: client.embed([f"slow {number}" for number in range(40)]),
    "rerank": lambda client: client.rerank("which", ["slow one", "another"]),
    "query": lambda client: client.rag_query("What is slow?", "docs"),
    "agent": lambda client: client.run_agent("What is slow?", collections=["docs"]),
    "run": lambda client: client.run_agent("What is slow?", collections=["docs"], stream=True),
}
"""The calls of HUNG_UP, and agents."""


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT is a KeyboardInterrupt; programs that a shell runs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(
    ("kind", "later"), [*((kind, 0.0) for kind in INTERRUPTED), ("stream", 1.2 * SLOW), ("run", 1.2 * SLOW)]
)
def test_a_call_that_is_interrupted_counts_what_its_servers_count(
    client: LLMBackendClient, servers: list[Counting], kind: str, later: float
) -> None:
    client.rag_ingest(["Number 7 is the harbour.", "Number 8 is the quay."], "docs")
    client.embed(["warm"])
    before = sum(server.seen for server in servers)

    def interrupt() -> None:
        until(
            lambda: sum(server.seen for server in servers) > before, 60
        )  # an agent's first run imports much
        time.sleep(later)
        os.kill(os.getpid(), signal.SIGINT)

    def work() -> None:
        for _ in INTERRUPTED[kind](client):
            pass
        time.sleep(60)  # unless it is interrupted

    with ThreadPoolExecutor(1) as pool:
        pool.submit(interrupt)
        with pytest.raises(KeyboardInterrupt):
            work()
    _settled(client, servers)
    until(lambda: sum(_ended(client).values()) == 3)


@pytest.mark.parametrize("kind", INTERRUPTED)
@pytest.mark.anyio
@pytest.mark.parametrize("shared", [False, True], ids=["own loop", "shared core"])
async def test_a_call_of_a_cancelled_task_counts_what_its_servers_count(
    servers: list[Counting], tmp_path: Path, kind: str, shared: bool
) -> None:
    options = Settings.model_validate({"data_dir": tmp_path, **_options(servers)})
    with LLMBackendClient(transport=LocalTransport(options)) if shared else nullcontext():
        async with AsyncLLMBackendClient(transport=AsyncLocalTransport(options)) as client:
            await client.rag_ingest(["Number 7 is the harbour.", "Number 8 is the quay."], "docs")
            await client.embed(["warm"])
            before = sum(server.seen for server in servers)

            async def work() -> None:
                result = INTERRUPTED[kind](client)
                if inspect.isawaitable(result):
                    result = await result
                async for _ in result:
                    pass

            async def seen() -> None:
                while sum(server.seen for server in servers) == before:  # noqa: ASYNC110  # of another thread
                    await asyncio.sleep(0.02)

            async def agreed() -> None:
                while not await _agreed(client, servers):  # noqa: ASYNC110  # as the threads of servers say
                    await asyncio.sleep(0.1)

            working = asyncio.create_task(work())
            await asyncio.wait_for(seen(), 60)
            working.cancel()
            with pytest.raises(asyncio.CancelledError):
                await working
            await asyncio.wait_for(agreed(), 60)


async def _agreed(client: AsyncLLMBackendClient, servers: list[Counting]) -> bool:
    found: Counter[str] = Counter()
    for row in await client.usage(by="operation"):
        found.update({name: row[name] for name in (*TOKENS, "estimated_tokens")})
    assert found.pop("estimated_tokens") == 0
    return found == _books(servers)


def test_a_cancelled_job_counts_what_its_servers_count(
    client: LLMBackendClient, servers: list[Counting]
) -> None:
    before = sum(server.seen for server in servers)
    job = client.submit_job("batch_chat", {"prompts": [f"slow {number}" for number in range(500)]})
    until(lambda: sum(server.seen for server in servers) > before)
    assert client.cancel_job(job).status == "cancelled"
    _settled(client, servers)
    asked = sum(server.seen for server in servers) - before
    assert asked < 500


def test_a_client_that_is_closed_counts_what_was_under_way(servers: list[Counting], tmp_path: Path) -> None:
    options = Settings.model_validate({"data_dir": tmp_path, **_options(servers)})
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client._transport.begin("chat", {"messages": [{"role": "user", "content": "slow one write 9"}]})  # type: ignore[attr-defined]
        until(lambda: servers[0].seen > 0)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        _settled(client, servers)


def test_nothing_new_is_asked_for_a_caller_who_has_hung_up(servers: list[Counting], tmp_path: Path) -> None:
    with (
        serving(tmp_path, **_options(servers)) as server,
        LLMBackendClient(server.url) as client,
    ):
        client.embed(["warm"])
        seen = servers[0].seen + servers[1].seen
        texts = [f"slow {number}" for number in range(2000)]
        _hang_up(server.url, "/v1/embeddings", {"input": texts}, servers)
        _settled(client, servers)
        asked = servers[0].seen + servers[1].seen - seen
        assert asked <= 4, "the requests that were under way"


def test_usage_tells_requests_errors_time_and_chunks_by_what_is_asked_for(
    client: LLMBackendClient, servers: list[Counting]
) -> None:
    client.rag_ingest(["Number 7 is the harbour.", "Number 8 is the quay."], "docs")
    client.chat("Hello")
    with suppress(LLMBackendError):
        client.chat("Hello", max_tokens=-1)
    client.wait_for_job(client.submit_job("batch_chat", {"prompts": ["a", "b c"]}), 60)
    rows = {row.operation: row for row in client.usage(by="operation", since="1d")}
    assert (rows["chat"].requests, rows["chat"].errors, rows["chat"].prompt_tokens) == (2, 1, 1)
    assert rows["rag_ingest"].chunks == 2
    assert rows["rag_ingest"].embedded_tokens > 0
    assert (rows["batch_chat"].requests, rows["batch_chat"].prompt_tokens) == (1, 3)
    assert rows["chat"].milliseconds > 0
    [day] = {row.day for row in client.usage(by=["day", "model"])}
    assert day == time.strftime("%Y-%m-%d", time.gmtime())
    [row] = client.usage(by="project", since=day, until=day)
    assert set(row) == {
        "project",
        "requests",
        "errors",
        *TOKENS,
        "estimated_tokens",
        "milliseconds",
        "chunks",
    }
    assert client.usage(since="2000-01-01", until="2000-01-02") == []
    with pytest.raises(InvalidRequest, match=r"by.*project, key, model"):
        client.usage(by="colour")
    with pytest.raises(InvalidRequest, match="such as 7d"):
        client.usage(since="yesterday")


def test_what_was_used_is_there_after_a_kill_and_adds_up(servers: list[Counting], tmp_path: Path) -> None:
    for calls in (1, 2):
        with serving(tmp_path, **_options(servers)) as server:
            LLMBackendClient(server.url).chat("one two three")
            time.sleep(1.2)  # what is later than that may be lost
            server.process.kill()
            server.process.wait()
        with LLMBackendClient(
            transport=LocalTransport(Settings.model_validate({"data_dir": tmp_path, **_options(servers)}))
        ) as client:
            [row] = [row for row in client.usage(by="operation") if row.operation == "chat"]
        assert (row.requests, row.prompt_tokens) == (calls, 3 * calls)


def test_a_stream_that_a_silent_server_is_left_in_is_estimated(
    servers: list[Counting], tmp_path: Path
) -> None:
    options = {**_options(servers), "vllm_url": None, "hang_up_seconds": 0.5}
    with LLMBackendClient(
        transport=LocalTransport(Settings.model_validate({"data_dir": tmp_path, **options}))
    ) as client:
        with client.chat("please write 9 hang", stream=True) as stream:
            for _ in range(9):
                next(stream)
        deadline = time.monotonic() + 10
        while (
            not (rows := [row for row in client.usage(by="model") if row.model])
            and time.monotonic() < deadline
        ):
            time.sleep(0.05)
        [row] = rows
        assert (row.model, row.completion_tokens) == ("m", 9)
        assert row.prompt_tokens > 0
        assert row.estimated_tokens == row.prompt_tokens + 9


def test_a_stream_that_is_left_before_its_first_event_ends(servers: list[Counting], tmp_path: Path) -> None:
    options = {**_options(servers), "hang_up_seconds": 0.5}
    del options["vllm_url"]
    body = {"messages": [{"role": "user", "content": "slow hang write 9"}], "stream": True}
    with serving(tmp_path, **options) as server, LLMBackendClient(server.url) as client:
        _hang_up(server.url, "/v1/chat/completions", body, servers)
        until(lambda: _ended(client).get("chat") == 1)


def test_a_stream_s_usage_reaches_only_those_who_ask_for_it(servers: list[Counting], tmp_path: Path) -> None:
    with serving(tmp_path, **_options(servers)) as server:
        for options in (None, {"include_usage": False}, {"include_usage": True}):
            body = {"messages": [{"role": "user", "content": "write 2"}], "stream": True}
            if options is not None:
                body["stream_options"] = options
            said = requests.post(f"{server.url}/v1/chat/completions", json=body, timeout=20).text
            assert said.endswith("data: [DONE]\n\n")
            # At the end alone, although the server is asked to tell it with each piece.
            assert said.count('"usage"') == bool(options and options["include_usage"])
            assert said.count("word ") == 2


def test_a_server_that_refuses_the_options_of_a_stream_is_asked_without(
    servers: list[Counting], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from starlette.responses import JSONResponse, Response

    refused: list[bool] = []
    chat = Counting._chat

    async def strict(self: Counting, request: Any) -> Response:
        refused.append("stream_options" in await request.json())
        if refused[-1]:
            return JSONResponse({"error": {"message": "stream_options: extra field"}}, status_code=422)
        return await chat(self, request)

    monkeypatch.setattr(Counting, "_chat", strict)
    with counting("strict") as server:
        options = {"openai_base_url": server.url, "chat_model": "m", "data_dir": tmp_path}
        with LLMBackendClient(transport=LocalTransport(Settings.model_validate(options))) as client:
            for _ in range(2):
                assert "".join(client.chat("write 2", stream=True)) == "word word "
    assert refused == [True, False, False], "it is known from then on"


def test_prices_make_costs(servers: list[Counting], tmp_path: Path) -> None:
    options = {**_options(servers), "data_dir": tmp_path}
    options["usage_prices"] = '{"fir*": {"prompt": 2000000, "completion": 500000}}'
    with LLMBackendClient(transport=LocalTransport(Settings.model_validate(options))) as client:
        client.chat("please write 4")
        [row] = client.usage()
        assert row.cost == 3 * 2 + 4 * 0.5
    with pytest.raises(ValueError, match="per million tokens"):
        Settings.model_validate({"usage_prices": '{"m": {"promt": 1}}'})


def test_a_cost_below_one_is_not_shown_as_nothing(
    servers: list[Counting],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = {**_options(servers), "data_dir": tmp_path}
    options["usage_prices"] = '{"fir*": {"prompt": 0.15, "completion": 100000}}'
    with LLMBackendClient(transport=LocalTransport(Settings.model_validate(options))) as client:
        client.chat("please write 4")
        monkeypatch.setattr("llmbackend.cli.usage.connected", lambda url, key: nullcontext(client))
        monkeypatch.setenv("COLUMNS", "200")
        show_usage(by="model", since="30d", until=None, url=None, key=None, as_json=False)
    (row,) = [line for line in capsys.readouterr().out.splitlines() if " first" in line]
    assert row.split()[-2] == "0.4"


def test_a_key_sees_what_its_own_project_used(servers: list[Counting], tmp_path: Path) -> None:
    with serving(tmp_path, api_key=KEY, api_keys="hr:one,support:another", **_options(servers)) as server:
        for key in ("one", "another"):
            with LLMBackendClient(server.url, key) as client:
                client.chat("one two")
                assert [row.project for row in client.usage(by="project")] == [
                    {"one": "hr", "another": "support"}[key]
                ]
        with LLMBackendClient(server.url, KEY) as admin:
            assert {row.project for row in admin.usage(by="project")} >= {"hr", "support"}


def test_a_call_that_fails_at_every_server_costs_nothing(servers: list[Counting], tmp_path: Path) -> None:
    options = {**_options(servers), "openai_base_url": None, "embedding_model": None, "upstream_timeout": 1}
    with LLMBackendClient(
        transport=LocalTransport(Settings.model_validate({"data_dir": tmp_path, **options}))
    ) as client:
        with pytest.raises(BackendError):
            client.chat("elsewhere")
        [row] = client.usage(by="operation")
        assert (row.requests, row.errors, row.prompt_tokens) == (1, 1, 0)
