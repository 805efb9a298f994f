"""Documents from sources that are read as they come: iterators, readers and files of rows, whatever their length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import llm_client
from llmbackend import InvalidRequest, LLMBackendClient, Record

COUNT = 50


@pytest.fixture(autouse=True)
def _small_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llm_client, "STREAM_OF", 20)


def _documents(count: int = COUNT) -> Iterator[dict[str, Any]]:
    for number in range(count):
        yield {
            "id": f"d{number}",
            "text": f"Report {number} is about case {number}.",
            "metadata": {"number": number},
        }


def _ids(client: LLMBackendClient, collection: str) -> set[str]:
    return {one.id for one in client.list_documents(collection)}


def test_an_iterator_is_read_no_further_than_it_is_stored(client: LLMBackendClient, collection: str) -> None:
    stored: list[int] = []

    def source() -> Iterator[dict[str, Any]]:
        for number, document in enumerate(_documents()):
            if number in (21, 41):  # one is read ahead, to know whether there are more
                stored.append(len(_ids(client, collection)))
            yield document

    report = client.rag_ingest(source(), collection)
    assert stored == [20, 40]
    assert (report.added, report.chunks, report.failed) == (COUNT, COUNT, [])
    assert client.rag_ingest(_documents(), collection).unchanged == COUNT


def test_a_source_that_breaks_leaves_what_came_before_and_says_so(
    client: LLMBackendClient, collection: str
) -> None:
    def source() -> Iterator[dict[str, Any]]:
        yield from _documents(25)
        raise ConnectionError("the database went away")

    with pytest.raises(
        InvalidRequest, match=r"broke at row 25 \(ConnectionError: the database .*25 documents"
    ) as caught:
        client.rag_ingest(source(), collection)
    assert (caught.value.details["ingested"], caught.value.details["row"]) == (25, 25)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert len(_ids(client, collection)) == 25
    assert client.rag_ingest(_documents(), collection).unchanged == 25


def test_what_is_wrong_in_a_source_is_told_by_its_row(client: LLMBackendClient, collection: str) -> None:
    def source() -> Iterator[dict[str, Any]]:
        for number, document in enumerate(_documents()):
            yield {**document, "metadata": {"price": float("nan") if number == 43 else 1.5}}

    with pytest.raises(
        InvalidRequest, match=r"documents\[43\]\.metadata\.price is NaN: leave it out"
    ) as caught:
        client.rag_ingest(source(), collection)
    assert caught.value.details["ingested"] == 40
    assert caught.value.details["errors"][0]["loc"][:2] == ["documents", 43]
    wrong = [*_documents(5), {"id": "x" * 600, "text": "its id is too long"}]
    with pytest.raises(InvalidRequest, match=r"documents\[45\]\.") as caught:  # found by the schema
        client.rag_ingest(iter([*_documents(40), *wrong]), collection)
    assert caught.value.details["ingested"] == 40


def test_documents_before_one_of_a_wrong_kind_are_stored(client: LLMBackendClient, collection: str) -> None:
    with pytest.raises(InvalidRequest, match=r"documents\[25\] .* \(25 documents before it are in") as caught:
        client.rag_ingest(iter([*_documents(25), 4711]), collection)
    assert (caught.value.details["ingested"], len(_ids(client, collection))) == (25, 25)


def test_a_list_with_something_wrong_in_it_leaves_nothing(client: LLMBackendClient, collection: str) -> None:
    wrong = [*_documents(), {"id": "wrong", "text": "a text", "metadata": {"price": float("nan")}}]
    with pytest.raises(InvalidRequest, match=r"documents\[50\]\.metadata\.price is NaN") as caught:
        client.rag_ingest(wrong, collection)
    assert "ingested" not in caught.value.details
    assert collection not in [one.name for one in client.list_collections()]


def test_a_row_of_a_table_is_told_by_its_number(client: LLMBackendClient, collection: str) -> None:
    table = pd.DataFrame({"text": ["one", None, "three"], "price": [1.0, 2.0, float("inf")]})
    with pytest.raises(InvalidRequest, match=r"documents\[2\]\.metadata\.price is inf"):
        client.rag_ingest(table, collection)


def test_progress_and_the_report_grow(client: LLMBackendClient, collection: str) -> None:
    told: list[Record] = []
    source = pa.table({"text": [f"Report {number}." for number in range(COUNT)]})
    reader = pa.RecordBatchReader.from_batches(source.schema, source.to_batches(max_chunksize=7))
    client.rag_ingest(reader, collection, progress=told.append)
    done = [state.done for state in told]
    assert done == sorted(done)
    assert done[-1] == COUNT
    assert [state.stages.write.done for state in told][-1] == COUNT
    assert told[-1].report.added == 40, "what is stored before this request"
    assert [state.stage for state in told].count("done") == 1


FILES = ["parquet", "jsonl", "csv"]


def _file(folder: Path, kind: str) -> Path:
    table = pd.DataFrame([{**one, "metadata": one["metadata"]["number"]} for one in _documents()])
    table = table.rename(columns={"metadata": "number", "text": "body"})
    path = folder / f"reports.{kind}"
    if kind == "parquet":
        table.to_parquet(path)
    elif kind == "jsonl":
        table.to_json(path, orient="records", lines=True)
    else:
        table.to_csv(path, index=False)
    return path


@pytest.mark.parametrize("kind", FILES)
def test_a_file_of_rows_is_read_as_it_is_sent(
    client: LLMBackendClient, collection: str, tmp_path: Path, kind: str
) -> None:
    path = _file(tmp_path, kind)
    report = client.rag_ingest(str(path), collection, metadata={"source": "export"})
    assert (report.added, report.columns) == (COUNT, {"id": "id", "text": "body", "metadata": ["number"]})
    (found,) = [one for one in client.list_documents(collection) if one.id == "d7"]
    assert found.metadata == {"source": "export", "number": 7}
    assert client.rag_ingest(path, collection, metadata={"source": "export"}).unchanged == COUNT


def test_a_file_of_documents_has_their_metadata(
    client: LLMBackendClient, collection: str, tmp_path: Path
) -> None:
    path = tmp_path / "documents.jsonl"
    path.write_text("\n".join(json.dumps(one) for one in _documents()) + "\n\n")
    assert client.rag_ingest(path, collection).added == COUNT
    assert {one.metadata["number"] for one in client.list_documents(collection)} == set(range(COUNT))
    with path.open("a") as file:
        file.write('{"id": "broken", "text": ')
    with pytest.raises(InvalidRequest, match=r"broke at row 50 .*documents.jsonl', line 52, is no") as caught:
        client.rag_ingest(path, collection)
    assert caught.value.details["ingested"] == COUNT


def test_metadata_for_all_documents_goes_beside_their_own(client: LLMBackendClient, collection: str) -> None:
    given = ["a bare text", {"id": "own", "text": "another text", "metadata": {"team": "hr", "year": 2026}}]
    client.rag_ingest(given, collection, metadata={"team": "it", "site": "Aldersea"})
    found = {one.id: one.metadata for one in client.list_documents(collection)}
    assert found.pop("own") == {"team": "hr", "year": 2026, "site": "Aldersea"}
    assert list(found.values()) == [{"team": "it", "site": "Aldersea"}]
    client.rag_ingest("a bare text", collection)
    assert _ids(client, collection) == {*found, "own"}, "its id is the same with and without"


def test_sync_removes_what_a_source_does_not_have(client: LLMBackendClient, collection: str) -> None:
    client.rag_ingest([*_documents(), "a bare text that stays", "one that goes"], collection)

    def source() -> Iterator[Any]:
        yield from list(_documents())[5:]
        yield "a bare text that stays"

    plan = client.rag_ingest(source(), collection, sync=True, plan=True)
    assert (plan.deleted, len(_ids(client, collection))) == (6, 52)
    assert client.rag_ingest(source(), collection, sync=True).deleted == 6
    assert len(_ids(client, collection)) == 46
    assert {"d4", "d5"} & _ids(client, collection) == {"d5"}


def test_nothing_and_what_is_nothing_to_read_are_refused(client: LLMBackendClient, collection: str) -> None:
    for given in (iter(()), [], 5, None):
        with pytest.raises(InvalidRequest, match="documents"):
            client.rag_ingest(given, collection)
    pq.write_table(pa.table({"a": ["x"], "b": ["y"]}), "no-text.parquet")
    with pytest.raises(InvalidRequest, match=r"which column has the text\? Name it, as in text='a'"):
        client.rag_ingest("no-text.parquet", collection)
    assert client.rag_ingest("no-text.parquet", collection, text="b").added == 1
