"""Which model is behind a URL: known by its vectors, looked at again, and told where it is another."""

from __future__ import annotations

import json
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmbackend import BackendError, Conflict, LLMBackendClient
from llmbackend.inference import remote_embedders
from llmbackend.inference import upstream as inference
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings
from tests.server import KEY as SERVER_KEY
from tests.server import serving
from tests.upstream.conftest import Connect
from tests.upstream.fake import KEY, Upstream, running

DOCUMENTS = [
    {"id": "router", "text": "To reset the router, hold the red button."},
    {"id": "leave", "text": "Thirty days."},
]
SERVERS: dict[str, dict[str, str]] = {"TEI": {"tei_url": "{url}/ok"}, "vLLM": {"embedding_model": "ok"}}
STACKS = {**SERVERS, "LiteLLM": {"litellm_url": "{url}", "embedding_model": "ok"}}


@pytest.fixture(params=SERVERS)
def server(request: pytest.FixtureRequest, upstream: Upstream) -> dict[str, str]:
    """The settings for each kind of embedding server."""
    return {name: value.format(url=upstream.url) for name, value in SERVERS[request.param].items()}


def _of(folder: Path, **settings: Any) -> LLMBackendClient:
    return LLMBackendClient(
        transport=LocalTransport(Settings(data_dir=folder, upstream_timeout=5, **settings))
    )


def _at(upstream: Upstream, **settings: Any) -> dict[str, Any]:
    return {"openai_base_url": upstream.url, "openai_api_key": KEY, "tei_api_key": KEY, **settings}


@pytest.fixture
def ingested(tmp_path: Path, upstream: Upstream, server: dict[str, str]) -> tuple[Path, dict[str, Any]]:
    """A data directory with a collection that the server's model made, and the settings."""
    upstream.called = "org/first"
    settings = _at(upstream, **server)
    with _of(tmp_path, **settings) as client:
        client.rag_ingest(DOCUMENTS, "town")
        assert client.get_collection("town").embedding_model == "org/first"
    return tmp_path, settings


@pytest.mark.parametrize("called", ["org/second", "org/first"])
def test_another_model_behind_the_url_is_a_conflict_until_the_reindex(
    ingested: tuple[Path, dict[str, Any]], upstream: Upstream, called: str, tmp_path: Path
) -> None:
    folder, settings = ingested
    upstream.weights, upstream.called = 1, called
    with _of(folder, **settings) as client:
        for call in (
            lambda: client.rag_search("router", "town", mode="dense"),
            lambda: client.rag_search("router", "town"),
            lambda: client.rag_query("router?", "town"),
            lambda: client.rag_ingest("The gym opens at six.", "town"),
            lambda: client.wait_for_job(
                client.submit_job("rag_ingest", {"documents": ["The gym."], "collection": "town"}), 30
            ),
        ):
            with pytest.raises(Conflict, match=r"reindex_collection\('town'\)") as caught:
                call()
            assert "org/first" in caught.value.message
            assert called in caught.value.message
        assert client.rag_search("router", "town", mode="sparse")[0].document_id == "router"
        assert client.get_collection("town").documents == 2
        assert {one.id for one in client.list_documents("town")} == {"leave", "router"}
        assert client.export_collection("town", str(tmp_path / "town.jsonl"))
        client.delete_documents("town", ["leave"])
        report = client.reindex_collection("town")
        assert (report.from_model, report.to_model) == ("org/first", called)
        assert client.rag_search("router", "town", mode="dense")[0].document_id == "router"
        assert client.rag_ingest("The gym opens at six.", "town").added == 1


def test_a_model_that_changes_while_the_process_runs_is_noticed_after_a_reconnection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as first:
        first.called, port = "org/first", int(first.url.rpartition(":")[2])
        client = _of(tmp_path, tei_url=f"{first.url}/ok", embedding_cache_mb=0)
        client.rag_ingest(DOCUMENTS, "town")
        client.rag_search("router", "town")
        assert first.looks >= 1
    with client, running(port) as second:
        second.called, second.weights = "org/second", 1
        with pytest.raises(Conflict, match="org/second"):
            client.rag_search("router", "town")
        with pytest.raises(Conflict, match="org/second"):
            client.rag_ingest("The gym opens at six.", "town")
        assert second.looks >= 1


def test_a_model_is_looked_at_once_and_again_after_a_pause_and_an_hour(
    connect: Connect, upstream: Upstream, server: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "KEPT", 60.0)  # however slow this machine is
    client = connect(**server, embedding_cache_mb=0)
    client.rag_ingest(DOCUMENTS, "town")
    for number in range(5):
        client.rag_search(f"router {number}", "town")
    assert upstream.looks == 1
    monkeypatch.setattr(inference, "KEPT", 0.0)  # its connections have idled
    client.rag_search("router after a while", "town")
    monkeypatch.setattr(inference, "KEPT", 60.0)
    for number in range(5):
        client.rag_search(f"router again {number}", "town")
    assert upstream.looks <= 3
    looks = upstream.looks
    client.rag_search("router at last", "town")
    assert upstream.looks == looks >= 2
    upstream.weights = 1
    monkeypatch.setattr(remote_embedders, "LOOK_AGAIN", 0.0)
    with pytest.raises(Conflict):
        client.rag_search("router", "town")
    assert upstream.looks > looks


