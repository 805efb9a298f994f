"""How a Qdrant server is to keep collections: by a setting, and for a collection; and what listing these asks of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from qdrant_client import models

from llmbackend import InvalidRequest
from llmbackend.settings import load
from tests.qdrant import CLOUD, Connect, Server, connecting, serving


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


@pytest.fixture
def connect(server: Server, tmp_path: Path) -> Iterator[Connect]:
    with connecting(server.url, tmp_path, upstream_timeout=20) as connect:
        yield connect


SET = '{"shard_number": 6, "replication_factor": 2, "write_consistency_factor": 1, "on_disk": true}'


def test_they_are_set_and_given_and_kept(connect: Connect, server: Server, tmp_path: Path) -> None:
    client = connect(qdrant_collection=SET)
    set_for_all = {"shard_number": 6, "replication_factor": 2, "write_consistency_factor": 1, "on_disk": True}
    assert client.create_collection("plain").engine == set_for_all
    made = client.create_collection("own", engine={"shard_number": 3, "quantization": "int8"})
    assert made.engine == {**set_for_all, "shard_number": 3, "quantization": "int8"}
    assert made in client.list_collections()
    first, second = server.client.made.values()
    assert (first.shard_number, first.replication_factor, first.write_consistency_factor) == (6, 2, 1)
    assert first.vectors["dense"].on_disk
    assert first.on_disk_payload
    assert first.quantization_config is None
    assert second.shard_number == 3
    assert second.quantization_config.scalar.type == models.ScalarType.INT8
    client.rag_ingest("A text.", "own")
    client.export_collection("own", tmp_path / "own.jsonl")
    client.close()

    # What is set now is applied by a reindex; what was given for the collection stays.
    client = connect(qdrant_collection='{"replication_factor": 3}')
    assert client.get_collection("own").engine == made.engine
    client.reindex_collection("own")
    now = {"replication_factor": 3, "shard_number": 3, "quantization": "int8"}
    assert client.get_collection("own").engine == now
    assert (*server.client.made.values(),)[-1].replication_factor == 3
    client.import_collection(tmp_path / "own.jsonl", collection="again")
    assert client.get_collection("again").engine == now


def test_quantized_vectors_are_scored_again(connect: Connect, server: Server) -> None:
    client = connect()
    client.create_collection("x", engine={"quantization": "int8"})
    client.rag_ingest(["One text.", "Another text."], "x")
    assert len(client.rag_search("text", "x", mode="hybrid")) == 2
    asked = {search.using: search.params for search in server.client.searches}
    assert asked["bm25"] is None
    assert asked["dense"].quantization == models.QuantizationSearchParams(rescore=True, oversampling=2.0)
    client.close()
    server.client.strict = CLOUD.model_copy(update={"search_max_oversampling": 1.5})
    client = connect()
    client.rag_search("text", "x", mode="dense")
    assert server.client.searches[-1].params.quantization.oversampling == 1.5


WRONG = {
    "no JSON": "{",
    "shard_number": '{"shard_number": 0}',
    "shards": '{"shards": 3}',
    "quantization": '{"quantization": "int4"}',
    "replication_factor": '{"replication_factor": 1, "write_consistency_factor": 2}',
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_ones_are_told(name: str) -> None:
    with pytest.raises(InvalidRequest, match="QDRANT_COLLECTION: ") as caught:
        load(qdrant_collection=WRONG[name])
    assert name in caught.value.message or name == "no JSON"


def test_they_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMBACKEND_QDRANT_COLLECTION", SET)
    assert load().qdrant_collection.shard_number == 6


def test_listing_without_counts_asks_nothing(connect: Connect, server: Server) -> None:
    client = connect()
    names = [f"c{number}" for number in range(5)]
    for name in names:
        client.create_collection(name)
    client.close()
    client = connect()
    server.client.calls.clear()
    listed = client.list_collections(counts=False)
    assert [(one.name, one.documents, one.chunks) for one in listed] == [(name, None, None) for name in names]
    assert server.client.calls == []
    assert [(one.name, one.documents) for one in client.list_collections()] == [(name, 0) for name in names]
