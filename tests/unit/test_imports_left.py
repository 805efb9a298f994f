"""Imports whose client is gone: others take their places, and those that go on keep them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmbackend import LLMBackendClient, NotFound, Overloaded
from llmbackend.knowledge.collections import transfer
from llmbackend.knowledge.collections.transfer import AT_ONCE
from llmbackend.local import LocalTransport
from llmbackend.schemas import CollectionManifest
from llmbackend.settings import Settings

LEFT = 0.5


@pytest.fixture
def client(tmp_path: Path) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path / "data"))) as client:
        yield client


def test_the_import_that_waits_longest_gives_way(
    client: LLMBackendClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.rag_ingest(["One text."], "x")
    client.export_collection("x", tmp_path / "x.jsonl")
    head, *chunks = map(json.loads, (tmp_path / "x.jsonl").read_text().splitlines())
    chunks = [one for one in chunks if "vector" in one]
    manifest = {name: value for name, value in head.items() if name in CollectionManifest.model_fields}

    def begin(name: str) -> str:
        return str(client._call("import_collection", collection=name, manifest=manifest)["token"])

    tokens = [begin(f"left{number}") for number in range(AT_ONCE)]
    with pytest.raises(Overloaded, match="no page for 60 s gives way"):
        begin("another")
    time.sleep(LEFT)
    monkeypatch.setattr(transfer, "REPLACED_AFTER", LEFT)
    client._call("import_collection", collection="left0", token=tokens[0])  # a page: its client is there
    assert client.import_collection(tmp_path / "x.jsonl", collection="another").documents == 1
    with pytest.raises(NotFound, match="begin anew"):
        client._call("import_collection", collection="left1", token=tokens[1], chunks=chunks)
    client._call("import_collection", collection="left0", token=tokens[0], chunks=chunks, last=True)
    assert {one.name for one in client.list_collections()} == {"x", "another", "left0"}
