"""A collection whose embedding model changed: refused with the repair, repaired, or left as it was."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.upstream.fake import KEY, Upstream

DOCUMENTS = [{"id": f"d{number}", "text": f"Ticket {number} is about routers."} for number in range(40)]


def _client(folder: Path, upstream: Upstream | None = None, behaviour: str = "ok") -> LLMBackendClient:
    settings: dict[str, Any] = {}
    if upstream is not None:
        settings = {"tei_url": f"{upstream.url}/{behaviour}", "tei_api_key": KEY, "upstream_timeout": 2}
    return LLMBackendClient(transport=LocalTransport(Settings(data_dir=folder, **settings)))


def _physical(folder: Path) -> set[str]:
    return {path.name for path in (folder / "collections").iterdir() if path.is_dir()}


def _loose(folder: Path) -> list[Any]:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return connection.execute("SELECT physical FROM loose_collections").fetchall()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data directory with a collection that the embedded model made."""
    with _client(tmp_path) as client:
        client.rag_ingest(DOCUMENTS, "tickets")
    return tmp_path


def test_another_model_is_refused_by_both_names_and_repaired(folder: Path, upstream: Upstream) -> None:
    before = _physical(folder)
    with _client(folder, upstream) as client:
        was, now = client.get_collection("tickets").embedding_model, upstream.called
        assert was != now
        with pytest.raises(Conflict, match="reindex_collection") as caught:
            client.rag_search("routers", "tickets")
        assert was in caught.value.message
        assert now in caught.value.message
        assert caught.value.details == {"collection": "tickets", "made_with": was, "model": now}
        client.delete_documents("tickets", ["d0"])  # what needs no vectors is possible all the same
        report = client.reindex_collection("tickets")
        assert (report.from_model, report.to_model, report.documents) == (was, now, 39)
        info = client.get_collection("tickets")
        assert (info.embedding_model, info.dimension) == (now, len(client.embed_single("x")))
        assert len(client.rag_search("routers", "tickets", top_k=100)) == 39
        assert client.rag_ingest(DOCUMENTS, "tickets").unchanged == 39
    assert len(_physical(folder)) == 1
    assert _physical(folder) != before
    assert _loose(folder) == []
    with _client(folder, upstream) as client:
        assert client.get_collection("tickets").documents == 40


def test_a_reindex_that_fails_leaves_everything_as_it_was(folder: Path, upstream: Upstream) -> None:
    before = _physical(folder)
    with _client(folder, upstream, "500") as client, pytest.raises(BackendError):
        client.reindex_collection("tickets")
    assert _physical(folder) == before
    assert _loose(folder) == []
    with _client(folder) as client:
        assert len(client.rag_search("routers", "tickets", top_k=100)) == 40
