"""The client for `await`: what the contract suite, which runs by it too, does not show."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import threading
from pathlib import Path
from typing import Any

import pytest

import llmbackend
from llmbackend import AsyncLLMBackendClient, Conflict, LLMBackendClient, NotFound, TransportError
from llmbackend.async_local import AsyncLocalTransport, LoopCore
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY

ROOT = Path(llmbackend.__file__).parents[1]


@pytest.fixture
def settings(tmp_path: Path, models_dir: Path) -> Settings:
    return Settings(data_dir=tmp_path, models_dir=models_dir)


def _client(settings: Settings) -> AsyncLLMBackendClient:
    return AsyncLLMBackendClient(transport=AsyncLocalTransport(settings))


def test_what_is_checked_in_is_what_the_generator_writes() -> None:
    made = importlib.util.spec_from_file_location("make_async", ROOT / "sdk" / "make_async.py")
    assert made is not None
    assert made.loader is not None
    module = importlib.util.module_from_spec(made)
    made.loader.exec_module(module)
    assert module.TARGET.read_text(encoding="utf-8") == module.written(), "run: python sdk/make_async.py"


def test_every_call_is_there_with_the_same_arguments() -> None:
    for name, method in inspect.getmembers(LLMBackendClient, inspect.isfunction):
        if not name.startswith("_"):
            twin = getattr(AsyncLLMBackendClient, name)
            assert inspect.signature(twin).parameters.keys() == inspect.signature(method).parameters.keys()
            assert inspect.iscoroutinefunction(twin) or inspect.isasyncgenfunction(twin), name


def test_the_work_is_done_on_the_callers_loop(settings: Settings) -> None:
    def loops() -> int:
        return [thread.name for thread in threading.enumerate()].count("llmbackend")

    async def main() -> None:
        before = loops()
        async with _client(settings) as client:
            core = LoopCore.all[settings.data_dir] if await client.health() else None
            assert core is not None
            assert loops() == before, "no thread of its own has the loop"
            async with _client(settings) as another:
                await another.health()
                assert core.users == 2
            assert (await client.embed_single("a text")) == (await client.embed_single("a text"))
        assert LoopCore.all == {}

    asyncio.run(main())


def test_many_at_once(settings: Settings) -> None:
    async def main() -> list[Any]:
        async with _client(settings) as client:
            return await asyncio.gather(*(client.embed_single(f"text {n}") for n in range(50)))

    assert [len(vector) for vector in asyncio.run(main())] == [256] * 50


def test_cancelling_the_task_ends_the_work(settings: Settings, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with _client(settings) as client:
            await client.health()
            with caplog.at_level("INFO", "llmbackend.calls"):
                chat = asyncio.create_task(client.chat("Tell me a long story.", max_tokens=400))
                await asyncio.sleep(0.3)
                chat.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await chat
            assert any("chat left" in record.getMessage() for record in caplog.records)
            assert await client.chat("hello", max_tokens=3)  # the model is free again

    asyncio.run(main())


def test_a_stream_that_is_not_read_ends_with_its_block(settings: Settings) -> None:
    async def main() -> None:
        async with _client(settings) as client:
            async with await client.chat("Tell me a long story.", max_tokens=400, stream=True):
                pass
            async with await client.chat("Tell me a long story.", max_tokens=400, stream=True) as stream:
                assert await anext(stream)
            assert await client.chat("hello", max_tokens=3)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_client_for_threads_and_one_for_await_share_a_data_directory(settings: Settings) -> None:
    async def main() -> None:
        async with _client(settings) as client:
            assert [one.name async for one in _each(client)] == ["notes"]
            pieces = [piece async for piece in await client.chat("hello", max_tokens=5, stream=True)]
            assert pieces
            with pytest.raises(NotFound):
                await client.get_collection("another")

    async def _each(client: AsyncLLMBackendClient) -> Any:
        for one in await client.list_collections():
            yield one

    with LLMBackendClient(transport=LocalTransport(settings)) as client:
        client.create_collection("notes")
        asyncio.run(main())
        assert client.health().status == "ok"


def test_one_may_be_opened_while_the_last_is_being_closed(settings: Settings) -> None:
    async def main() -> None:
        first = _client(settings)
        await first.rag_ingest("The harbour was dredged in 1911.", "c")
        closing = asyncio.create_task(first.close())
        await asyncio.sleep(0)
        given_up = _client(settings)
        opening = asyncio.create_task(given_up.health())
        await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
        await given_up.close()
        async with _client(settings) as second:
            assert [one.name for one in await second.list_collections()] == ["c"]
        await closing
        assert LoopCore.all == LoopCore._closing == {}

    asyncio.run(main())


@pytest.mark.parametrize("transport", ["local", "http"])
def test_another_loop_is_told(settings: Settings, server_url: str, transport: str) -> None:
    client = _client(settings) if transport == "local" else AsyncLLMBackendClient(server_url, KEY)

    async def use() -> None:
        await client.health()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(Conflict, match="within one loop"):
            asyncio.run(use())
        runner.run(client.close())
        with pytest.raises(TransportError, match="closed"):
            runner.run(use())


def test_over_http(server_url: str) -> None:
    async def main() -> None:
        async with AsyncLLMBackendClient(server_url, KEY) as client:
            assert (await client.health()).version == llmbackend.__version__
            async with await client.chat("hello", max_tokens=5, stream=True) as stream:
                assert [piece async for piece in stream]
            with pytest.raises(NotFound) as caught:
                await client.get_collection("no-such-collection")
            assert caught.value.request_id
        with pytest.raises(TransportError, match="closed"):
            await client.health()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("url", "said"),
    [("http://127.0.0.1:9", "is the server running"), ("https://{}", "is it http://")],
    ids=["nothing there", "https"],
)
def test_what_went_wrong_on_the_way_is_said_as_by_the_other_client(
    server_url: str, url: str, said: str
) -> None:
    async def main() -> None:
        async with AsyncLLMBackendClient(url.format(server_url.partition("//")[2]), retries=0) as client:
            with pytest.raises(TransportError, match=said):
                await client.health()

    asyncio.run(main())


def test_the_key_counts_whatever_netrc_says(
    server_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))

    async def main() -> None:
        async with AsyncLLMBackendClient(server_url, KEY) as client:
            assert await client.models()

    asyncio.run(main())