@pytest.mark.parametrize("stack", STACKS)
def test_a_collection_tells_what_the_server_calls_its_model(
    connect: Connect, upstream: Upstream, stack: str
) -> None:
    upstream.called = "org/told"
    client = connect(**{name: value.format(url=upstream.url) for name, value in STACKS[stack].items()})
    assert client.create_collection("town").embedding_model == "org/told"
    for name in {"org/told", "tei" if stack == "TEI" else "ok"}:
        assert len(client.embed(["a"], model=name)) == 1


def test_the_same_vectors_under_another_name_are_accepted(
    ingested: tuple[Path, dict[str, Any]], upstream: Upstream, caplog: pytest.LogCaptureFixture
) -> None:
    folder, settings = ingested
    upstream.called = "another/name"
    with _of(folder, **settings) as client, caplog.at_level(logging.WARNING):
        assert client.rag_search("router", "town")
        assert client.get_collection("town").embedding_model == "another/name"
    assert [r.message for r in caplog.records if "another/name" in r.message and "org/first" in r.message]


def test_the_same_model_by_another_stack_at_another_url_is_accepted(
    tmp_path: Path, upstream: Upstream
) -> None:
    with running() as other:
        with _of(tmp_path, **_at(other, embedding_model="ok")) as client:
            client.rag_ingest(DOCUMENTS, "town")
        with _of(tmp_path, **_at(upstream, tei_url=f"{upstream.url}/ok")) as client:
            assert client.rag_search("router", "town", mode="dense")
            upstream.reset()
            client.embed([DOCUMENTS[0]["text"]])
    assert upstream.seen == [], "its vector is in the cache"


def test_prompts_come_before_texts_and_are_part_of_what_made_a_collection(
    tmp_path: Path, upstream: Upstream, server: dict[str, str]
) -> None:
    settings = _at(upstream, **server, embedding_cache_mb=0)
    prompts = {"embedding_query_prefix": "query: ", "embedding_passage_prefix": "passage: "}
    with _of(tmp_path, **settings, **prompts) as client:
        client.rag_ingest(DOCUMENTS, "town")
        client.rag_search("Where is the button?", "town")
        client.embed(["a text of the caller's own"])
    sent = [text for body in upstream.seen for text in body.get("inputs") or body["input"]]
    assert f"passage: {DOCUMENTS[0]['text']}" in sent
    assert "query: Where is the button?" in sent
    assert "a text of the caller's own" in sent
    with _of(tmp_path, **settings, **{**prompts, "embedding_query_prefix": "ask: "}) as client:
        with pytest.raises(Conflict, match=r"'query: '.*'ask: '.*EMBEDDING_QUERY_PREFIX"):
            client.rag_search("Where is the button?", "town")
        client.reindex_collection("town")
        assert client.rag_search("Where is the button?", "town")


def _forget(folder: Path, name: str) -> None:
    """Leave the collection as versions before fingerprints did."""
    with closing(sqlite3.connect(folder / "state.db")) as connection, connection:
        connection.execute("UPDATE collections SET made_by = NULL, embedding_model = ?", [name])
        connection.execute("DELETE FROM embedding_models")


def _kept(folder: Path) -> Any:
    with closing(sqlite3.connect(folder / "state.db")) as connection:
        return connection.execute("SELECT made_by, embedding_model FROM collections").fetchone()


def test_a_collection_from_before_gets_its_fingerprint_at_the_next_write_that_agrees(
    ingested: tuple[Path, dict[str, Any]], upstream: Upstream
) -> None:
    folder, settings = ingested
    before = "tei" if "tei_url" in settings else "ok"
    _forget(folder, before)
    with _of(folder, **settings) as client:
        assert client.rag_search("router", "town")
        assert _kept(folder) == (None, before)
    upstream.weights = 1
    with _of(folder, **settings) as client, pytest.raises(Conflict, match="reindex_collection"):
        client.rag_ingest("The gym opens at six.", "town")
    assert _kept(folder) == (None, before)
    upstream.weights = 0
    with _of(folder, **settings) as client:
        client.rag_ingest("The gym opens at six.", "town")
    made_by, called = _kept(folder)
    assert made_by
    assert called == "org/first"
    upstream.weights = 1
    with _of(folder, **settings) as client, pytest.raises(Conflict):
        client.rag_search("router", "town")


