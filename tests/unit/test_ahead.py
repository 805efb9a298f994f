"""What the judge reads ahead of questions, while nothing else is at work."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.access.caller import DEFAULT, of_project
from llmbackend.access.names import QualifiedName
from llmbackend.backend import Backend
from llmbackend.engines.fusion import best
from llmbackend.knowledge.collections.written import Written
from llmbackend.knowledge.retrieval import ahead
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from llmbackend.tracing import Trace, quiet, tracing

RULES = {
    "parking": "Cars may be left in the yard behind the house until eight in the evening.",
    "keys": "A key that is lost has to be told to the porter at once, who has the lock changed.",
    "bikes": "Bicycles stand in the cellar. There is a pump and a box of tools for everybody.",
}
ASKED = "Where do I put my automobile?"

Connect = Callable[..., LLMBackendClient]


@pytest.fixture
def connect(tmp_path: Path, models_dir: Path) -> Iterator[Connect]:
    clients: list[LLMBackendClient] = []

    def connected(**given: Any) -> LLMBackendClient:
        options = Settings(
            **{"data_dir": tmp_path, "models_dir": models_dir, "read_ahead_chunks": 100, **given}
        )
        clients.append(LLMBackendClient(transport=LocalTransport(options)))
        return clients[-1]

    yield connected
    for client in clients:
        client.close()


def _filled(client: LLMBackendClient, name: str = "house") -> LLMBackendClient:
    client.rag_ingest(
        [{"id": one, "text": text, "metadata": {"kind": "rule"}} for one, text in RULES.items()], name
    )
    return client


def _backend(client: LLMBackendClient) -> Backend:
    transport: Any = client._transport
    backend: Backend = transport._core.backend
    return backend


def _read(client: LLMBackendClient, count: int, name: str = "house") -> None:
    """Wait until so many passages are read; asking for it would be a call, which it stops for."""
    collections = _backend(client).parts.collections
    deadline = time.monotonic() + 60
    while collections._collections[QualifiedName(DEFAULT, name)].read_ahead != count:
        assert time.monotonic() < deadline, "it is not read"
        time.sleep(0.05)


def _ahead(client: LLMBackendClient, **more: Any) -> dict[str, float | None]:
    """By document, the cosine that was read ahead, of those that an answer was looked for in."""
    answer = client.rag_query(ASKED, "house", explain=True, **more)
    return {one.document_id: one.ahead for one in answer.explanation.candidates}


def _misses(client: LLMBackendClient) -> int:
    return _backend(client).parts.judge._embedder.misses


def test_a_collection_is_read_and_stays_so_after_a_restart(connect: Connect) -> None:
    client = _filled(connect())
    _read(client, 3)
    assert client.list_collections()[0].read_ahead == 3
    found = _ahead(client)
    assert found.keys() == RULES.keys()
    assert found["parking"] == max(filter(None, found.values()))
    assert str(client.rag_query(ASKED, "house")).count(RULES["parking"]) == 1
    client.close()
    again = connect()
    again.rag_search("a key", "house")  # opens it
    _read(again, 3)
    assert _misses(again) == 0, "what was read is in the cache"


def test_it_follows_what_is_written_and_deleted(connect: Connect) -> None:
    client = _filled(connect())
    _read(client, 3)
    client.rag_ingest([{"id": "bikes", "text": "Bicycles are not allowed any more."}], collection="house")
    client.delete_documents("house", ids=["keys"])
    client.rag_ingest([{"id": "cars", "text": "A car that stands in the way is towed."}], collection="house")
    assert _ahead(client).keys() == {"parking", "bikes", "cars"}, "read or not, what is there is found"
    deadline = time.monotonic() + 60
    while None in (found := _ahead(client)).values():
        assert time.monotonic() < deadline
        time.sleep(1)  # a call, which it stops for
    assert found.keys() == {"parking", "bikes", "cars"}


def test_so_many_are_read_and_none_for_filters_or_in_other_languages(connect: Connect) -> None:
    client = connect(read_ahead_chunks=2)
    client.rag_ingest(["Die Fahrräder stehen im Keller, und die Autos im Hof hinter dem Haus."], "keller")
    _filled(client)
    _read(client, 2)  # one collection after the other
    told = {one.name: one.get("read_ahead") for one in client.list_collections()}
    assert told == {"house": 2, "keller": None}
    assert sum(cosine is not None for cosine in _ahead(client).values()) == 2
    assert set(_ahead(client, filters={"kind": "rule"}).values()) == {None}
    client.delete_collection("keller")


def test_the_first_question_waits_for_the_little_that_is_left(
    connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it is asked at once, and much else waits to be read: its answer is that of later ones."""
    monkeypatch.setattr(ahead, "PATIENCE", 60.0)
    client = connect()
    client.rag_ingest([f"Note {number}: the door is painted on a Monday." for number in range(60)], "notes")
    _filled(client)
    told = client.rag_query(ASKED, "house", explain=True).explanation
    assert "read ahead" in told.ms
    assert None not in {one.ahead for one in told.candidates}
    client.rag_ingest([{"id": "cars", "text": "A car that stands in the way is towed."}], collection="house")
    assert None not in _ahead(client).values()


