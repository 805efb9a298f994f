"""A Qdrant server in strict mode, which is the default of Qdrant Cloud, and one whose limits are low."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llmbackend import InsufficientStorage, InvalidRequest, LLMBackendClient, Overloaded
from llmbackend.engines import qdrant_payload_indexes
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.qdrant import CLOUD, Server, serving

Connect = Callable[..., LLMBackendClient]

LOW = CLOUD.model_copy(
    update={
        "max_query_limit": 7,
        "upsert_max_batchsize": 5,
        "filter_max_conditions": 12,
        "condition_max_size": 6,
        "search_allow_exact": False,
        "max_timeout": 1,
    }
)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(CLOUD) as server:
        yield server


@pytest.fixture
def connect(server: Server, tmp_path: Path) -> Iterator[Connect]:
    opened: list[LLMBackendClient] = []

    def open_one(folder: str = "data") -> LLMBackendClient:
        options = Settings(data_dir=tmp_path / folder, qdrant_url=server.url, upstream_timeout=20)
        opened.append(LLMBackendClient(transport=LocalTransport(options)))
        return opened[-1]

    yield open_one
    for client in opened:
        client.close()


def _sheets(count: int, **metadata: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"d{n}", "text": f"Sheet number {n}.", "metadata": {"n": n, "kind": f"k{n % 3}", **metadata}}
        for n in range(count)
    ]


def _found(client: LLMBackendClient, filters: dict[str, Any], top_k: int = 20) -> set[str]:
    return {hit.document_id for hit in client.rag_search("sheet", "x", filters=filters, top_k=top_k)}


def test_documents_are_changed_and_removed(connect: Connect) -> None:
    client = connect()
    client.rag_ingest(_sheets(3), "x")
    assert client.rag_ingest([{"id": "d0", "text": "Another one."}], "x").updated == 1
    assert [one.id for one in client.list_documents("x")].count("d0") == 1
    assert client.delete_documents("x", ["d1"]) == {"deleted": 1}
    assert client.rag_ingest(_sheets(1), "x", sync=True).deleted == 1
    assert [one.id for one in client.list_documents("x")] == ["d0"]
    assert client.reindex_collection("x").chunks == 1


def test_a_filter_has_the_fields_that_it_asks_for_indexed_once(connect: Connect, server: Server) -> None:
    client = connect()
    client.rag_ingest(_sheets(6, draft=False, **{"a.b c": "x"}), "x")
    assert client.get_collection("x").indexes == {}
    for filters, expected in (
        ({"kind": "k1"}, {"d1", "d4"}),
        ({"kind": ["k1", "k2"], "n": {"lt": 3}}, {"d1", "d2"}),
        ({"n": 4}, {"d4"}),
        ({"n": [4, 5]}, {"d4", "d5"}),
        ({"not": {"n": {"gte": 1}}}, {"d0"}),
        ({"a.b c": {"exists": True}, "draft": True}, set()),
        ({"or": [{"page": 3}, {"n": 5}]}, {"d5"}),
        ({"nobody": "x"}, set()),
    ):
        assert _found(client, filters) == expected, filters
    assert client.get_collection("x").indexes == {}, "what filters ask for is not declared by that"
    server.client.calls.clear()
    assert _found(client, {"kind": "k1", "n": 1}) == {"d1"}
    assert "create_payload_index" not in server.client.calls
    client.reindex_collection("x")
    assert _found(client, {"kind": "k1", "n": 1}) == {"d1"}
    client.close()
    assert _found(connect(), {"kind": "k1", "n": 1}) == {"d1"}


def test_a_day_finds_its_moments_by_an_index_of_times(connect: Connect) -> None:
    client = connect()
    client.create_collection("x", indexes={"declared": "keyword"})
    client.rag_ingest(_sheets(1, when="2024-02-29T09:30:00Z", declared="2024-02-29"), "x")
    assert _found(client, {"when": "2024-02-29"}) == {"d0"}
    assert _found(client, {"when": ["2024-02-28", "2024-03-01"]}) == set()
    assert _found(client, {"declared": ["2024-02-29", "2024-03-01"]}) == {"d0"}, "a text, as declared"


def test_an_index_of_another_type_is_told_with_the_call_that_changes_it(connect: Connect) -> None:
    client = connect()
    client.create_collection("x", indexes={"kind": "float"})
    client.rag_ingest(_sheets(3), "x")
    with pytest.raises(InvalidRequest, match=r"set_indexes\(collection, {'kind': 'keyword'}\)") as caught:
        _found(client, {"kind": "k1"})
    assert (caught.value.details["field"], caught.value.details["types"]) == ("kind", ["keyword"])
    client.set_indexes("x", {"kind": "keyword"})
    assert _found(client, {"kind": "k1"}) == {"d1"}


def test_no_more_are_made_for_filters_than_a_server_takes(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_payload_indexes, "MOST_FOR_FILTERS", 2)
    client = connect()
    client.rag_ingest(_sheets(3, team="hr", floor=1), "x")
    assert _found(client, {"kind": "k1", "n": 1}) == {"d1"}
    with pytest.raises(InvalidRequest, match=r"'team' has no index .* set_indexes"):
        _found(client, {"team": "hr"})
    client.set_indexes("x", {"team": "keyword"})
    assert _found(client, {"team": "hr", "kind": "k1"}) == {"d1"}
    assert client.get_collection("x").indexes == {"team": "keyword"}
    monkeypatch.setattr(qdrant_payload_indexes, "MOST_FOR_FILTERS", 50)
    server.client.strict = CLOUD.model_copy(update={"max_payload_index_count": 8})
    with pytest.raises(InvalidRequest, match="'floor' has no index"):
        _found(client, {"floor": 1})


def test_fields_that_nobody_has_take_no_places_from_those_that_are_there(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_payload_indexes, "MOST_FOR_FILTERS", 3)
    client = connect()
    client.create_collection("x", indexes={"team": "keyword"})
    client.rag_ingest(_sheets(3, team="hr"), "x")
    for number in range(8):
        assert _found(client, {f"made up {number}": 1}) == set()
    assert _found(client, {"kind": "k1", "n": 1, "team": "hr"}) == {"d1"}
    for number in range(8):
        assert _found(client, {f"made up {number}": 1}) == set()
    [made] = server.client._indexes.values()
    assert {"metadata.kind", "metadata.n", "metadata.team"} <= made.keys()
    assert len(made) == len(qdrant_payload_indexes.OWN_FIELDS) + 1 + 3


def test_declared_indexes_come_before_those_that_filters_had_made(
    connect: Connect, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qdrant_payload_indexes, "INDEX_PLACES", 3)
    client = connect()
    client.rag_ingest(_sheets(3), "x")
    assert _found(client, {"kind": "k1", "n": 1}) == {"d1"}
    assert _found(client, {"nobody": 1}) == set()
    client.set_indexes("x", {"team": "keyword", "floor": "float"})
    [made] = server.client._indexes.values()
    assert {"metadata.team", "metadata.floor"} <= made.keys()
    assert len(made) == len(qdrant_payload_indexes.OWN_FIELDS) + 3


def test_a_collection_of_an_earlier_version_gets_the_indexes_that_it_lacks(
    connect: Connect, server: Server
) -> None:
    client = connect()
    client.rag_ingest(_sheets(3), "x")
    client.close()
    [name] = server.client._indexes
    for path in list(server.client._indexes[name]):
        if path not in ("document_id", "chunk"):
            server.client.delete_payload_index(name, path)
    client = connect()
    assert client.rag_ingest([{"id": "d0", "text": "Another one."}], "x").updated == 1


def test_low_limits_are_kept_to(connect: Connect, server: Server) -> None:
    server.client.strict = LOW
    client = connect()
    assert client.rag_ingest(_sheets(40), "x").added == 40
    assert client.rag_ingest(_sheets(40, edition=2), "x").updated == 40
    assert client.get_collection("x").documents == 40
    assert len(client.list_documents("x")) == 40
    assert len(_found(client, {}, top_k=30)) == 30
    assert _found(client, {"n": {"gte": 38}}) == {"d38", "d39"}
    assert len(_found(client, {"kind": [f"k{n}" for n in range(20)]}, top_k=40)) == 40
    assert client.reindex_collection("x").chunks == 40
    assert client.delete_documents("x", [f"d{n}" for n in range(30)]).deleted == 30


def test_a_filter_beyond_the_limits_is_the_callers_mistake(connect: Connect, server: Server) -> None:
    server.client.strict = LOW
    client = connect()
    client.rag_ingest(_sheets(3), "x")
    with pytest.raises(InvalidRequest, match=r"14 conditions, .* allows 12") as caught:
        _found(client, {"or": [{"n": n} for n in range(14)]})
    assert caught.value.details["limit"] == 12


def test_limits_that_come_later_are_learnt(connect: Connect, server: Server) -> None:
    client = connect()
    client.rag_ingest(_sheets(20), "x")
    server.client.strict = LOW
    assert client.rag_ingest(_sheets(20, edition=2), "x").updated == 20
    assert len(_found(client, {}, top_k=20)) == 20


@pytest.mark.parametrize("later", [False, True], ids=["known", "set meanwhile"])
def test_a_minutes_rates_are_kept_to(connect: Connect, server: Server, later: bool) -> None:
    """A request of more points than a minute's rate never passes."""
    rates = CLOUD.model_copy(update={"write_rate_limit": 16, "read_rate_limit": 8})
    server.client.minute = 0.005
    client = connect()
    if later:
        client.create_collection("x")
        client.rag_search("sheet", "x")
    server.client.strict = rates
    assert client.rag_ingest(_sheets(40), "x").added == 40
    assert client.rag_ingest(_sheets(40, edition=2), "x").updated == 40
    assert len(_found(client, {}, top_k=30)) == 30
    assert client.delete_documents("x", [f"d{n}" for n in range(20)]).deleted == 20
    assert client.get_collection("x").documents == 20


def test_a_rate_that_is_used_up_for_longer_than_the_time_out_is_told(
    connect: Connect, server: Server
) -> None:
    client = connect()
    client.rag_ingest(_sheets(1), "x")
    server.client.strict = CLOUD.model_copy(update={"write_rate_limit": 6})
    server.client.minute = 6 * 60.0
    server.client._left["Write"] = (0.0, time.monotonic())
    began = time.monotonic()
    with pytest.raises(Overloaded, match="Write rate limit exceeded") as caught:
        client.rag_ingest([{"id": "new", "text": "Another one."}], "x")
    assert 55 < caught.value.details["retry_after"] <= 60
    assert time.monotonic() - began < 20, "nobody waits for what comes too late"


def test_storage_that_is_used_up_is_told(connect: Connect, server: Server) -> None:
    client = connect()
    client.rag_ingest(_sheets(1), "x")
    server.client.refusals["upsert"] = said = "Max vector storage size limit of 1MB reached!"
    with pytest.raises(InsufficientStorage, match=said):
        client.rag_ingest(_sheets(4), "x")
    server.client.refusals.clear()
    assert client.get_collection("x").documents == 1
