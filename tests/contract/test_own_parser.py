"""A collection whose documents a project's own node parser splits."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbackend import BackendError, BackendTimeout, Conflict, InvalidRequest, LLMBackendClient, plugins
from llmbackend.local import LocalTransport
from llmbackend.settings import Settings

CONTRACT = "§ 1 The berth is let for a year.\n§ 2 The rent is nine crowns.\n§ 3 Dogs stay ashore."


@pytest.fixture
def contracts(client: LLMBackendClient, collection: str) -> str:
    made = client.create_collection(collection, parser="clauses")
    assert made.parser == "clauses"
    return collection


def _document(text: str = CONTRACT, name: str = "berth") -> dict[str, object]:
    return {"id": name, "text": text, "metadata": {"year": 2026}}


def test_a_parser_splits_what_is_ingested_and_planned(client: LLMBackendClient, contracts: str) -> None:
    plan = client.rag_ingest(_document(), contracts, plan=True)
    assert (plan.added, plan.chunks) == (1, 3)
    assert client.rag_ingest(_document(), contracts).chunks == 3
    assert client.rag_ingest(_document(), contracts).unchanged == 1
    chunks = sorted(client.list_chunks(contracts), key=lambda one: one.chunk)
    assert [one.text for one in chunks] == [
        "§1 The berth is let for a year.",
        "§2 The rent is nine crowns.",
        "§3 Dogs stay ashore.",
    ]
    assert chunks[0].metadata == {"year": 2026}
    client.rag_ingest_files([("pier.txt", b"\xc2\xa7 1 One.\n\xc2\xa7 2 Two.")], contracts)
    assert [one.text for one in client.list_chunks(contracts, ids=["pier.txt"])]
    job = client.submit_job("rag_ingest", {"documents": [_document(name="other")], "collection": contracts})
    assert client.wait_for_job(job, timeout=60)["chunks"] == 3
    client.rag_ingest({"id": "split", "chunks": [{"text": "a § b"}]}, contracts)
    assert [one.text for one in client.list_chunks(contracts, ids=["split"])] == ["a § b"], "it came split"


def test_a_parser_goes_along(client: LLMBackendClient, contracts: str, tmp_path: Path) -> None:
    client.rag_ingest(_document(), contracts)
    assert client.reindex_collection(contracts).chunks == 3
    assert client.get_collection(contracts).parser == "clauses"
    file = tmp_path / "contracts.jsonl"
    client.export_collection(contracts, file)
    client.delete_collection(contracts)
    client.import_collection(file)
    assert client.get_collection(contracts).parser == "clauses"
    assert client.rag_ingest(_document(), contracts).unchanged == 1
    assert client.rag_ingest(_document(name="other"), contracts).chunks == 3


def test_a_parser_that_there_is_not_is_refused_by_name(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match=r"no node parser 'verses': there are .*clauses"):
        client.create_collection(collection, parser="verses")
    assert collection not in [one.name for one in client.list_collections(counts=False)]


def test_a_parser_that_fails_is_named_and_leaves_nothing(client: LLMBackendClient, contracts: str) -> None:
    with pytest.raises(
        BackendError, match=r"node parser 'clauses' \(harbour_parts:clauses\) failed: ValueError"
    ):
        client.rag_ingest([_document(), _document("raise", "other")], contracts)
    assert client.get_collection(contracts).chunks == 0
    assert client.rag_ingest(_document(), contracts).added == 1


def test_a_parser_that_hangs_is_given_up(tmp_path: Path) -> None:
    options = Settings(data_dir=tmp_path, plugin_seconds=0.3)
    with LLMBackendClient(transport=LocalTransport(options)) as client:
        client.create_collection("contracts", parser="clauses")
        with pytest.raises(BackendTimeout, match=r"'clauses'.*PLUGIN_SECONDS"):
            client.rag_ingest(_document("hang"), "contracts")


def test_a_collection_whose_parser_is_gone_is_read_and_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        client.create_collection("contracts", parser="clauses")
        client.rag_ingest(_document(), "contracts")
    monkeypatch.delitem(plugins.NODE_PARSERS._parts, "clauses")  # its package has been uninstalled
    monkeypatch.setattr(plugins, "load", lambda: None)
    with LLMBackendClient(transport=LocalTransport(Settings(data_dir=tmp_path))) as client:
        for plan in (False, True):
            with pytest.raises(Conflict, match=r"'clauses', which is not installed.*install") as caught:
                client.rag_ingest(_document(), "contracts", plan=plan)
            assert caught.value.details == {"collection": "contracts", "parser": "clauses"}
        assert client.rag_search("rent", "contracts")[0].text.startswith("§2")
        assert "'clauses'" in client.get_collection("contracts").problem
        [check] = [one for one in client.doctor().checks if one.name == "plugins"]
        assert not check.ok
        assert "'clauses'" in check.fix