def test_questions_of_one_project_about_many_collections_do_not_hold_up_anothers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of those that questions wait for, one is read at a time, and projects come by turns."""
    read: list[str] = []

    async def follow(self: Any, collection: Any) -> None:
        if not await self._turn(collection):
            return self._written.put(collection)
        read.append(collection.name)
        await asyncio.sleep(0.01)

    class Small:
        def __init__(self, name: str) -> None:
            self.name = name

        async def counted(self) -> tuple[int, int]:
            return 1, 1

    async def asked(project: str, collection: Any) -> None:
        call = Trace("rag_query", caller=of_project(project))
        with tracing(call):
            await reading.catch_up([collection])

    async def work() -> None:
        nonlocal reading
        written: Any = Written()
        store: Any = type("Collections", (), {"written": written})
        judge: Any = type("Judge", (), {"here": True})
        reading = ahead.ReadingAhead(store, judge, 100, lambda _: [], lambda _: True)
        collections = [Small(f"a{number}") for number in range(8)]
        others = Small("b")
        for one in (*collections, others):
            written.put(one)
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(asked("a", collections[0]))
            group.create_task(asked("b", others))
            for one in collections[1:]:
                group.create_task(asked("a", one))
        await reading.close()

    reading: Any = None
    monkeypatch.setattr(ahead.ReadingAhead, "_follow", follow)
    asyncio.run(work())
    assert read.index("b") <= 2
    assert sorted(read) == sorted(["b", *(f"a{number}" for number in range(8))])


def test_it_waits_while_anything_is_at_work() -> None:
    async def waited() -> None:
        call = Trace("rag_query")
        call.begin()
        waits = asyncio.create_task(quiet(0.01))
        for _ in range(10):
            await asyncio.sleep(0.01)
            assert not waits.done()
        call.finish("ok")
        await asyncio.wait_for(waits, 60)

    asyncio.run(waited())


def test_what_is_read_ahead_counts_as_a_third_list() -> None:
    lists = {"dense": [("a", 0.9), ("b", 0.5)], "sparse": [("b", 7.0), ("c", 3.0)]}
    found = dict(best(lists, 0.5, 9, [("d", 0.6), ("a", 0.2)], 1.5))
    # One deviation above or below the mean: 4/6 or 2/6 of a list's share, 1/3, 1/6 and 1/2 of the whole.
    expected = {"a": 4 / 6 / 6 + 2 / 6 / 2, "b": 2 / 6 / 6 + 4 / 6 / 3, "c": 2 / 6 / 3, "d": 4 / 6 / 2}
    assert {key: scores["fused"] for key, scores in found.items()} == pytest.approx(expected)
