"""Processes killed at any moment of ingesting, replacing and deleting: every document is wholly old or wholly new."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmbackend import LLMBackendClient
from llmbackend.chunks.chunking import split
from llmbackend.local import LocalTransport
from llmbackend.schemas import Document
from llmbackend.settings import Settings
from tests.server import python

COUNT = 80
SIZE = 32

CHILD = """
import json, sys
from pathlib import Path
from llmbackend import LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

folder, action = Path(sys.argv[1]), sys.argv[2]
documents = json.loads((folder / "documents.json").read_text())
with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder / "data"))) as client:
    client.rag_ingest(documents[:5], "warm-up", chunk_size=32, chunk_overlap=0)
    print("begin", flush=True)
    if action == "delete":
        for start in range(0, len(documents), 20):
            client.delete_documents("reports", [one["id"] for one in documents[start:start + 20]])
    else:
        client.rag_ingest(documents, "reports")
    print("end", flush=True)
"""


def _documents(edition: int) -> dict[str, dict[str, Any]]:
    """Documents by id, of one to ten chunks, another number of them in each edition."""
    return {
        f"report-{number}": {
            "id": f"report-{number}",
            "text": " ".join(
                f"Section {section} of report {number} in edition {edition} is about case {number * 31}."
                for section in range(1 + (number * edition) % 13)
            ),
            "metadata": {"number": number, "edition": edition},
        }
        for number in range(COUNT)
    }


@cache
def _passages(name: str, text: str) -> list[str]:
    return [chunk.text for chunk in split(Document(id=name, text=text), "", SIZE, 0)]


@contextmanager
def _open(folder: Path) -> Iterator[LLMBackendClient]:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder / "data"))) as client:
        yield client


def _run(folder: Path, action: str, kill_after: float | None) -> float:
    """Let another process do it; returns the seconds it took, or was given until its end by kill -9."""
    process = python(["-c", CHILD, str(folder), action], cwd=folder)
    try:
        assert process.stdout.readline() == "begin\n"
        began = time.monotonic()
        if kill_after is None:
            assert process.stdout.readline() == "end\n"
        else:
            time.sleep(kill_after)  # no matter what it is at by then
        return time.monotonic() - began
    finally:
        process.kill()
        process.wait(timeout=30)


def _assert_whole(client: LLMBackendClient, allowed: list[dict[str, dict[str, Any]]]) -> int:
    """Every document is there as in one of these editions, with all its chunks, or not at all if one has it not.

    Returns how many there are.
    """
    listed = {one.id: one for one in client.list_documents("reports")}
    passages: dict[str, list[Any]] = {name: [] for name in listed}
    for chunk in client.list_chunks("reports"):  # one more than a document has would be told, too
        passages[chunk.document_id].append(chunk)
    for name in set().union(*allowed):
        assert name in listed or any(name not in edition for edition in allowed), f"{name} is lost"
    chunks = 0
    for name, one in listed.items():
        [given] = [
            edition[name]
            for edition in allowed
            if name in edition and edition[name]["metadata"] == one.metadata
        ]
        expected = _passages(name, given["text"])
        stored = sorted(passages[name], key=lambda chunk: chunk.chunk)
        assert [chunk.text for chunk in stored] == expected
        assert {json.dumps(chunk.metadata) for chunk in stored} == {json.dumps(one.metadata)}
        assert one.chunks == len(expected)
        chunks += len(expected)
        number = one.metadata["number"]
        if number % 20 == 0:  # they are found by vectors and by a filter, too
            hits = client.rag_search(
                "report", "reports", mode="dense", top_k=1000, filters={"number": number}
            )
            assert [hit.text for hit in sorted(hits, key=lambda hit: hit.chunk)] == expected
    info = client.get_collection("reports")  # counts points, orphans among them
    assert (info.documents, info.chunks) == (len(listed), chunks)
    return len(listed)


@pytest.mark.parametrize("kills", [1, pytest.param(8, marks=pytest.mark.long)])
@pytest.mark.parametrize("action", ["ingest", "replace", "delete"])
def test_a_kill_at_any_moment_leaves_every_document_old_or_new(
    tmp_path: Path, action: str, kills: int
) -> None:
    old: dict[str, dict[str, Any]] = {} if action == "ingest" else _documents(1)
    new = {} if action == "delete" else _documents(2)
    (tmp_path / "documents.json").write_text(json.dumps([*(new or old).values()]))

    def begin(client: LLMBackendClient) -> None:
        """The collection as it is before the action."""
        if "reports" in [one.name for one in client.list_collections()]:
            client.delete_collection("reports")
        client.create_collection("reports", chunk_size=SIZE, chunk_overlap=0)
        if old:
            client.rag_ingest([*old.values()], "reports")

    with _open(tmp_path) as client:
        begin(client)
    whole = _run(tmp_path, action, None)
    chance = random.Random(action)
    for kill in range(kills):
        with _open(tmp_path) as client:
            begin(client)
        # One in each part of the time that it takes, undisturbed.
        _run(tmp_path, action, whole * (kill + chance.random()) / kills)
        with _open(tmp_path) as client:
            _assert_whole(client, [old, new])
    _run(tmp_path, action, None)
    with _open(tmp_path) as client:
        assert _assert_whole(client, [new]) == len(new)