def test_a_collection_takes_its_fingerprint_along(
    ingested: tuple[Path, dict[str, Any]], upstream: Upstream, tmp_path: Path
) -> None:
    folder, settings = ingested
    file = tmp_path / "town.jsonl"
    with _of(folder, **settings) as client:
        client.export_collection("town", str(file))
    assert json.loads(file.read_text().partition("\n")[0])["fingerprint"]["vectors"]
    with _of(tmp_path / "elsewhere", **settings) as client:
        client.import_collection(str(file))
        assert client.rag_search("router", "town")
    upstream.weights = 1
    with _of(tmp_path / "elsewhere", **settings) as client, pytest.raises(Conflict):
        client.rag_search("router", "town")


def test_a_server_with_two_models_behind_it_is_told(
    connect: Connect, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(tei_url=f"{upstream.url}/in-turn", upstream_timeout=20)
    monkeypatch.setattr(remote_embedders, "LOOK_AGAIN", 0.0)
    with pytest.raises(BackendError, match="changing embedding models"):
        client.embed(["a", "b"])


# Tokens


def test_tokens_are_what_the_server_counts(connect: Connect, upstream: Upstream) -> None:
    client = connect(tei_url=f"{upstream.url}/ok")
    assert client.embed(["two words", "and three more"]).usage == {"prompt_tokens": 5, "total_tokens": 5}
    assert client.rag_ingest(["one two three", "four five"], "town").tokens == 5
    assert client.rag_ingest(["one two three", "six"], "town").tokens == 1
    done = client.wait_for_job(client.submit_job("batch_embed", {"texts": ["a b", "c"]}), 30)
    assert done.tokens == 3
    assert client.reindex_collection("town").tokens == 6


@pytest.fixture(scope="module")
def both(_upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LLMBackendClient]]:
    """A client on each transport, before a TEI that tells nothing."""
    settings: dict[str, Any] = {"tei_url": f"{_upstream.url}/old", "tei_api_key": KEY}
    with (
        _of(tmp_path_factory.mktemp("local"), **settings) as local,
        serving(tmp_path_factory.mktemp("server"), api_key=SERVER_KEY, **settings) as server,
        LLMBackendClient(server.url, SERVER_KEY) as http,
    ):
        yield [local, http]


def test_tokens_that_a_server_does_not_tell_are_none(both: list[LLMBackendClient], tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("The ferry leaves at nine.")
    for client in both:
        assert client.embed(["two words"]).usage == {"prompt_tokens": None, "total_tokens": None}
        assert client.rag_ingest(["one two three"], "town").tokens is None
        assert client.rag_ingest(["one two three"], "town").tokens == 0, "nothing was embedded"
        assert client.rag_ingest_files([str(file)], "town").tokens is None
        assert client.rag_ingest(["four"], "town", plan=True).tokens is None
        done = client.wait_for_job(client.submit_job("batch_embed", {"texts": ["a", "b"]}), 30)
        assert done.tokens is None


def test_an_answer_asks_the_server_for_the_questions_vector_only(
    connect: Connect, upstream: Upstream, server: dict[str, str]
) -> None:
    client = connect(**server, embedding_cache_mb=0)
    text = "The ferry leaves at nine. The harbour was dredged in 1911. The market is on Mondays."
    client.rag_ingest([text], "town")
    upstream.reset()
    answer = client.rag_query("When was the harbour dredged?", "town")
    embedded = [texts for body in upstream.seen if (texts := body.get("inputs") or body.get("input"))]
    assert embedded == [["When was the harbour dredged?"]]
    assert answer.sources[0].quote == "The harbour was dredged in 1911."


# Several servers


def test_the_next_server_is_asked_where_one_fails(tmp_path: Path, upstream: Upstream) -> None:
    with running() as other, _of(tmp_path, tei_url=f"{other.url}/ok, {upstream.url}/ok") as client:
        other.called = upstream.called = "org/first"
        client.rag_ingest(DOCUMENTS, "town")
        assert upstream.looks == 0, "it is looked at when first used"
        other.faults = ["500"] * 9
        assert client.rag_ingest("The gym opens at six.", "town").added == 1
        assert upstream.looks >= 1 == len(upstream.seen)
        assert [check.ok for check in client.doctor().checks if check.name == "embeddings"] == [False, True]


def test_servers_with_different_models_are_told_by_both_addresses(tmp_path: Path, upstream: Upstream) -> None:
    upstream.called, upstream.weights = "org/second", 1
    with (
        running() as other,
        _of(
            tmp_path, **_at(upstream, openai_base_url=f"{other.url},{upstream.url}", embedding_model="ok")
        ) as client,
    ):
        other.called = "org/first"
        client.rag_ingest(DOCUMENTS, "town")
        other.faults = ["500"] * 9
        with pytest.raises(Conflict) as caught:
            client.rag_ingest("The gym opens at six.", "town")
        for told in (upstream.url, other.url, "org/first", "org/second"):
            assert told in caught.value.message
